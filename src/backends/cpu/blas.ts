/**
 * Finds a system BLAS for large float32 products: Accelerate on macOS, else MKL, OpenBLAS or BLIS where the loader
 * finds them. Each worker calls it on its own slice, so the library itself is held to one thread.
 */

import { MatMambaError, messageOf } from '../../errors.ts';
import { ON_NODE } from './platform.ts';

/** What a worker needs to bind the library. */
export interface BlasLibrary {
  readonly path: string;
  readonly function: string;
  /** C function (int) that sets the library's own threads, if it has one. */
  readonly setThreads: string | null;
}

/** `auto` takes the first library found, `off` none, anything else is a path. */
export type BlasSetting = 'auto' | 'off' | (string & {});

const SET_THREADS = ['openblas_set_num_threads', 'MKL_Set_Num_Threads', 'bli_thread_set_num_threads'];

const CANDIDATES: Readonly<Record<string, readonly string[]>> = {
  darwin: ['/System/Library/Frameworks/Accelerate.framework/Accelerate'],
  linux: ['libmkl_rt.so.2', 'libmkl_rt.so', 'libopenblas.so.0', 'libopenblas.so', 'libblis.so.4', 'libblis.so'],
  win32: ['mkl_rt.2.dll', 'libopenblas.dll', 'openblas.dll'],
};

/**
 * Looks for a BLAS and checks it with a small product.
 * @throws DEVICE when the setting names a library that cannot be used
 */
export async function findBlas(setting: BlasSetting): Promise<{ library?: BlasLibrary; description: string }> {
  if (setting === 'off') return { description: 'off' };
  if (!ON_NODE) return { description: 'none in a browser' };
  const failures: string[] = [];
  const candidates = setting === 'auto' ? (CANDIDATES[process.platform] ?? []) : [setting];
  for (const path of candidates) {
    try {
      const library = await probe(path);
      return { library, description: path };
    } catch (error) {
      failures.push(`${path}: ${messageOf(error).split('\n')[0]}`);
    }
  }
  if (setting !== 'auto') {
    throw new MatMambaError('DEVICE', `cannot use the BLAS library ${failures.join('; ')}`, {
      hint: "give the path of a library with cblas_sgemm, or 'auto' or 'off'",
    });
  }
  return { description: `none found (looked for ${candidates.join(', ')})` };
}

async function probe(path: string): Promise<BlasLibrary> {
  const koffi = (await import('koffi')).default;
  const lib = koffi.load(path);
  const setThreads = SET_THREADS.find((name) => has(() => lib.func(`void ${name}(int)`))) ?? null;
  const sgemm = lib.func(
    'void cblas_sgemm(int, int, int, int, int, int, float, float *, int, float *, int, float, _Inout_ float *, int)',
  );
  const [a, b, c] = [Float32Array.of(1, 2, 3, 4), Float32Array.of(5, 6, 7, 8), new Float32Array(4)];
  sgemm(101, 111, 112, 2, 2, 2, 1, a, 2, b, 2, 0, c, 2);
  if (c.join() !== '17,23,39,53') throw new Error(`a 2 x 2 product came out as ${c.join(', ')}`);
  return { path, function: 'cblas_sgemm', setThreads };
}

function has(bind: () => unknown): boolean {
  try {
    bind();
    return true;
  } catch {
    return false;
  }
}
