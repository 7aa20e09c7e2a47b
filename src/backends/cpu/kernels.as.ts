/**
 * The CPU backend's one WASM module: the team that walks a program's table, and every op's kernels.
 *
 * A program is a table of (function, arguments) pairs in shared memory. Each worker runs `work`: it waits for a new
 * sequence number in the control block, walks the table with the others, meeting them at a barrier after every call,
 * and the last one to finish wakes the main thread. Waiters spin before they sleep: between calls the wait is shorter
 * than a system call. The layout of the control block is in `control.ts`.
 */

export * from '../../ops/kernels.as';

@external('env', 'now')
declare function now(): f64;

@unmanaged
class Control {
  sequence: i32;
  table: usize;
  count: i32;
  finished: i32;
  arrived: i32;
  generation: i32;
  aborted: i32;
  threads: i32;
  times: usize;
  done: i32;
}

const SPINS_BETWEEN_CALLS: i32 = 100_000;
const SPINS_BETWEEN_PROGRAMS: i32 = 20_000;

/** Waits until all threads have arrived; false when the run was aborted. */
function barrier(control: Control, threads: i32): bool {
  const cell = changetype<usize>(control);
  const generation = atomic.load<i32>(cell, offsetof<Control>('generation'));
  if (atomic.add<i32>(cell, 1, offsetof<Control>('arrived')) == threads - 1) {
    atomic.store<i32>(cell, 0, offsetof<Control>('arrived'));
    atomic.store<i32>(cell, generation + 1, offsetof<Control>('generation'));
    atomic.notify(cell + offsetof<Control>('generation'), -1);
  } else {
    let spins = SPINS_BETWEEN_CALLS;
    while (atomic.load<i32>(cell, offsetof<Control>('generation')) == generation) {
      if (atomic.load<i32>(cell, offsetof<Control>('aborted')) != 0) return false;
      if (--spins < 0) atomic.wait<i32>(cell + offsetof<Control>('generation'), generation, 100_000_000);
    }
  }
  return atomic.load<i32>(cell, offsetof<Control>('aborted')) == 0;
}

/** Runs programs as they come; returns when the sequence number turns negative. `seen` is the last one handled. */
export function work(address: usize, thread: i32, seen: i32): void {
  const control = changetype<Control>(address);
  while (true) {
    let spins = SPINS_BETWEEN_PROGRAMS;
    while (atomic.load<i32>(address, offsetof<Control>('sequence')) == seen) {
      if (--spins < 0) atomic.wait<i32>(address + offsetof<Control>('sequence'), seen, -1);
    }
    seen = atomic.load<i32>(address, offsetof<Control>('sequence'));
    if (seen < 0) return;
    const threads = control.threads;
    const count = control.count;
    const table = control.table;
    const times = control.times;
    if (times != 0 && thread == 0) store<f64>(times, now());
    for (let i = 0; i < count; i++) {
      const entry = table + (<usize>i << 3);
      call_indirect(load<u32>(entry), <usize>load<u32>(entry, 4), thread, threads);
      if (!barrier(control, threads)) break;
      if (times != 0 && thread == 0) store<f64>(times + (<usize>(i + 1) << 3), now());
    }
    finish(address, threads);
  }
}

/** One thread is through; the last one reports the program as done. */
export function finish(address: usize, threads: i32): void {
  if (atomic.add<i32>(address, 1, offsetof<Control>('finished')) == threads - 1) {
    atomic.add<i32>(address, 1, offsetof<Control>('done'));
    atomic.notify(address + offsetof<Control>('done'), -1);
  }
}
