/**
 * The way to a WebGPU device: `navigator.gpu` in browsers, Dawn (the optional package `webgpu`) in Node. No other file
 * knows which of them it is.
 */

import { MatMambaError, messageOf } from '../../errors.ts';
import { MATRIX_KERNEL_BYTES, type MatrixTile, type WebGpuFacts } from '../../ops/webgpu-kernel.ts';

/** Not imported by its name: bundlers for browsers leave it alone. */
const DAWN_PACKAGE = 'webgpu';
/**
 * What Dawn does not offer of itself: GPU time in nanoseconds instead of steps of 0.1 ms, for profiles; half arithmetic on
 * NVIDIA's Vulkan driver; and features that are not in the standard yet, of which subgroup matrices are used.
 */
const DAWN_OPTIONS = [
  'enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia',
  'disable-dawn-features=timestamp_quantization',
];

/** Optional features that are used where the adapter has them, and WebGPU's names for them. */
export const WEBGPU_FEATURES = {
  timestamps: 'timestamp-query',
  subgroups: 'subgroups',
  f16: 'shader-f16',
  'subgroup-matrix': 'chromium-experimental-subgroup-matrix',
} as const;
export type WebGpuFeature = keyof typeof WEBGPU_FEATURES;
export const WEBGPU_FEATURE_NAMES = Object.keys(WEBGPU_FEATURES) as readonly WebGpuFeature[];

/** What is asked of the adapter up to all that it has; for everything else the defaults are enough. */
const BUFFER_LIMITS = ['maxStorageBufferBindingSize', 'maxBufferSize'] as const;
const WANTED_LIMITS = [...BUFFER_LIMITS, 'maxComputeWorkgroupStorageSize'] as const;

export interface WebGpuOptions {
  /** Which of several adapters is preferred. */
  readonly powerPreference?: GPUPowerPreference;
  /** Largest buffer to use where the adapter allows larger ones; 128 MiB is what every adapter allows. */
  readonly bufferLimitBytes?: number;
  /** Optional features to use where the adapter has them; all unless given. */
  readonly features?: readonly WebGpuFeature[] | undefined;
}

/** A device with what is known of its adapter. */
export interface OpenedGpu {
  readonly device: GPUDevice;
  readonly facts: WebGpuFacts;
  /** Vendor, architecture and description, as far as the adapter tells. */
  readonly description: string;
  /** Optional features in use. */
  readonly features: readonly WebGpuFeature[];
  /** Bytes of the largest buffer that a kernel can be given, and what sets them. */
  readonly bufferLimitBytes: number;
  readonly bufferLimitName: (typeof BUFFER_LIMITS)[number] | 'bufferLimitBytes';
}

/** Dawn, one for the process: it would end, devices in use or not, when nothing refers to it any more. */
let dawn: Promise<GPU> | undefined;

async function findGpu(): Promise<{ gpu: GPU; inBrowser: boolean }> {
  const here = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  if (here) return { gpu: here, inBrowser: true };
  if (typeof process === 'undefined') {
    throw new MatMambaError('DEVICE', 'this browser has no WebGPU', { hint: "use the device 'cpu', or a browser with WebGPU" });
  }
  dawn ??= createDawn();
  return { gpu: await dawn, inBrowser: false };
}

async function createDawn(): Promise<GPU> {
  try {
    const { create } = (await import(/* @vite-ignore */ DAWN_PACKAGE)) as { create(options: string[]): GPU };
    return create([...DAWN_OPTIONS]);
  } catch (cause) {
    dawn = undefined;
    throw new MatMambaError('DEVICE', `WebGPU needs the package '${DAWN_PACKAGE}': ${messageOf(cause)}`, {
      hint: `npm install ${DAWN_PACKAGE}`,
      cause,
    });
  }
}

/** @throws OPTION for a feature that there is not; DEVICE without WebGPU or an adapter */
export async function openGpu({
  powerPreference = 'high-performance',
  bufferLimitBytes = Infinity,
  features: allowed = WEBGPU_FEATURE_NAMES,
}: WebGpuOptions = {}): Promise<OpenedGpu> {
  for (const name of allowed) {
    if (name in WEBGPU_FEATURES) continue;
    const hint = `features: ${WEBGPU_FEATURE_NAMES.join(', ')}`;
    throw new MatMambaError('OPTION', `there is no WebGPU feature '${String(name)}'`, { hint });
  }
  const { gpu, inBrowser } = await findGpu();
  let adapter: GPUAdapter | null;
  try {
    adapter = await gpu.requestAdapter({ powerPreference });
  } catch (cause) {
    throw noAdapter(`: ${messageOf(cause)}`, cause);
  }
  if (!adapter) throw noAdapter(' was offered');
  const { info, limits } = adapter;
  // How WGSL says subgroup matrices has changed before: of Dawn the version is known, of browsers it is not.
  const usable = inBrowser ? allowed.filter((name) => name !== 'subgroup-matrix') : allowed;
  const features = usable.filter((name) => adapter.features.has(WEBGPU_FEATURES[name] as GPUFeatureName));
  const requiredFeatures = features.map((name) => WEBGPU_FEATURES[name] as GPUFeatureName);
  const requiredLimits = Object.fromEntries(WANTED_LIMITS.map((name) => [name, limits[name]]));
  let device: GPUDevice;
  try {
    device = await adapter.requestDevice({ requiredFeatures, requiredLimits, label: 'matmamba' });
  } catch (cause) {
    throw new MatMambaError('DEVICE', `the WebGPU adapter gave no device: ${messageOf(cause)}`, {
      hint: "close other pages that use the GPU and try again; the device 'cpu' always works",
      cause,
    });
  }
  const bufferLimits = [
    ...BUFFER_LIMITS.map((name) => [name, device.limits[name]] as const),
    ['bufferLimitBytes', bufferLimitBytes] as const,
  ];
  const [bufferLimitName, least] = bufferLimits.reduce((a, b) => (b[1] < a[1] ? b : a));
  const words = [info.vendor, info.architecture, info.description || info.device].filter((word) => word);
  return {
    device,
    description: words.join(' ') || 'unnamed adapter',
    features,
    bufferLimitBytes: least,
    bufferLimitName,
    facts: {
      matrix: features.includes('subgroup-matrix') ? matrixOf(info, device, features) : undefined,
      subgroupSize: fixedSubgroupSize(info, features),
      software: info.isFallbackAdapter ?? false,
    },
  };
}

/** A configuration of subgroup matrices, as Dawn lists them. */
interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** The tile of halves with float32 sums, the one of most elements, where everything else that its kernels need is there. */
function matrixOf(info: GPUAdapterInfo, { limits }: GPUDevice, features: readonly WebGpuFeature[]): MatrixTile | undefined {
  const { subgroupMatrixConfigs: configs = [] } = info as { subgroupMatrixConfigs?: Iterable<MatrixConfig> };
  const usable = features.includes('f16') && fixedSubgroupSize(info, features) > 0;
  if (!usable || limits.maxComputeWorkgroupStorageSize < MATRIX_KERNEL_BYTES) return undefined;
  const [largest] = [...configs]
    .filter(({ componentType, resultComponentType }) => componentType === 'f16' && resultComponentType === 'f32')
    .sort((a, b) => b.M * b.N * b.K - a.M * a.N * a.K);
  return largest && { m: largest.M, n: largest.N, k: largest.K };
}

/** Lanes of every subgroup, 0 where there are none or of several sizes. */
function fixedSubgroupSize({ subgroupMinSize, subgroupMaxSize }: GPUAdapterInfo, features: readonly WebGpuFeature[]): number {
  return features.includes('subgroups') && subgroupMinSize === subgroupMaxSize ? subgroupMinSize : 0;
}

function noAdapter(why: string, cause?: unknown): MatMambaError {
  return new MatMambaError('DEVICE', `no WebGPU adapter${why}`, {
    hint: "a GPU with a Vulkan, Metal or Direct3D 12 driver is needed; the device 'cpu' always works",
    ...(cause === undefined ? {} : { cause }),
  });
}
