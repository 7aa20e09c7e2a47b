/**
 * Finds libmpi and tells the two binary interfaces apart: Open MPI's handles are addresses of its global objects,
 * MPICH's (and Intel MPI's, MVAPICH's, Cray's) are numbers.
 */

import { MatMambaError, messageOf } from '../errors.ts';
import type { MpiFamily } from './launch.ts';

export interface MpiLibrary {
  readonly path: string;
  readonly family: MpiFamily;
  /** `MPI_Abort` on all ranks; does not return. Callable from the main thread at any moment. */
  readonly abort: (code: number) => void;
}

const FAMILY_NAMES: Record<MpiFamily, string> = { openmpi: 'Open MPI', mpich: 'MPICH' };

const CANDIDATES: Readonly<Record<string, readonly { path: string; family: MpiFamily }[]>> = {
  linux: [
    { path: 'libmpi.so.40', family: 'openmpi' },
    { path: 'libmpi.so.80', family: 'openmpi' },
    { path: 'libmpich.so.12', family: 'mpich' },
    { path: 'libmpi.so.12', family: 'mpich' },
    { path: 'libmpi.so', family: 'openmpi' },
  ],
  darwin: [
    { path: '/opt/homebrew/lib/libmpi.dylib', family: 'openmpi' },
    { path: '/usr/local/lib/libmpi.dylib', family: 'openmpi' },
    { path: 'libmpi.dylib', family: 'openmpi' },
  ],
  win32: [{ path: 'msmpi.dll', family: 'mpich' }],
};

/** What to install, for error messages. */
export const INSTALL_HINT =
  'install Open MPI (Debian, Ubuntu: apt-get install openmpi-bin; Fedora: dnf install openmpi; macOS: brew install open-mpi) ' +
  'or name the library of the mpirun that you use';

/**
 * Loads the MPI library: `setting` is `auto` or a path. With `family` known from the launcher, only such libraries fit.
 * @throws DEVICE when none loads, saying what to install
 */
export async function findMpi(setting: string, family: MpiFamily | undefined): Promise<MpiLibrary> {
  const known = CANDIDATES[process.platform] ?? [];
  const candidates =
    setting === 'auto'
      ? known.filter((c) => family === undefined || c.family === family || c.path === 'libmpi.so')
      : [{ path: setting }];
  const failures: string[] = [];
  for (const { path } of candidates) {
    try {
      const library = await load(path);
      if (setting !== 'auto' || family === undefined || library.family === family) return library;
      failures.push(`${path}: is ${FAMILY_NAMES[library.family]}, but the launcher is of ${FAMILY_NAMES[family]}`);
    } catch (error) {
      failures.push(`${path}: ${messageOf(error).split('\n')[0]}`);
    }
  }
  throw new MatMambaError(
    'DEVICE',
    `started as one of several processes, but no MPI library can be used: ${failures.join('; ')}`,
    {
      hint: INSTALL_HINT,
    },
  );
}

async function load(path: string): Promise<MpiLibrary> {
  const koffi = (await import('koffi')).default;
  // Global: Open MPI's own plug-ins look up its symbols.
  const lib = koffi.load(path, { global: true });
  let world: bigint | undefined;
  try {
    world = koffi.address(lib.symbol('ompi_mpi_comm_world'));
  } catch {
    // Not Open MPI: handles are numbers.
  }
  if (world !== undefined) {
    const abort = lib.func('int MPI_Abort(uintptr_t, int)') as unknown as (comm: bigint, code: number) => number;
    return { path, family: 'openmpi', abort: (code) => void abort(world, code) };
  }
  const abort = lib.func('int MPI_Abort(int, int)') as unknown as (comm: number, code: number) => number;
  return { path, family: 'mpich', abort: (code) => void abort(0x44000000, code) };
}
