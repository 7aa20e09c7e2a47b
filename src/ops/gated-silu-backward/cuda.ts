/** CUDA kernel of the gate's gradient: a thread for 8 columns of a row. */

import { paddedColumns } from '../../graph/graph.ts';
import { type CudaKernel, defines, i32, rowOperand, typeOf } from '../cuda-kernel.ts';
import { PACKED_SOURCE, SIGMOID_SOURCE } from '../cuda-rows.ts';

const BLOCK = 256;

const SOURCE = String.raw`
/* dx = dy silu(z), dz = dy x silu'(z); all (rows, width). */
extern "C" __global__ void __launch_bounds__(256) gated_silu_backward(
    const X *x, int x_stride, const Z *z, int z_stride, const DY *dy, int dy_stride, DX *dx, int dx_stride, DZ *dz,
    int dz_stride, int rows, int width) {
  u32 vectors = ((u32)width + 15) / 16 * 2;
  u32 id = blockIdx.x * 256u + threadIdx.x;
  u32 row = id / vectors;
  int column = (int)(id - row * vectors) * 8;
  if (row >= (u32)rows) return;
  Packed<X, 8> packed;
  Packed<Z, 8> gates;
  Packed<DY, 8> gradients;
  load_packed(packed, x + (i64)row * x_stride + column);
  load_packed(gates, z + (i64)row * z_stride + column);
  load_packed(gradients, dy + (i64)row * dy_stride + column);
  float v[8], gate[8], d[8], out[8], out_z[8];
  unpack(v, packed);
  unpack(gate, gates);
  unpack(d, gradients);
  #pragma unroll
  for (int j = 0; j < 8; j++) {
    float s = gate_sigmoid(gate[j]);
    out[j] = d[j] * gate[j] * s;
    out_z[j] = d[j] * v[j] * s * (1.0f + gate[j] * (1.0f - s));
  }
  mask_columns(out, column, width);
  mask_columns(out_z, column, width);
  store_row<8>(dx + (i64)row * dx_stride + column, out);
  store_row<8>(dz + (i64)row * dz_stride + column, out_z);
}
`;

export const gatedSiluBackwardCuda: CudaKernel = {
  launches(node) {
    const { rows, width } = node.buffer('x');
    const values = {
      X: typeOf(node, 'x'),
      Z: typeOf(node, 'z'),
      DY: typeOf(node, 'dy'),
      DX: typeOf(node, 'dx'),
      DZ: typeOf(node, 'dz'),
      FAST: node.activation === 'f32' ? 0 : 1,
    };
    return [
      {
        kind: 'kernel',
        source: defines(values) + PACKED_SOURCE + SIGMOID_SOURCE + SOURCE,
        entry: 'gated_silu_backward',
        grid: [Math.ceil((rows * paddedColumns(width)) / 8 / BLOCK)],
        block: BLOCK,
        args: [...['x', 'z', 'dy', 'dx', 'dz'].flatMap((name) => rowOperand(node, name)), i32(rows), i32(width)],
      },
    ];
  },
};
