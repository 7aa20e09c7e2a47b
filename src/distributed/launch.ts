/**
 * Recognises a process that a launcher (`mpirun`, `mpiexec`, `srun`) started as one of several, by the variables it
 * leaves in the environment.
 */

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

/** How this process was started; undefined when no launcher did, or it started only this one. */
export function detectLaunch(env: Environment): Launch | undefined {
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
