/**
 * How the chunked CUDA kernel of the chunk scan divides heads among warps and blocks: the cheapest of all ways by an
 * estimate of the cycles of a multiprocessor.
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
  readonly blocks: number;
  readonly sharedBytes: number;
}

const CHUNK = 64;
/** The state of a warp takes 8 registers a thread for a tile of 16 x 16; 128 of 255 is what leaves room for the rest. */
const MOST_STATE_TILES = 16;
/** Likewise tiles of x and y. */
const MOST_COLUMN_TILES = 4;
const SHARED_BYTES_OF_BLOCK = 227 * 1024;
const SHARED_BYTES = 228 * 1024;
const REGISTERS = 65_536;
/** Cycles between products of 16 x 8 x 16 on a quarter of a multiprocessor. */
const PRODUCT_CYCLES = 6.4;
/** How much longer a warp takes alone than its instructions need, and what barriers and sums cost a block alone. */
const ALONE = 1.7;
const CHUNK_CYCLES = 800;
/** Bytes a cycle that a multiprocessor gets from the second-level cache. */
const CACHE_BYTES = 32;

/** Whether the state of one tile's columns fits into the registers of a warp. */
export const fitsChunks = (dState: number): boolean => Math.ceil(dState / 16) <= MOST_STATE_TILES;

function cyclesOf(split: ScanSplit, { length, batch, headdim, dState, multiprocessors }: ScanShape): number {
  const { warps, heads, tiles, blocks, sharedBytes } = split;
  const stateTiles = Math.ceil(dState / 16);
  const rowTiles = Math.ceil(tiles / 2);
  const scores = Math.ceil(10 / warps) * 2 * stateTiles;
  const products = heads * (10 * tiles + 4 * tiles * stateTiles + 8 * rowTiles * stateTiles) + scores;
  const staged = (CHUNK * (4 * stateTiles + 2 * split.pieces)) / (32 * warps);
  const others =
    heads * (420 + tiles * (110 + 4 * stateTiles) + 8 * rowTiles * stateTiles) + 8 * stateTiles + 2 * scores + 7 * staged;
  const busy = Math.max(PRODUCT_CYCLES * products, products + others);
  const registers = heads * rowTiles * stateTiles > MOST_STATE_TILES / 2 ? 256 : 208;
  const fitting = Math.min(
    Math.floor(SHARED_BYTES / (sharedBytes + 1024)),
    Math.floor(REGISTERS / (32 * warps * registers)),
    Math.floor(64 / warps),
  );
  const resident = Math.min(fitting, Math.ceil((batch * blocks) / multiprocessors));
  const bytes = resident * CHUNK * (4 * dState + 4 * warps * heads * Math.min(headdim, 8 * tiles));
  const chunk = Math.max(ALONE * busy, Math.ceil((resident * warps) / 4) * busy, bytes / CACHE_BYTES) + CHUNK_CYCLES / resident;
  return Math.ceil((batch * blocks) / (multiprocessors * resident)) * Math.ceil(length / CHUNK) * chunk;
}

export function splitOf(shape: ScanShape, warps: number, heads: number, tiles: number): ScanSplit | undefined {
  const { headdim, dState } = shape;
  const stateTiles = Math.ceil(dState / 16);
  const parts = Math.ceil(headdim / (8 * tiles));
  if (heads * Math.ceil(tiles / 2) * stateTiles > MOST_STATE_TILES || heads * tiles > MOST_COLUMN_TILES) return undefined;
  if (parts > 1 && heads > 1) return undefined;
  const columns = warps * (parts > 1 ? 8 * tiles : heads * headdim);
  // A block whose columns begin within a piece has that piece too.
  const pieces = Math.ceil((columns + (headdim % 8 === 0 || (parts === 1 && columns % 8 === 0) ? 0 : 7)) / 8);
  const xStride = pieces % 8 === 0 ? 8 * pieces : 8 * (pieces | 1);
  const stageBytes = 2 * CHUNK * (2 * (16 * stateTiles + 8) + xStride);
  const sharedBytes = 2 * stageBytes + 10 * 1024 + 4 * warps * heads * (2 * CHUNK + 8 * tiles);
  if (sharedBytes > SHARED_BYTES_OF_BLOCK) return undefined;
  const blocks = Math.ceil((parts > 1 ? shape.heads * parts : Math.ceil(shape.heads / heads)) / warps);
  return { warps, heads, tiles, parts, pieces, blocks, sharedBytes };
}

export function scanSplit(shape: ScanShape): ScanSplit {
  let best: ScanSplit | undefined;
  let bestCycles = Infinity;
  const headTiles = Math.ceil(shape.headdim / 8);
  for (const tiles of [4, 3, 2, 1].filter((count) => count <= headTiles)) {
    for (const heads of [1, 2, 4].filter((count) => count < 2 * shape.heads)) {
      for (const warps of [1, 2, 4, 8]) {
        const split = splitOf(shape, warps, heads, tiles);
        if (!split) continue;
        const cycles = cyclesOf(split, shape);
        if (cycles < bestCycles) [best, bestCycles] = [split, cycles];
      }
    }
  }
  return best!;
}
