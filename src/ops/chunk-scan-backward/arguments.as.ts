/** What the kernels of the scan's gradient share: their arguments and where things lie in the scratch memory. */

/** Steps of a chunk. */
export const CHUNK: i32 = 32;
/** Bytes of the steps of a chunk: the rows of everything that is laid out by step. */
export const STEP_ROW: usize = 128;

@unmanaged
export class ScanBackwardArguments {
  x: usize;
  xStride: i32;
  b: usize;
  bStride: i32;
  c: usize;
  cStride: i32;
  dt: usize;
  dtStride: i32;
  dy: usize;
  dyStride: i32;
  dx: usize;
  dxStride: i32;
  db: usize;
  dbStride: i32;
  dc: usize;
  dcStride: i32;
  ddt: usize;
  ddtStride: i32;
  dtBias: usize;
  aLog: usize;
  d: usize;
  /** 0: not wanted. */
  dDtBias: usize;
  dALog: usize;
  dD: usize;
  dHasHdim: i32;
  dtMin: f32;
  dtMax: f32;
  /** Batch rows of this group of calls. */
  batchStart: i32;
  batchCount: i32;
  length: i32;
  heads: i32;
  headdim: i32;
  dState: i32;
  /** Blocks of channels: whole heads, or each head in parts of `partWidth` channels. */
  blocks: i32;
  headsPerBlock: i32;
  parts: i32;
  partWidth: i32;
  /** [row][chunk][B' [N4], C' [N4], products [CHUNK], diagonal [1]] rows of CHUNK steps; see prepare.as.ts. */
  chunks: usize;
  /** [row][step][H4] */
  steps: usize;
  decays: usize;
  /** [row][step][part][H4]: x' G b, and D. */
  inputSums: usize;
  decaySums: usize;
  /** [row][E4]: sums of dy * x. */
  skipSums: usize;
  /** [thread][row][chunk][dB' [N4], dC' [N4], W' [CHUNK]] rows of CHUNK steps. */
  sums: usize;
  /** Memory of its own for each thread. */
  own: usize;
  ownBytes: u32;
}

@inline
export function round4(n: i32): i32 {
  return (n + 3) & ~3;
}

@inline
export function chunksOf(a: ScanBackwardArguments): i32 {
  return (a.length + CHUNK - 1) / CHUNK;
}

/** B' of a chunk: [n][step], zeros from the last step on. */
@inline
export function inputRows(a: ScanBackwardArguments, row: i32, chunk: i32): usize {
  return a.chunks + <usize>(row * chunksOf(a) + chunk) * <usize>(2 * round4(a.dState) + CHUNK + 1) * STEP_ROW;
}

/** C' of the chunk whose B' is at `inputs`. */
@inline
export function outputRows(a: ScanBackwardArguments, inputs: usize): usize {
  return inputs + <usize>round4(a.dState) * STEP_ROW;
}

/** [j][i]: b[j] c[i] for j < i, else 0; and behind it b[i] c[i]. */
@inline
export function productRows(a: ScanBackwardArguments, inputs: usize): usize {
  return inputs + 2 * <usize>round4(a.dState) * STEP_ROW;
}

@inline
export function diagonalOf(a: ScanBackwardArguments, inputs: usize): usize {
  return productRows(a, inputs) + <usize>CHUNK * STEP_ROW;
}

@inline
export function sumRowBytes(a: ScanBackwardArguments): usize {
  return <usize>chunksOf(a) * <usize>(2 * round4(a.dState) + CHUNK) * STEP_ROW;
}

/** A thread's sums of a batch row: dB', dC' and W' of each chunk. */
@inline
export function sumsOf(a: ScanBackwardArguments, thread: i32, row: i32): usize {
  return a.sums + <usize>(thread * a.batchCount + row) * sumRowBytes(a);
}

@inline
export function chunkSums(a: ScanBackwardArguments, rowSums: usize, chunk: i32): usize {
  return rowSums + <usize>chunk * <usize>(2 * round4(a.dState) + CHUNK) * STEP_ROW;
}
