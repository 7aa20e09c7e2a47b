/** Joins the group of processes this one was started in. */

import { MatMambaError, refuseUnknownKeys } from '../errors.ts';
import { type Communicator, SingleProcess } from './communicator.ts';
import { type Environment, detectLaunch } from './launch.ts';
import { MpiCommunicator, reportToStandardError } from './mpi-communicator.ts';
import { findMpi } from './mpi-library.ts';
import { TcpCommunicator } from './tcp-communicator.ts';

export interface ConnectOptions {
  /** The environment (`process.env`), where launchers leave their variables. */
  readonly env: Environment;
  /** `auto`, or the path of the libmpi to use. */
  readonly library?: string;
  /** Longest wait for the other ranks in one call, milliseconds; half an hour by default. */
  readonly timeoutMs?: number;
  /** Where the last words of a dying rank go; standard error by default. */
  readonly report?: (line: string) => void;
}

/** Settings of the libraries below, for those that the user has not set. Read by native code when it loads. */
const LIBRARY_SETTINGS: Record<string, string> = {
  // Ranks that wait for a message leave the core to the compute workers.
  OMPI_MCA_mpi_yield_when_idle: '1',
  // UCX would take over SIGSEGV, with which the engine notices accesses past the end of WASM memory.
  UCX_ERROR_SIGNALS: '',
};

/**
 * The group of processes that `mpirun`, `mpiexec`, `srun` or `torchrun` started this one in; a group of one when none
 * did. MPI is loaded only for the first three, and then a few settings of its libraries are put into `env`, where absent;
 * with torchrun's variables ranks meet at MASTER_ADDR:MASTER_PORT.
 * @throws OPTION; DEVICE when MPI is missing, does not start, or does not belong to the launcher
 */
export async function connect(options: ConnectOptions): Promise<Communicator> {
  refuseUnknownKeys(options, ['env', 'library', 'timeoutMs', 'report'], 'connect');
  const { env, library: setting = 'auto', timeoutMs = 30 * 60_000, report = reportToStandardError } = options;
  if (!(timeoutMs > 0)) throw new MatMambaError('OPTION', `timeoutMs must be above 0, got ${timeoutMs}`);
  const launch = detectLaunch(env);
  if (!launch) return new SingleProcess();
  if (launch.rendezvous) return TcpCommunicator.join(launch.rank!, launch.size!, launch.rendezvous, { timeoutMs, report });
  for (const [name, value] of Object.entries(LIBRARY_SETTINGS)) env[name] ??= value;
  const library = await findMpi(setting, launch.family);
  const group = await MpiCommunicator.join(library, { timeoutMs, report });
  if (launch.size !== undefined && group.size !== launch.size) {
    await group.finalize();
    throw new MatMambaError(
      'DEVICE',
      `${launch.launcher} started ${launch.size} processes, but ${library.path} sees ${group.size}`,
      {
        hint:
          launch.launcher === 'srun'
            ? 'use srun --mpi=pmix (or --mpi=pmi2 with MPICH), or mpirun'
            : `launcher and library must belong together: name the library of ${launch.launcher}, or start with the mpirun of ${library.path}`,
      },
    );
  }
  return group;
}
