/**
 * Recognises a process that a launcher (`mpirun`, `mpiexec`, `srun`, `torchrun`) started as one of several, by the
 * variables it leaves in the environment.
 */

import { MatMambaError } from '../errors.ts';

/** The environment, as `process.env`; passed in, because a library reads no variables on its own. */
export type Environment = Record<string, string | undefined>;

export interface Launch {
  /** Who started this process. */
  readonly launcher: string;
  /** Library family that matches the launcher; undefined when it serves several. */
  readonly family: MpiFamily | undefined;
  /** Ranks in the job; undefined when the launcher does not say. */
  readonly size: number | undefined;
  readonly rank: number | undefined;
  /** Where rank 0 waits for the others, when they meet without MPI. */
  readonly rendezvous?: Rendezvous;
}

/** An address of rank 0's machine. */
export interface Rendezvous {
  readonly address: string;
  readonly port: number;
}

/** The two binary interfaces in use: Open MPI's, and MPICH's, which Intel MPI, MVAPICH and Cray MPICH share. */
export type MpiFamily = 'openmpi' | 'mpich';

const LAUNCHERS: readonly { size: string; rank: string; launcher: string; family: MpiFamily | undefined }[] = [
  { size: 'OMPI_COMM_WORLD_SIZE', rank: 'OMPI_COMM_WORLD_RANK', launcher: 'mpirun of Open MPI', family: 'openmpi' },
  { size: 'MV2_COMM_WORLD_SIZE', rank: 'MV2_COMM_WORLD_RANK', launcher: 'mpirun of MVAPICH', family: 'mpich' },
  { size: 'PMI_SIZE', rank: 'PMI_RANK', launcher: 'mpiexec of MPICH', family: 'mpich' },
  { size: 'SLURM_STEP_NUM_TASKS', rank: 'SLURM_PROCID', launcher: 'srun', family: undefined },
  { size: '', rank: 'PMIX_RANK', launcher: 'a PMIx launcher', family: undefined },
];

function count(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : undefined;
}

/** The variables by which torchrun tells a process its place; they can be set by hand too. */
const PLACE_VARIABLES = ['RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'] as const;
const LAST_PORT = 65_535;

/** A process whose place torchrun's variables give, all four of them; also a job of one. @throws OPTION for odd values */
function detectTorchrun(env: Environment): Launch | undefined {
  const given = PLACE_VARIABLES.map((name) => env[name]);
  if (given.some((value) => value === undefined || value === '')) return undefined;
  const [rank, size, port] = [given[0], given[1], given[3]].map(count);
  const odd =
    size === undefined || size < 1
      ? 'WORLD_SIZE'
      : rank === undefined || rank >= size
        ? 'RANK'
        : port === undefined || port < 1 || port >= LAST_PORT
          ? 'MASTER_PORT'
          : undefined;
  if (odd) {
    throw new MatMambaError('OPTION', `the environment has ${odd}=${env[odd]}, which is no place among processes`, {
      hint: `torchrun sets ${PLACE_VARIABLES.join(', ')}; without it unset them`,
    });
  }
  // Where torchrun itself listens at the port, the next one is free for the ranks.
  const isTaken = env['TORCHELASTIC_USE_AGENT_STORE']?.toLowerCase() === 'true';
  const rendezvous = { address: env['MASTER_ADDR']!, port: port! + (isTaken ? 1 : 0) };
  return { launcher: 'torchrun', family: undefined, size, rank, rendezvous };
}

/** This process's number among those on its machine, from 0, as launchers tell it: which GPU is its own. */
export function localRank(env: Environment): number | undefined {
  const names = ['LOCAL_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'MV2_COMM_WORLD_LOCAL_RANK', 'MPI_LOCALRANKID', 'SLURM_LOCALID'];
  return names.map((name) => count(env[name])).find((rank) => rank !== undefined);
}

/** How this process was started; undefined when no launcher did, or MPI's started only this one. @throws OPTION */
export function detectLaunch(env: Environment): Launch | undefined {
  const torchrun = detectTorchrun(env);
  if (torchrun) return torchrun;
  for (const { size: sizeKey, rank: rankKey, launcher, family } of LAUNCHERS) {
    const size = count(env[sizeKey]);
    const rank = count(env[rankKey]);
    if (size === 1) return undefined;
    if (size === undefined && (sizeKey !== '' || rank === undefined)) continue;
    // Slurm sets PMI variables of its own for either family.
    const slurm = env['SLURM_STEP_NUM_TASKS'] !== undefined && env['OMPI_COMM_WORLD_SIZE'] === undefined;
    return slurm ? { launcher: 'srun', family: undefined, size, rank } : { launcher, family, size, rank };
  }
  return undefined;
}
