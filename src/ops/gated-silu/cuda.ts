/** CUDA kernel of the gate: a thread for 8 columns of a row. */

import { paddedColumns } from '../../graph/graph.ts';
import { type CudaKernel, defines, i32, rowOperand, typeOf } from '../cuda-kernel.ts';
import { PACKED_SOURCE, SIGMOID_SOURCE } from '../cuda-rows.ts';

const BLOCK = 256;

const SOURCE = String.raw`
/* y = x silu(z); all (rows, width), y may lie where x does. */
extern "C" __global__ void __launch_bounds__(256) gated_silu(
    const X *x, int x_stride, const Z *z, int z_stride, Y *y, int y_stride, int rows, int width) {
  u32 vectors = ((u32)width + 15) / 16 * 2;
  u32 id = blockIdx.x * 256u + threadIdx.x;
  u32 row = id / vectors;
  int column = (int)(id - row * vectors) * 8;
  if (row >= (u32)rows) return;
  Packed<X, 8> packed;
  Packed<Z, 8> gates;
  load_packed(packed, x + (i64)row * x_stride + column);
  load_packed(gates, z + (i64)row * z_stride + column);
  float v[8], gate[8];
  unpack(v, packed);
  unpack(gate, gates);
  #pragma unroll
  for (int j = 0; j < 8; j++) v[j] *= gate[j] * gate_sigmoid(gate[j]);
  mask_columns(v, column, width);
  store_row<8>(y + (i64)row * y_stride + column, v);
}
`;

export const gatedSiluCuda: CudaKernel = {
  launches(node) {
    const { rows, width } = node.buffer('x');
    const values = {
      X: typeOf(node, 'x'),
      Z: typeOf(node, 'z'),
      Y: typeOf(node, 'y'),
      FAST: node.activation === 'f32' ? 0 : 1,
    };
    return [
      {
        kind: 'kernel',
        source: defines(values) + PACKED_SOURCE + SIGMOID_SOURCE + SOURCE,
        entry: 'gated_silu',
        grid: [Math.ceil((rows * paddedColumns(width)) / 8 / BLOCK)],
        block: BLOCK,
        args: [...['x', 'z', 'y'].flatMap((name) => rowOperand(node, name)), i32(rows), i32(width)],
      },
    ];
  },
};
