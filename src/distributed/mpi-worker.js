/**
 * The thread that speaks MPI. It makes plain blocking calls through koffi, one after another, in the order in which the
 * main thread posts them; the main thread and the compute workers go on meanwhile.
 *
 * A blocking collective spins while it waits for the slowest rank, which would take a core from the compute workers. So
 * ranks first meet in a tiny non-blocking one that is polled with short sleeps, and only then reduce, at full speed.
 * The meeting also compares what each rank is about to do: ranks that are out of step get an error, not a deadlock.
 *
 * Plain JavaScript, because worker threads load it as it is, both from `src` (tests) and from `dist`.
 */

import { parentPort, workerData } from 'node:worker_threads';
import koffi from 'koffi';

/** Numbers of one MPI call: larger buffers go in pieces, which stay in the cache. */
const PIECE_BYTES = 4 * 2 ** 20;
/** Polls without sleep, then sleeps that grow up to the longest. */
const TIGHT_MS = 0.05;
const SLEEP_MS = 0.05;
const LONGEST_SLEEP_MS = 0.5;
const THREAD_MULTIPLE = 3;

const OPS = ['sum', 'broadcast', 'barrier', 'finalize'];

/** @typedef {{ call: string, status: string }} Failure */

class MpiFailure extends Error {
  /** @param {string} call @param {string} status */
  constructor(call, status) {
    super(`${call}: ${status}`);
    this.call = call;
    this.status = status;
  }
}

const { path, family, timeoutMs } = /** @type {{ path: string, family: 'openmpi' | 'mpich', timeoutMs: number }} */ (workerData);
const open = family === 'openmpi';
const lib = koffi.load(path, { global: true });

/** C type of a handle, and the handles: addresses of Open MPI's objects, MPICH's numbers. */
const handle = open ? 'uintptr_t' : 'int';
/** @param {string} symbol @param {number} number @returns {bigint | number} */
const constant = (symbol, number) => (open ? koffi.address(lib.symbol(symbol)) : number);
const WORLD = constant('ompi_mpi_comm_world', 0x44000000);
const FLOAT = constant('ompi_mpi_float', 0x4c00040a);
const DOUBLE = constant('ompi_mpi_double', 0x4c00080b);
const BYTE = constant('ompi_mpi_byte', 0x4c00010d);
const MAX = constant('ompi_mpi_op_max', 0x58000001);
const SUM = constant('ompi_mpi_op_sum', 0x58000003);
const ERRORS_RETURN = constant('ompi_mpi_errors_return', 0x54000001);
const IN_PLACE = open ? 1 : -1;
const STATUS_IGNORE = open ? 0 : 1;

/** @typedef {(...values: (number | bigint | Int32Array | BigInt64Array | Uint8Array | null)[]) => number} Native */
/** @param {string} name @param {string} parameters @returns {Native} */
const bind = (name, parameters) => lib.func(`int ${name}(${parameters})`);

const mpi = {
  MPI_Init_thread: bind('MPI_Init_thread', 'void *, void *, int, void *'),
  MPI_Comm_rank: bind('MPI_Comm_rank', `${handle}, void *`),
  MPI_Comm_size: bind('MPI_Comm_size', `${handle}, void *`),
  MPI_Comm_set_errhandler: bind('MPI_Comm_set_errhandler', `${handle}, ${handle}`),
  MPI_Error_string: bind('MPI_Error_string', 'int, void *, void *'),
  MPI_Iallreduce: bind('MPI_Iallreduce', `intptr_t, uintptr_t, int, ${handle}, ${handle}, ${handle}, void *`),
  MPI_Test: bind('MPI_Test', 'void *, void *, uintptr_t'),
  MPI_Allreduce: bind('MPI_Allreduce', `intptr_t, uintptr_t, int, ${handle}, ${handle}, ${handle}`),
  MPI_Bcast: bind('MPI_Bcast', `uintptr_t, int, ${handle}, int, ${handle}`),
  MPI_Finalize: bind('MPI_Finalize', 'void'),
};

/** @param {keyof typeof mpi} name @param {Parameters<Native>} values */
function call(name, ...values) {
  const status = mpi[name](...values);
  if (status === 0) return;
  const text = new Uint8Array(1024);
  const length = new Int32Array(1);
  mpi.MPI_Error_string(status, text, length);
  throw new MpiFailure(name, new TextDecoder().decode(text.subarray(0, length[0])) || `status ${status}`);
}

const flag = new Int32Array(1);
/** Eight bytes hold a handle of either family. */
const request = new BigInt64Array(1);
const bell = new Int32Array(new SharedArrayBuffer(4));

/** What this rank is about to do as numbers, each with its negative: the largest over ranks of both give the range. */
const plan = new Float64Array(6);
const planAddress = koffi.address(plan);

/**
 * Waits until every rank is here, without taking a core, and checks that all are about to do the same.
 * @param {Request} work
 */
function meet(work) {
  const amount = work.op === 'sum' ? work.count * work.itemBytes : work.op === 'broadcast' ? work.byteLength : 0;
  const detail = work.op === 'sum' ? work.itemBytes : work.op === 'broadcast' ? work.root : 0;
  const mine = [OPS.indexOf(work.op), amount, detail];
  plan.set([...mine, ...mine.map((value) => -value)]);
  call('MPI_Iallreduce', IN_PLACE, planAddress, plan.length, DOUBLE, MAX, WORLD, request);
  const start = performance.now();
  for (let sleepMs = SLEEP_MS; ;) {
    call('MPI_Test', request, flag, STATUS_IGNORE);
    if (flag[0]) break;
    const waited = performance.now() - start;
    if (waited > timeoutMs) {
      throw new MpiFailure(work.op, `the other ranks did not arrive within ${Math.round(timeoutMs / 100) / 10} seconds`);
    }
    if (waited < TIGHT_MS) continue;
    Atomics.wait(bell, 0, 0, sleepMs);
    sleepMs = Math.min(sleepMs * 1.2, LONGEST_SLEEP_MS);
  }
  if (mine.some((value, i) => plan[i] !== value || plan[i + mine.length] !== -value)) {
    throw new MpiFailure(
      work.op,
      `ranks are out of step: this one calls ${work.op} (${amount} bytes), another one something else`,
    );
  }
}

/**
 * @typedef {{ id: number } & ({ op: 'sum', address: bigint, count: number, itemBytes: 4 | 8 }
 *   | { op: 'broadcast', address: bigint, byteLength: number, root: number } | { op: 'barrier' | 'finalize' })} Request
 */

/** @param {Request} work */
function carryOut(work) {
  meet(work);
  switch (work.op) {
    case 'sum': {
      const piece = PIECE_BYTES / work.itemBytes;
      for (let done = 0; done < work.count; done += piece) {
        const address = work.address + BigInt(done * work.itemBytes);
        const count = Math.min(piece, work.count - done);
        call('MPI_Allreduce', IN_PLACE, address, count, work.itemBytes === 8 ? DOUBLE : FLOAT, SUM, WORLD);
      }
      return;
    }
    case 'broadcast':
      for (let done = 0; done < work.byteLength; done += PIECE_BYTES) {
        call('MPI_Bcast', work.address + BigInt(done), Math.min(PIECE_BYTES, work.byteLength - done), BYTE, work.root, WORLD);
      }
      return;
    case 'finalize':
      call('MPI_Finalize');
  }
}

/** @param {unknown} error @returns {Failure} */
function failureOf(error) {
  if (error instanceof MpiFailure) return { call: error.call, status: error.status };
  return { call: 'MPI', status: error instanceof Error ? error.message : String(error) };
}

const port = /** @type {import('node:worker_threads').MessagePort} */ (parentPort);

/** After a failure ranks may be out of step: nothing more is tried. @type {Failure | undefined} */
let broken;

try {
  const provided = new Int32Array(1);
  const rank = new Int32Array(1);
  const size = new Int32Array(1);
  call('MPI_Init_thread', null, null, THREAD_MULTIPLE, provided);
  call('MPI_Comm_set_errhandler', WORLD, ERRORS_RETURN);
  call('MPI_Comm_rank', WORLD, rank);
  call('MPI_Comm_size', WORLD, size);
  port.postMessage({ rank: rank[0], size: size[0] });
} catch (error) {
  broken = failureOf(error);
  port.postMessage({ failure: broken });
}

port.on('message', (/** @type {Request} */ work) => {
  try {
    if (!broken) carryOut(work);
  } catch (error) {
    broken = failureOf(error);
  }
  port.postMessage({ id: work.id, failure: broken });
  if (work.op === 'finalize') port.close();
});
