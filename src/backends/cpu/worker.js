/** A member of the CPU team in Node; see worker-loop.js. */

import { parentPort, workerData } from 'node:worker_threads';
import { serve } from './worker-loop.js';

/** @typedef {import('./worker-loop.js').Start & { blas: { path: string, function: string, setThreads: string | null } | null }} Start */

const start = /** @type {Start} */ (workerData);
const port = /** @type {import('node:worker_threads').MessagePort} */ (parentPort);

/**
 * The system's BLAS on addresses in the shared memory, row-major: `sgemm` is C[m][n] = A[m][k] B[n][k]^T, `gemm` is
 * C[m][n] = op(A)[m][k] op(B)[k][n] + beta C, where op transposes if its flag is 1.
 * @param {NonNullable<Start['blas']>} library
 * @returns {Promise<import('./worker-loop.js').Products>}
 */
async function bindBlas(library) {
  const koffi = (await import('koffi')).default;
  const lib = koffi.load(library.path);
  if (library.setThreads) lib.func(`void ${library.setThreads}(int)`)(1);
  const sgemm = lib.func(
    `void ${library.function}(int, int, int, int, int, int, float, uint64_t, int, uint64_t, int, float, uint64_t, int)`,
  );
  const base = Number(koffi.address(new Uint8Array(start.memory.buffer)));
  const [ROW_MAJOR, PLAIN, TRANSPOSED] = [101, 111, 112];
  const at = (/** @type {number} */ pointer) => base + (pointer >>> 0);
  return {
    sgemm: (m, n, k, a, lda, b, ldb, c, ldc) =>
      sgemm(ROW_MAJOR, PLAIN, TRANSPOSED, m, n, k, 1, at(a), lda, at(b), ldb, 0, at(c), ldc),
    gemm: (transA, transB, m, n, k, a, lda, b, ldb, beta, c, ldc) =>
      sgemm(ROW_MAJOR, PLAIN + transA, PLAIN + transB, m, n, k, 1, at(a), lda, at(b), ldb, beta, at(c), ldc),
  };
}

await serve(start, (message) => port.postMessage(message), start.blas ? await bindBlas(start.blas) : undefined);
port.close();
