/**
 * How the chunked CUDA kernel of the chunk scan divides heads among warps and blocks, and sequences into segments: the
 * fastest of all ways by an estimate of its time.
 */

export interface ScanShape {
  readonly batch: number;
  readonly length: number;
  readonly heads: number;
  readonly headdim: number;
  readonly dState: number;
  readonly multiprocessors: number;
}

/** As the defines of `cuda-chunks.ts`. */
export interface ScanSplit {
  readonly warps: number;
  /** Heads of a warp; 1 when warps share a head. */
  readonly heads: number;
  /** 8-column tiles of each of its heads that a warp has. */
  readonly tiles: number;
  /** Warps that share a head. */
  readonly parts: number;
  /** 8-column pieces of x of a block. */
  readonly pieces: number;
  /** Blocks over all heads, and blocks that share the batch. */
  readonly blocks: number;
  readonly batchBlocks: number;
  /** Segments of a sequence that are computed at a time, and chunks of one. */
  readonly segments: number;
  readonly segment: number;
  /** Chunks whose b and c have room at a time: 3, or 2 where that is too much. */
  readonly stages: number;
  /** Of b and c of a chunk. */
  readonly stageBytes: number;
  readonly sharedBytes: number;
  /** Of a warp's state as a segment keeps it. */
  readonly stateBytes: number;
}

const CHUNK = 64;
/** The state of a warp takes 4 registers a thread for a tile of 16 x 8; 128 of 255 is what leaves room for the rest. */
const MOST_STATE_TILES = 32;
/** Likewise tiles of x and y. */
const MOST_COLUMN_TILES = 4;
/** Floats of a head's tables, as in the source. */
const TABLE = 2 * CHUNK + 160;
const SHARED_BYTES_OF_BLOCK = 227 * 1024;
const SHARED_BYTES = 228 * 1024;
const REGISTERS = 65_536;

/*
 * Microseconds on an H200, N = 128, where each quarter of a multiprocessor has two warps: of a chunk by itself, of a warp's
 * head and of each of its tiles; of the states alone in proportion; of a tile of the state that another segment kept; of a
 * launch and of a block's start.
 */
const CHUNK_TIME = 0.8;
const HEAD_TIME = 1.9;
const TILE_TIME = 1.15;
/** Of a chunk, what does not grow with the warps of a quarter. */
const LATENCY_SHARE = 0.72;
/** Of more than one head a warp, for want of registers. */
const SPILL = 1.12;
const STATES_SHARE = 0.35;
const KEPT_TIME = 0.08;
const LAUNCH_TIME = 1.5;
const START_TIME = 2.5;
/** How much longer it takes to wait for each chunk. */
const TWO_STAGES = 1.15;
/** Segments take scratch memory and pass their states on one after the other. */
const MOST_SEGMENTS = 16;
/** What a chunk costs however few steps it has. */
const LEAST_CHUNK = 0.35;

/** Whether the state of one tile's columns fits into the registers of a warp. */
export const fitsChunks = (dState: number): boolean => Math.ceil(dState / 16) <= MOST_STATE_TILES / 2;

function timeOf(split: ScanSplit, { length, batch, multiprocessors, dState }: ScanShape): number {
  const { warps, heads, tiles, blocks, batchBlocks, segments, segment, stages } = split;
  const resident = residentOf(split);
  const waves = Math.ceil((blocks * batchBlocks * segments) / (multiprocessors * resident));
  const together = Math.min(resident, Math.ceil((blocks * batchBlocks * segments) / multiprocessors));
  const alone = CHUNK_TIME + heads * (HEAD_TIME + TILE_TIME * tiles) * (heads > 1 ? SPILL : 1);
  const crowd = LATENCY_SHARE + ((1 - LATENCY_SHARE) * Math.max(4, together * warps)) / 8;
  const chunk = ((alone * crowd * (128 + dState)) / 256) * (stages === 2 ? TWO_STAGES : 1);
  const rest = (length % CHUNK) / CHUNK;
  const whole = Math.floor(length / CHUNK) + (rest > 0 ? LEAST_CHUNK + (1 - LEAST_CHUNK) * rest : 0);
  const chunks = segments > 1 ? segment : whole;
  const kept = ((segments - 1) * KEPT_TIME * together * warps * heads * tiles * dState) / 128;
  const states = segments > 1 ? LAUNCH_TIME + waves * (START_TIME + chunks * STATES_SHARE * chunk) : 0;
  return states + waves * (START_TIME + Math.ceil(batch / batchBlocks) * (chunks * chunk + kept));
}

/** Blocks that a multiprocessor has at a time. */
const residentOf = ({ warps, sharedBytes }: ScanSplit): number =>
  Math.max(1, Math.min(Math.floor(SHARED_BYTES / (sharedBytes + 1024)), Math.floor(REGISTERS / (32 * warps * 256))));

/** The split with one segment and a block for each sequence; undefined where it does not fit. */
function splitOf(shape: ScanShape, warps: number, heads: number, tiles: number): ScanSplit | undefined {
  const { headdim, dState, batch } = shape;
  const stateTiles = Math.ceil(dState / 16);
  const parts = Math.ceil(headdim / (8 * tiles));
  if (heads * tiles * stateTiles > MOST_STATE_TILES || heads * tiles > MOST_COLUMN_TILES) return undefined;
  if (parts > 1 && heads > 1) return undefined;
  const columns = warps * (parts > 1 ? 8 * tiles : heads * headdim);
  // A block whose columns begin within a piece has that piece too.
  const pieces = Math.ceil((columns + (headdim % 8 === 0 || (parts === 1 && columns % 8 === 0) ? 0 : 7)) / 8);
  const stageBytes = 4 * CHUNK * (16 * stateTiles + 8);
  const ratePieces = Math.ceil(((Math.ceil(warps / parts) + Number(warps % parts > 0)) * heads + 8) / 4);
  const others =
    4 * CHUNK * 8 * (pieces | 1) + 2 * CHUNK * 16 * ratePieces + 2 * 10 * 1024 + 4 * warps * heads * (2 * TABLE + 8 * tiles);
  const stages = 3 * stageBytes + others > SHARED_BYTES_OF_BLOCK ? 2 : 3;
  const sharedBytes = stages * stageBytes + others;
  if (sharedBytes > SHARED_BYTES_OF_BLOCK) return undefined;
  const blocks = Math.ceil((parts > 1 ? shape.heads * parts : Math.ceil(shape.heads / heads)) / warps);
  return {
    warps,
    heads,
    tiles,
    parts,
    pieces,
    blocks,
    batchBlocks: batch,
    segments: 1,
    segment: Math.ceil(shape.length / CHUNK),
    stages,
    stageBytes,
    sharedBytes,
    stateBytes: 512 * heads * tiles * stateTiles,
  };
}

export function scanSplit(shape: ScanShape): ScanSplit {
  let best: ScanSplit | undefined;
  let least = Infinity;
  const headTiles = Math.ceil(shape.headdim / 8);
  const chunks = Math.ceil(shape.length / CHUNK);
  for (const tiles of [4, 3, 2, 1].filter((count) => count <= headTiles)) {
    for (const heads of [1, 2, 4].filter((count) => count < 2 * shape.heads)) {
      for (const warps of [1, 2, 4, 8]) {
        const made = splitOf(shape, warps, heads, tiles);
        if (!made) continue;
        for (let count = 1; count <= Math.min(chunks, MOST_SEGMENTS); count++) {
          const segment = Math.ceil(chunks / count);
          const segments = Math.ceil(chunks / segment);
          if (segments !== count) continue;
          const room = Math.floor((shape.multiprocessors * residentOf(made)) / (made.blocks * segments));
          for (const batchBlocks of [shape.batch, Math.min(shape.batch, Math.max(1, room))]) {
            const split = { ...made, segments, segment, batchBlocks };
            const time = timeOf(split, shape);
            if (time < least) [best, least] = [split, time];
          }
        }
      }
    }
  }
  return best!;
}
/** Shared memory of the kernel that finds the segments' states alone: two chunks without c. */
export const statesSharedBytes = ({ stages, sharedBytes, stageBytes }: ScanSplit): number =>
  sharedBytes - (stages - 1) * stageBytes;

/** Scratch memory of a sequence for the states at its segments' ends, and for their log decays. */
export const keptBytes = ({ segments, blocks, warps, stateBytes }: ScanSplit): number => segments * blocks * warps * stateBytes;
export const keptLogBytes = ({ segments, blocks, warps, heads }: ScanSplit): number => segments * blocks * warps * heads * 4;
