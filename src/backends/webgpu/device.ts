/** One WebGPU device: its buffers, its compiled kernels, and what went wrong on it, as coded errors. */

import { MatMambaError, messageOf } from '../../errors.ts';
import { type WebGpuDispatch, type WebGpuFacts, type WebGpuStorage, moduleText } from '../../ops/webgpu-kernel.ts';
import type { OpenedGpu, WebGpuFeature } from './gpu.ts';

/** Buffers are made of whole steps of so many bytes, so that any vector type may read them to the end. */
const BUFFER_ALIGN_BYTES = 256;

/** `GPUBufferUsage`, a global that Node lacks. */
export const BUFFER_USAGE = {
  mapRead: 0x1,
  copySource: 0x4,
  copyTarget: 0x8,
  uniform: 0x40,
  storage: 0x80,
  queryResolve: 0x200,
} as const;
/** Usage of what kernels read and write. */
const STORAGE_USAGE = BUFFER_USAGE.storage | BUFFER_USAGE.copySource | BUFFER_USAGE.copyTarget;
const COMPUTE_STAGE = 4;
/** The news of a lost device may come so much later than the errors that it causes. */
const LOSS_NEWS_MS = 250;

/** A buffer on the device. */
export class DeviceBuffer implements WebGpuStorage {
  readonly label: string;
  readonly bytes: number;
  readonly gpu: GPUBuffer;
  readonly #freed: (bytes: number) => void;
  #free = false;

  constructor(label: string, gpu: GPUBuffer, freed: (bytes: number) => void) {
    this.label = label;
    this.gpu = gpu;
    this.bytes = gpu.size;
    this.#freed = freed;
  }

  /** Work that was submitted before still finds it. */
  free(): void {
    if (this.#free) return;
    this.#free = true;
    this.gpu.destroy();
    this.#freed(this.bytes);
  }
}

/** A compiled kernel; `pipeline` is there once `ready` has resolved. */
export interface CompiledKernel {
  readonly layout: GPUBindGroupLayout;
  readonly ready: Promise<GPUComputePipeline>;
}

export class WebGpuDevice {
  readonly gpu: GPUDevice;
  readonly facts: WebGpuFacts;
  readonly description: string;
  /** Optional features in use. */
  readonly features: readonly WebGpuFeature[];
  /** Bytes of the largest buffer that a kernel can be given. */
  readonly bufferLimitBytes: number;
  readonly #limitName: OpenedGpu['bufferLimitName'];
  readonly #kernels = new Map<string, CompiledKernel>();
  readonly #layouts = new Map<string, { group: GPUBindGroupLayout; pipeline: GPUPipelineLayout }>();
  #usedBytes = 0;
  #closed = false;
  #lost: string | undefined;
  #uncaptured: string | undefined;

  constructor(opened: OpenedGpu, onLost: () => void) {
    const { device, facts, description, features, bufferLimitBytes, bufferLimitName } = opened;
    this.gpu = device;
    this.facts = facts;
    this.description = description;
    this.features = features;
    this.bufferLimitBytes = bufferLimitBytes;
    this.#limitName = bufferLimitName;
    void device.lost.then(({ message }) => {
      if (this.#closed) return;
      this.#lost = message || 'the device was lost';
      onLost();
    });
    device.onuncapturederror = ({ error }) => void (this.#uncaptured ??= error.message);
  }

  /** Bytes in buffers. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Resolves once it is known whether the device was lost: what fails by that may be heard of before. */
  async lostOrNot(): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const waited = new Promise<void>((resolve) => (timer = setTimeout(resolve, LOSS_NEWS_MS)));
    await Promise.race([this.gpu.lost, waited]);
    clearTimeout(timer);
  }

  /** @throws DEVICE after the device failed */
  check(): void {
    if (this.#lost !== undefined) {
      throw new MatMambaError('DEVICE', `the GPU was lost: ${this.#lost}`, { hint: 'load the model again' });
    }
    const message = this.#uncaptured;
    this.#uncaptured = undefined;
    if (message !== undefined) throw new MatMambaError('DEVICE', `WebGPU refused something: ${message}`);
  }

  /** Zeroed memory that kernels read and write. @throws MEMORY */
  async allocate(bytes: number, label: string, usage: number = STORAGE_USAGE): Promise<DeviceBuffer> {
    const { buffer, made } = this.allocateNow(bytes, label, usage);
    await made;
    return buffer;
  }

  /** The same at once; `made` rejects when the device had no room. @throws MEMORY beyond its limits */
  allocateNow(bytes: number, label: string, usage: number = STORAGE_USAGE): { buffer: DeviceBuffer; made: Promise<void> } {
    const size = Math.max(BUFFER_ALIGN_BYTES, Math.ceil(bytes / BUFFER_ALIGN_BYTES) * BUFFER_ALIGN_BYTES);
    this.checkSize(size, label);
    let gpu!: GPUBuffer;
    const errors = this.scoped(() => void (gpu = this.gpu.createBuffer({ size, usage, label })));
    this.#usedBytes += size;
    const buffer = new DeviceBuffer(label, gpu, (freed) => void (this.#usedBytes -= freed));
    const made = errors.then((error) => {
      if (!error) return;
      buffer.free();
      throw new MatMambaError('MEMORY', `no room for ${megabytes(size)} of ${label}: ${error.message}`, {
        hint: 'dispose of other models, or load with dtype f16 or int8',
      });
    });
    return { buffer, made };
  }

  /** @throws MEMORY, naming the limit, for a buffer that is larger than the adapter allows */
  checkSize(bytes: number, what: string, hint = 'use a smaller batch, a shorter input or a smaller granularity'): void {
    if (bytes <= this.bufferLimitBytes) return;
    const allowed = `this adapter allows ${megabytes(this.bufferLimitBytes)} (${this.#limitName})`;
    throw new MatMambaError('MEMORY', `${what}: ${megabytes(bytes)} are needed in one buffer, ${allowed}`, { hint });
  }

  /** Runs `work`, which must not wait, and resolves with the first error that WebGPU found in it. */
  scoped(work: () => void): Promise<GPUError | undefined> {
    const filters = ['validation', 'out-of-memory', 'internal'] as const;
    for (const filter of filters) this.gpu.pushErrorScope(filter);
    let thrown: unknown;
    try {
      work();
    } catch (error) {
      thrown = error;
    }
    return Promise.all(filters.map(() => this.gpu.popErrorScope())).then(
      (errors) => {
        if (thrown !== undefined) throw thrown;
        return errors.find((error) => error !== null) ?? undefined;
      },
      (cause: unknown) => {
        throw new MatMambaError('DEVICE', `the GPU failed: ${messageOf(cause)}`, { cause });
      },
    );
  }

  /** The compiled kernel of a dispatch, from the cache or being compiled; `what` names it in errors. */
  kernel(dispatch: WebGpuDispatch, what: string): CompiledKernel {
    const text = moduleText(dispatch);
    const key = `${dispatch.entry}\n${text}`;
    let kernel = this.#kernels.get(key);
    if (!kernel) {
      const { group, pipeline } = this.#layout(dispatch);
      const ready = this.#compile(text, dispatch.entry, pipeline, what);
      ready.catch(() => this.#kernels.delete(key));
      kernel = { layout: group, ready };
      this.#kernels.set(key, kernel);
    }
    return kernel;
  }

  destroy(): void {
    this.#closed = true;
    this.#kernels.clear();
    this.#layouts.clear();
    this.gpu.destroy();
  }

  #layout({ bindings, constants }: WebGpuDispatch): { group: GPUBindGroupLayout; pipeline: GPUPipelineLayout } {
    const types: GPUBufferBindingType[] = bindings.map(({ access }) => (access === 'read' ? 'read-only-storage' : 'storage'));
    if (Object.keys(constants).length > 0) types.push('uniform');
    const key = types.join();
    let layout = this.#layouts.get(key);
    if (!layout) {
      const group = this.gpu.createBindGroupLayout({
        entries: types.map((type, binding) => ({ binding, visibility: COMPUTE_STAGE, buffer: { type } })),
      });
      layout = { group, pipeline: this.gpu.createPipelineLayout({ bindGroupLayouts: [group] }) };
      this.#layouts.set(key, layout);
    }
    return layout;
  }

  async #compile(code: string, entryPoint: string, layout: GPUPipelineLayout, what: string): Promise<GPUComputePipeline> {
    let module!: GPUShaderModule;
    const errors = this.scoped(() => void (module = this.gpu.createShaderModule({ code, label: what })));
    const made = this.gpu.createComputePipelineAsync({ layout, compute: { module, entryPoint }, label: what }).then(
      (pipeline) => ({ pipeline }),
      (error: unknown) => ({ error }),
    );
    const [wrong, result] = await Promise.all([errors, made]);
    if ('pipeline' in result && !wrong) return result.pipeline;
    const { messages } = await module.getCompilationInfo();
    const lines = code.split('\n');
    const first = messages.find(({ type }) => type === 'error');
    const why = first
      ? `${first.message} in '${lines[first.lineNum - 1]?.trim()}' (line ${first.lineNum})`
      : 'error' in result
        ? messageOf(result.error)
        : wrong!.message;
    throw new MatMambaError('DEVICE', `the WebGPU kernel ${what} does not compile: ${why}`);
  }
}

export function megabytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
