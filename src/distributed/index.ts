/** Training on several processes: ranks that MPI starts, sums over them, and what each one works on. */
export { BUCKET_BYTES, Buckets, type GradientPart } from './buckets.ts';
export { type Communicator, type RankGroup, SingleProcess, type Summable, rankName } from './communicator.ts';
export { type ConnectOptions, connect } from './connect.ts';
export { type Environment, type Launch, type MpiFamily, type Rendezvous, detectLaunch, localRank } from './launch.ts';
export { type Place, type Share, batchRows, fileIndices, shareOf } from './shares.ts';
