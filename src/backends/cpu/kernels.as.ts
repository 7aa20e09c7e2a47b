/**
 * The CPU backend's one WASM module: the team that walks a program's table, and every op's kernels.
 *
 * A program is a table of (function, arguments) pairs in shared memory. Each worker runs `work`: it waits for a new
 * sequence number in the control block, walks the table with the others, meeting them at a barrier after every call,
 * and the last one to finish wakes the main thread. Waiters spin before they sleep: between calls the wait is shorter
 * than a system call. A lone thread without shared memory calls `walk` itself. The layout of the control block is in
 * `control.ts`.
 */

export * from '../../ops/kernels.as';

@external('env', 'now')
declare function now(): f64;

/**
 * Sleeps while the cell at `address` holds `value`, at most so many milliseconds (-1: for ever). It is the host's: the
 * baseline compiler of V8 11 (Node 20) loses locals across `memory.atomic.wait32` in a function with loops.
 */
@external('env', 'sleep')
declare function sleep(address: usize, value: i32, milliseconds: i32): void;

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

const MOST_SPINS_BETWEEN_CALLS: i32 = 100_000;
const LEAST_SPINS_BETWEEN_CALLS: i32 = 400;
const SPINS_BETWEEN_PROGRAMS: i32 = 20_000;

/** Waits until all threads have arrived, spinning `spins` turns before it sleeps; returns the turns that were left. */
function barrier(control: Control, threads: i32, spins: i32): i32 {
  const cell = changetype<usize>(control);
  const generation = atomic.load<i32>(cell, offsetof<Control>('generation'));
  if (atomic.add<i32>(cell, 1, offsetof<Control>('arrived')) == threads - 1) {
    atomic.store<i32>(cell, 0, offsetof<Control>('arrived'));
    atomic.store<i32>(cell, generation + 1, offsetof<Control>('generation'));
    atomic.notify(cell + offsetof<Control>('generation'), -1);
    return spins;
  }
  while (atomic.load<i32>(cell, offsetof<Control>('generation')) == generation) {
    if (atomic.load<i32>(cell, offsetof<Control>('aborted')) != 0) break;
    if (--spins < 0) sleep(cell + offsetof<Control>('generation'), generation, 100);
  }
  return spins;
}

/** Runs programs as they come; returns when the sequence number turns negative. `seen` is the last one handled. */
export function work(address: usize, thread: i32, seen: i32): void {
  while (true) {
    let spins = SPINS_BETWEEN_PROGRAMS;
    while (atomic.load<i32>(address, offsetof<Control>('sequence')) == seen) {
      if (--spins < 0) sleep(address + offsetof<Control>('sequence'), seen, -1);
    }
    seen = atomic.load<i32>(address, offsetof<Control>('sequence'));
    if (seen < 0) return;
    walk(address, thread);
  }
}

/** One thread's part of the program in the control block. A team of one needs nothing else and calls it itself. */
export function walk(address: usize, thread: i32): void {
  const control = changetype<Control>(address);
  const threads = control.threads;
  const count = control.count;
  const table = control.table;
  const times = control.times;
  if (times != 0 && thread == 0) store<f64>(times, now());
  // On a machine of our own the others come within microseconds; where the cores are shared, a thread that is late has
  // lost its core, and spinning only keeps others from theirs.
  let patience = MOST_SPINS_BETWEEN_CALLS;
  for (let i = 0; i < count; i++) {
    const entry = table + (<usize>i << 3);
    call_indirect(load<u32>(entry), <usize>load<u32>(entry, 4), thread, threads);
    const left = barrier(control, threads, patience);
    if (atomic.load<i32>(address, offsetof<Control>('aborted')) != 0) break;
    if (left < 0) patience = max(LEAST_SPINS_BETWEEN_CALLS, patience >> 2);
    else if (patience < MOST_SPINS_BETWEEN_CALLS) patience += patience >> 2;
    if (times != 0 && thread == 0) store<f64>(times + (<usize>(i + 1) << 3), now());
  }
  finish(address, threads);
}

/** One thread is through; the last one reports the program as done. */
export function finish(address: usize, threads: i32): void {
  if (atomic.add<i32>(address, 1, offsetof<Control>('finished')) == threads - 1) {
    atomic.add<i32>(address, 1, offsetof<Control>('done'));
    atomic.notify(address + offsetof<Control>('done'), -1);
  }
}
