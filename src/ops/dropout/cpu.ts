import { type CpuKernel, type CpuNode, call, f32, rowOperands } from '../cpu-kernel.ts';

/** Dropout of elements, or of whole samples of `rowsPerDraw` rows. */
export function dropoutCall(node: CpuNode, rowsPerDraw: number): ReturnType<typeof call> {
  const x = node.buffer('x');
  return call('dropout', {
    ...rowOperands(node, 'x', 'y'),
    seed: node.buffer('seed').pointer,
    stream: node.number('stream'),
    rate: f32(node.number('rate')),
    rows: x.rows,
    width: x.width,
    rowsPerDraw,
  });
}

export const dropoutCpu: CpuKernel = { calls: (node) => [dropoutCall(node, 0)] };
