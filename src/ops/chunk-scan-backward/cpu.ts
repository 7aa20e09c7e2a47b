/** CPU calls of the scan's gradient: what all heads share, the blocks of channels, and the sums over both. */

import { type CpuCall, type CpuKernel, type CpuNode, call, f32, rowOperands, vectorOperand } from '../cpu-kernel.ts';

type Node = Omit<CpuNode, 'scratch'>;

/** As in `arguments.as.ts` and `block.as.ts`. */
const CHUNK = 32;
const BLOCK_CHANNELS = 64;
const ROW_BYTES = 4 * CHUNK;
const CHANNEL_ROW_BYTES = 272;
const OWN_BYTES = 256 + 19 * 8704;
/** Batches are cut so that what one group of calls shares stays below this, one row at least. */
const SHARED_BYTES = 16 * 2 ** 20;

const round4 = (n: number): number => 4 * Math.ceil(n / 4);
const align = (bytes: number): number => 256 * Math.ceil(bytes / 256);

/** How channels are cut into blocks: whole heads, or parts of one head where it is wider than a block. */
function blocksOf(heads: number, headdim: number): { blocks: number; headsPerBlock: number; parts: number; partWidth: number } {
  if (headdim > BLOCK_CHANNELS) {
    const parts = Math.ceil(headdim / BLOCK_CHANNELS);
    return { blocks: heads * parts, headsPerBlock: 1, parts, partWidth: Math.ceil(headdim / parts) };
  }
  const blocks = Math.ceil(heads / Math.floor(BLOCK_CHANNELS / headdim));
  const headsPerBlock = Math.ceil(heads / blocks);
  return { blocks: Math.ceil(heads / headsPerBlock), headsPerBlock, parts: 1, partWidth: headdim };
}

/** Where things lie in the scratch memory, in bytes, and the batch rows of one group of calls. */
function layoutOf(
  node: Node,
): Record<
  'chunks' | 'steps' | 'decays' | 'inputSums' | 'decaySums' | 'skipSums' | 'sums' | 'own' | 'ownBytes' | 'bytes' | 'rows',
  number
> {
  const length = node.number('length');
  const dState = round4(node.buffer('b').width);
  const heads = node.buffer('dt').width;
  const { parts, headsPerBlock, partWidth } = blocksOf(heads, node.number('headdim'));
  const chunkCount = Math.ceil(length / CHUNK);
  const chunkBytes = chunkCount * (2 * dState + CHUNK + 1) * ROW_BYTES;
  const headBytes = 4 * length * round4(heads);
  const skipBytes = 4 * round4(node.buffer('x').width);
  const sumBytes = chunkCount * (2 * dState + CHUNK) * ROW_BYTES;
  const rowBytes = chunkBytes + 2 * (1 + parts) * headBytes + skipBytes + node.threads * sumBytes;
  const rows = Math.max(1, Math.min(node.number('batch'), Math.floor(SHARED_BYTES / rowBytes)));
  let bytes = 0;
  const place = (size: number): number => {
    const at = bytes;
    bytes += align(size);
    return at;
  };
  const chunks = place(rows * chunkBytes);
  const steps = place(rows * headBytes);
  const decays = place(rows * headBytes);
  const inputSums = place(rows * parts * headBytes);
  const decaySums = place(rows * parts * headBytes);
  const skipSums = place(rows * skipBytes);
  const sums = place(node.threads * rows * sumBytes);
  const ownBytes = align(OWN_BYTES + dState * (2 * CHANNEL_ROW_BYTES + chunkCount * 4 * round4(headsPerBlock * partWidth)));
  const own = place(node.threads * ownBytes);
  return { chunks, steps, decays, inputSums, decaySums, skipSums, sums, own, ownBytes, bytes, rows };
}

export const chunkScanBackwardCpu: CpuKernel = {
  scratchBytes: (node) => layoutOf(node).bytes,
  calls(node) {
    const { ownBytes, bytes: _, rows, ...places } = layoutOf(node);
    const heads = node.buffer('dt').width;
    const headdim = node.number('headdim');
    const batch = node.number('batch');
    const calls: CpuCall[] = [];
    for (let batchStart = 0; batchStart < batch; batchStart += rows) {
      const args = {
        ...rowOperands(node, 'x', 'b', 'c', 'dt', 'dy', 'dx', 'db', 'dc', 'ddt'),
        dtBias: node.weight('dtBias').pointer,
        aLog: node.weight('aLog').pointer,
        d: node.weight('d').pointer,
        dDtBias: vectorOperand(node, 'dDtBias'),
        dALog: vectorOperand(node, 'dALog'),
        dD: vectorOperand(node, 'dD'),
        dHasHdim: Number(node.flag('dHasHdim')),
        dtMin: f32(node.number('dtMin')),
        dtMax: f32(node.number('dtMax')),
        batchStart,
        batchCount: Math.min(rows, batch - batchStart),
        length: node.number('length'),
        heads,
        headdim,
        dState: node.buffer('b').width,
        ...blocksOf(heads, headdim),
        ...Object.fromEntries(Object.entries(places).map(([name, offset]) => [name, node.scratch + offset])),
        ownBytes,
      };
      for (const stage of ['_prepare', '', '_finish']) calls.push(call(`chunk_scan_backward${stage}`, args));
    }
    return calls;
  },
};
