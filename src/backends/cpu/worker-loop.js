/**
 * One member of the CPU team: instantiates the module over the shared memory and stays inside `work` until it is told
 * to end. A trap is reported, frees the others from the barrier, and leaves this worker ready for the next program.
 *
 * @typedef {{ module: WebAssembly.Module, memory: WebAssembly.Memory, control: number, cells: Record<string, number>, thread: number }} Start
 * @typedef {{
 *   sgemm: (m: number, n: number, k: number, a: number, lda: number, b: number, ldb: number, c: number, ldc: number) => void,
 *   gemm: (transA: number, transB: number, m: number, n: number, k: number, a: number, lda: number, b: number, ldb: number, beta: number, c: number, ldc: number) => void,
 * }} Products
 */

const noBlas = () => {
  throw new Error('no BLAS is loaded');
};

/**
 * @param {Start} start
 * @param {(message: { ready: number } | { trap: string }) => void} post
 * @param {Products} [products] a BLAS, where there is one
 */
export async function serve({ module, memory, control, cells: CONTROL, thread }, post, products) {
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
      blas_sgemm: products?.sgemm ?? noBlas,
      blas_gemm: products?.gemm ?? noBlas,
    },
  });
  const { work, finish } = /** @type {Record<string, (...args: number[]) => void>} */ (instance.exports);
  // V8 tells an isolate of growth only once the memory it received is registered: growth in the microseconds before that
  // (1 in 100 when the two race) leaves it with the old size, and memory.fill and atomics trap beyond it. Growing by
  // nothing reads the size anew.
  memory.grow(0);

  /** @param {string} name */
  const cell = (name) => /** @type {number} */ (CONTROL[name]);
  post({ ready: thread });

  for (let seen = 0; seen >= 0;) {
    try {
      /** @type {any} */ (work)(control, thread, seen);
      seen = -1;
    } catch (error) {
      // Before `finish`: the next program may start, and change the number, as soon as all threads have finished.
      seen = Atomics.load(cells, cell('sequence'));
      Atomics.store(cells, cell('aborted'), 1);
      Atomics.notify(cells, cell('generation'));
      post({ trap: `thread ${thread}: ${error instanceof Error ? error.stack : String(error)}` });
      /** @type {any} */ (finish)(control, Atomics.load(cells, cell('threads')));
    }
  }
}
