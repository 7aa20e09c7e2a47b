/**
 * The way to a WebGPU device: `navigator.gpu` in browsers, Dawn (the optional package `webgpu`) in Node. No other file
 * knows which of them it is.
 */

import { MatMambaError, messageOf } from '../../errors.ts';
import type { WebGpuFacts } from '../../ops/webgpu-kernel.ts';

/** Not imported by its name: bundlers for browsers leave it alone. */
const DAWN_PACKAGE = 'webgpu';
/** GPU time in nanoseconds instead of steps of 0.1 ms, for profiles. */
const DAWN_OPTIONS = ['disable-dawn-features=timestamp_quantization'];

const WANTED_FEATURES = ['timestamp-query', 'subgroups', 'shader-f16'] as const;
/** What is asked of the adapter up to all that it has; for everything else the defaults are enough. */
const WANTED_LIMITS = ['maxStorageBufferBindingSize', 'maxBufferSize'] as const;

export interface WebGpuOptions {
  /** Which of several adapters is preferred. */
  readonly powerPreference?: GPUPowerPreference;
  /** Largest buffer to use where the adapter allows larger ones; 128 MiB is what every adapter allows. */
  readonly bufferLimitBytes?: number;
}

/** A device with what is known of its adapter. */
export interface OpenedGpu {
  readonly device: GPUDevice;
  readonly facts: WebGpuFacts;
  /** Vendor, architecture and description, as far as the adapter tells. */
  readonly description: string;
  readonly features: readonly string[];
  /** Bytes of the largest buffer that a kernel can be given, and what sets them. */
  readonly bufferLimitBytes: number;
  readonly bufferLimitName: (typeof WANTED_LIMITS)[number] | 'bufferLimitBytes';
}

/** Dawn, one for the process: it would end, devices in use or not, when nothing refers to it any more. */
let dawn: Promise<GPU> | undefined;

async function findGpu(): Promise<GPU> {
  const here = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  if (here) return here;
  if (typeof process === 'undefined') {
    throw new MatMambaError('DEVICE', 'this browser has no WebGPU', { hint: "use the device 'cpu', or a browser with WebGPU" });
  }
  dawn ??= createDawn();
  return dawn;
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

/** @throws DEVICE without WebGPU or an adapter */
export async function openGpu({
  powerPreference = 'high-performance',
  bufferLimitBytes = Infinity,
}: WebGpuOptions = {}): Promise<OpenedGpu> {
  const gpu = await findGpu();
  let adapter: GPUAdapter | null;
  try {
    adapter = await gpu.requestAdapter({ powerPreference });
  } catch (cause) {
    throw noAdapter(`: ${messageOf(cause)}`, cause);
  }
  if (!adapter) throw noAdapter(' was offered');
  const { info, features, limits } = adapter;
  const requiredFeatures = WANTED_FEATURES.filter((name) => features.has(name));
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
    ...WANTED_LIMITS.map((name) => [name, device.limits[name]] as const),
    ['bufferLimitBytes', bufferLimitBytes] as const,
  ];
  const [bufferLimitName, least] = bufferLimits.reduce((a, b) => (b[1] < a[1] ? b : a));
  const words = [info.vendor, info.architecture, info.description || info.device].filter((word) => word);
  return {
    device,
    description: words.join(' ') || 'unnamed adapter',
    features: requiredFeatures,
    bufferLimitBytes: least,
    bufferLimitName,
    facts: {
      subgroups: device.features.has('subgroups'),
      subgroupMinSize: info.subgroupMinSize ?? 1,
      subgroupMaxSize: info.subgroupMaxSize ?? 1,
      f16: device.features.has('shader-f16'),
      software: info.isFallbackAdapter ?? false,
    },
  };
}

function noAdapter(why: string, cause?: unknown): MatMambaError {
  return new MatMambaError('DEVICE', `no WebGPU adapter${why}`, {
    hint: "a GPU with a Vulkan, Metal or Direct3D 12 driver is needed; the device 'cpu' always works",
    ...(cause === undefined ? {} : { cause }),
  });
}
