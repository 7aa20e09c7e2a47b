/** The CUDA driver as the tests see it, beside the backend: whether there is a device, and how much memory is free. */

import { messageOf } from '../../src/errors.ts';
import { type NativeLibrary, loadLibrary } from '../../src/backends/cuda/libraries.ts';

/** Why no CUDA device can be used here; undefined when there is one. */
export async function whyNoCuda(): Promise<string | undefined> {
  let library: NativeLibrary;
  try {
    library = await loadLibrary('cuda');
  } catch (error) {
    return `no CUDA driver: ${messageOf(error)}`;
  }
  const status = library.bind('cuInit', 'uint32_t')(0);
  if (status !== 0) return `the CUDA driver ${library.path} does not start: cuInit failed with status ${status}`;
  const count = new Int32Array(1);
  library.bind('cuDeviceGetCount', 'uint64_t')(library.address(count));
  return count[0] === 0 ? `the CUDA driver ${library.path} sees no device` : undefined;
}

/** Devices that CUDA sees. */
export async function countDevices(): Promise<number> {
  const library = await loadLibrary('cuda');
  library.bind('cuInit', 'uint32_t')(0);
  const count = new Int32Array(1);
  library.bind('cuDeviceGetCount', 'uint64_t')(library.address(count));
  return count[0]!;
}

/** Free bytes of the first device. The device's context stays as it is. */
export async function freeDeviceBytes(): Promise<() => number> {
  const library = await loadLibrary('cuda');
  const cell = new BigUint64Array(2);
  const [first, second] = [library.address(cell), library.address(cell.subarray(1))];
  const call = (name: string, parameters: string, ...args: readonly (number | bigint)[]): void => {
    const status = library.bind(name, parameters)(...args);
    if (status !== 0) throw new Error(`${name} failed with status ${status}`);
  };
  call('cuInit', 'uint32_t', 0);
  call('cuDevicePrimaryCtxRetain', 'uint64_t, int', first, 0);
  const context = cell[0]!;
  return () => {
    call('cuCtxPushCurrent_v2', 'uint64_t', context);
    call('cuMemGetInfo_v2', 'uint64_t, uint64_t', first, second);
    const free = Number(cell[0]!);
    call('cuCtxPopCurrent_v2', 'uint64_t', first);
    return free;
  };
}
