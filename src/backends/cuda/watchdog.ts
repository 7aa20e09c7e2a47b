/**
 * A limit on native calls that block this thread: some of NCCL's wait for ranks that may be gone, and nothing in this
 * process could end them. A second thread watches, and ends the process in words when the time is up.
 */

import { Worker } from 'node:worker_threads';

const WATCHER = `
const { workerData: { cells, ms, words } } = require('node:worker_threads');
if (Atomics.wait(new Int32Array(cells), 0, 0, ms) === 'timed-out') {
  require('node:fs').writeSync(2, words);
  process.kill(process.pid, 'SIGKILL');
}
`;

/** Runs `body`; a process that is still in it after so many milliseconds is killed with these last words. */
export function withinTime<R>(ms: number, words: string, body: () => R): R {
  const cells = new Int32Array(new SharedArrayBuffer(4));
  const watcher = new Worker(WATCHER, {
    eval: true,
    execArgv: [],
    workerData: { cells: cells.buffer, ms, words: `matmamba: ${words}\n` },
  });
  watcher.unref();
  watcher.on('error', () => {});
  try {
    return body();
  } finally {
    Atomics.store(cells, 0, 1);
    Atomics.notify(cells, 0);
  }
}
