/**
 * Opens backends by name, loading their code only then. Models with the same settings share one backend, so that
 * their programs take turns on the same threads instead of fighting for the cores; the last one to let go closes it.
 */

import { MatMambaError, nearestWord } from '../errors.ts';
import { type Backend, DEVICE_NAMES, type DeviceName } from './backend.ts';
import type { CpuOptions } from './cpu/cpu-backend.ts';
import type { CudaOptions } from './cuda/cuda-backend.ts';
import type { WebGpuFeature, WebGpuOptions } from './webgpu/gpu.ts';

export interface DeviceOptions extends CpuOptions, CudaOptions {
  readonly device?: DeviceName;
  /** On WebGPU: the optional features to use where the adapter has them (all unless given), to compare what they bring. */
  readonly webgpuFeatures?: readonly WebGpuFeature[] | undefined;
}

interface SharedBackend {
  readonly backend: Promise<Backend>;
  users: number;
}

const open = new Map<string, SharedBackend>();

/** A backend that others may use too; `release` must be called once. @throws OPTION, DEVICE */
export async function acquireBackend(options: DeviceOptions): Promise<{ backend: Backend; release: () => Promise<void> }> {
  const { device = 'cpu', threads, blas = 'auto', index = 0, webgpuFeatures: features } = options;
  if (!DEVICE_NAMES.includes(device)) {
    const near = nearestWord(String(device), DEVICE_NAMES);
    throw new MatMambaError('OPTION', `there is no device '${device}'`, {
      hint: near ? `did you mean '${near}'?` : `devices: ${DEVICE_NAMES.join(', ')}`,
    });
  }
  const keys = { cpu: `cpu/${threads ?? 'all'}/${blas}`, cuda: `cuda/${index}`, webgpu: `webgpu/${features?.join() ?? 'all'}` };
  const key = keys[device];
  let shared = open.get(key);
  if (!shared) {
    const onLost = (): void => forget(key, made);
    const openers = {
      cpu: () => openCpu({ ...(threads === undefined ? {} : { threads }), blas }, onLost),
      cuda: () => openCuda({ index }, onLost),
      webgpu: () => openWebGpu({ features }, onLost),
    };
    const made: SharedBackend = { backend: openers[device](), users: 0 };
    open.set(key, made);
    shared = made;
  }
  const mine = shared;
  mine.users++;
  let released = false;
  const release = async (): Promise<void> => {
    if (released) return;
    released = true;
    mine.users--;
    if (mine.users > 0) return;
    forget(key, mine);
    await (await mine.backend).dispose();
  };
  try {
    return { backend: await mine.backend, release };
  } catch (error) {
    forget(key, mine);
    throw error;
  }
}

/** Later models open a backend of their own. */
function forget(key: string, shared: SharedBackend): void {
  if (open.get(key) === shared) open.delete(key);
}

async function openCpu(options: CpuOptions, onLost: () => void): Promise<Backend> {
  const { CpuBackend } = await import('./cpu/cpu-backend.ts');
  return CpuBackend.open(options, { onLost });
}

async function openCuda(options: CudaOptions, onLost: () => void): Promise<Backend> {
  const cuda = await import('./cuda/cuda-backend.ts');
  return cuda.openCuda(options, { onLost });
}

async function openWebGpu(options: WebGpuOptions, onLost: () => void): Promise<Backend> {
  const webgpu = await import('./webgpu/webgpu-backend.ts');
  return webgpu.openWebGpu(options, { onLost });
}
