/** Parameters from the ranks that own them, by NCCL: consecutive nodes are one launch. */

import type { CudaKernel, CudaLaunch, CudaNode, RankPart } from '../cuda-kernel.ts';
import { bufferFloats } from '../cuda-pieces.ts';

function group(nodes: readonly CudaNode[]): CudaLaunch[] {
  const parts = nodes.map((node): RankPart => {
    const weight = node.weight('x');
    return { from: weight.pointer, to: weight.pointer, count: bufferFloats(weight), root: node.number('root') };
  });
  return [{ kind: 'broadcast', parts }];
}

export const copyFromRankCuda: CudaKernel = { launches: (node) => group([node]), group };
