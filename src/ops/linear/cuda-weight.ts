/** A weight as a product reads it: runs of its stored rows, or for int8 a copy in the activations' element. */

import { type Segment, segmentColumns } from '../../graph/graph.ts';
import type { CudaLaunch, CudaNode, WeightRun } from '../cuda-kernel.ts';
import { dequantiseBytes, dequantiseLaunch } from './cuda-few-rows.ts';

/** Scratch memory that `weightOperand` needs. */
export function weightBytes(node: CudaNode, name: string, segments: readonly Segment[]): number {
  const weight = node.weight(name);
  return weight.element === 'i8' ? Math.ceil(dequantiseBytes(weight, segments, node.activation) / 256) * 256 : 0;
}

export function weightOperand(
  node: CudaNode,
  name: string,
  segments: readonly Segment[],
  scratch: bigint,
): { readonly runs: readonly WeightRun[]; readonly launches: readonly CudaLaunch[] } {
  const weight = node.weight(name);
  if (weight.element !== 'i8') return { runs: node.runs(name, segments), launches: [] };
  const count = segments.length === 1 ? segments[0]!.count : segmentColumns(segments).total;
  return {
    runs: [{ pointer: scratch, element: node.activation, stride: weight.stride, column: 0, count }],
    launches: [dequantiseLaunch(weight, segments, scratch, node.activation)],
  };
}
