/** Sums of buffers over ranks, by NCCL: the nodes of a bucket are one launch. */

import type { CudaKernel, CudaLaunch, CudaNode, RankPart } from '../cuda-kernel.ts';
import { bufferFloats } from '../cuda-pieces.ts';

function group(nodes: readonly CudaNode[]): CudaLaunch[] {
  const launches: CudaLaunch[] = [];
  for (let start = 0, end = 0; start < nodes.length; start = end) {
    const bucket = nodes[start]!.number('bucket');
    for (end = start + 1; end < nodes.length && nodes[end]!.number('bucket') === bucket;) end++;
    const parts = nodes.slice(start, end).map((node): RankPart => {
      const weight = node.weight('x');
      return { from: weight.pointer, to: weight.pointer, count: bufferFloats(weight), root: node.number('root') };
    });
    const [whole, owned] = [parts.filter(({ root }) => root < 0), parts.filter(({ root }) => root >= 0)];
    if (whole.length > 0) launches.push({ kind: 'all-reduce', parts: whole });
    if (owned.length > 0) launches.push({ kind: 'reduce', parts: owned });
  }
  return launches;
}

export const sumOverRanksCuda: CudaKernel = { launches: (node) => group([node]), group };
