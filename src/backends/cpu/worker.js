/**
 * One member of the CPU team: instantiates the module over the shared memory and stays inside `work` until it is told
 * to end. A trap is reported, frees the others from the barrier, and leaves this worker ready for the next program.
 *
 * @typedef {{ path: string, function: string, setThreads: string | null }} BlasLibrary
 * @typedef {{ module: WebAssembly.Module, memory: WebAssembly.Memory, control: number, cells: Record<string, number>, thread: number, blas: BlasLibrary | null }} Start
 */

import { parentPort, workerData } from 'node:worker_threads';

const { module, memory, control, cells: CONTROL, thread, blas } = /** @type {Start} */ (workerData);
const port = /** @type {import('node:worker_threads').MessagePort} */ (parentPort);

/**
 * The system's BLAS on addresses in the shared memory, row-major: `sgemm` is C[m][n] = A[m][k] B[n][k]^T, `gemm` is
 * C[m][n] = op(A)[m][k] op(B)[k][n] + beta C, where op transposes if its flag is 1.
 * @param {BlasLibrary} library
 */
async function bindBlas(library) {
  const koffi = (await import('koffi')).default;
  const lib = koffi.load(library.path);
  if (library.setThreads) lib.func(`void ${library.setThreads}(int)`)(1);
  const sgemm = lib.func(
    `void ${library.function}(int, int, int, int, int, int, float, uint64_t, int, uint64_t, int, float, uint64_t, int)`,
  );
  const base = Number(koffi.address(new Uint8Array(memory.buffer)));
  const [ROW_MAJOR, PLAIN, TRANSPOSED] = [101, 111, 112];
  const at = (/** @type {number} */ pointer) => base + (pointer >>> 0);
  return {
    /** @type {(m: number, n: number, k: number, a: number, lda: number, b: number, ldb: number, c: number, ldc: number) => void} */
    sgemm: (m, n, k, a, lda, b, ldb, c, ldc) =>
      sgemm(ROW_MAJOR, PLAIN, TRANSPOSED, m, n, k, 1, at(a), lda, at(b), ldb, 0, at(c), ldc),
    /** @type {(transA: number, transB: number, m: number, n: number, k: number, a: number, lda: number, b: number, ldb: number, beta: number, c: number, ldc: number) => void} */
    gemm: (transA, transB, m, n, k, a, lda, b, ldb, beta, c, ldc) =>
      sgemm(ROW_MAJOR, PLAIN + transA, PLAIN + transB, m, n, k, 1, at(a), lda, at(b), ldb, beta, at(c), ldc),
  };
}

const noBlas = () => {
  throw new Error('no BLAS is loaded');
};
const library = blas ? await bindBlas(blas) : { sgemm: noBlas, gemm: noBlas };
const cells = new Int32Array(memory.buffer, control, Object.keys(CONTROL).length);
const instance = await WebAssembly.instantiate(module, {
  env: {
    memory,
    abort: () => {
      throw new Error('a kernel gave up');
    },
    now: () => performance.now(),
    /** @type {(address: number, value: number, milliseconds: number) => void} */
    sleep: (address, value, milliseconds) =>
      void Atomics.wait(cells, (address - control) / 4, value, milliseconds < 0 ? Infinity : milliseconds),
    blas_sgemm: library.sgemm,
    blas_gemm: library.gemm,
  },
});
const { work, finish } = /** @type {Record<string, (...args: number[]) => void>} */ (instance.exports);
/** @param {string} name */
const cell = (name) => /** @type {number} */ (CONTROL[name]);
port.postMessage({ ready: thread });

for (let seen = 0; seen >= 0;) {
  try {
    /** @type {any} */ (work)(control, thread, seen);
    seen = -1;
  } catch (error) {
    // Before `finish`: the next program may start, and change the number, as soon as all threads have finished.
    seen = Atomics.load(cells, cell('sequence'));
    Atomics.store(cells, cell('aborted'), 1);
    Atomics.notify(cells, cell('generation'));
    port.postMessage({ trap: `thread ${thread}: ${error instanceof Error ? error.stack : String(error)}` });
    /** @type {any} */ (finish)(control, Atomics.load(cells, cell('threads')));
  }
}
port.close();
