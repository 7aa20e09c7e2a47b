import { type CpuKernel, type CpuNode, call, f32, rowOperands } from '../cpu-kernel.ts';

/** Dropout of elements, or of whole samples; a sample has `length` rows. */
export function dropoutCall(node: CpuNode, length: number, whole: boolean): ReturnType<typeof call> {
  const x = node.buffer('x');
  return call('dropout', {
    ...rowOperands(node, 'x', 'y'),
    seed: node.buffer('seed').pointer,
    stream: node.number('stream'),
    rate: f32(node.number('rate')),
    rows: x.rows,
    width: x.width,
    length,
    whole: whole ? 1 : 0,
  });
}

export const dropoutCpu: CpuKernel = { calls: (node) => [dropoutCall(node, node.number('length'), false)] };
