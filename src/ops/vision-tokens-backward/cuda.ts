/** The gradient dy (B, L+1, D) of tokens: dx (B, L, D) takes the patches, class token and positions the batch's sums. */

import { type CudaKernel, defines, i32, parameterOperand } from '../cuda-kernel.ts';
import { rowArguments, typeDefines, vectorWidth } from '../cuda-vectors.ts';

const BLOCK = 128;

/**
 * A thread takes VECTOR columns of one token through the batch, in its order: it copies to dx and sums, 8 images'
 * loads under way at a time. tokens = L + 1; dClass, dPosition: contiguous floats, null where not trained.
 */
const SOURCE = String.raw`
__device__ __forceinline__ void add_to(float *target, const float (&sum)[VECTOR]) {
  float values[VECTOR];
  load_row<VECTOR>(values, target);
  #pragma unroll
  for (int i = 0; i < VECTOR; i++) values[i] += sum[i];
  store_row<VECTOR>(target, values);
}

extern "C" __global__ void vision_tokens_backward(const DY_TYPE *dy, int dyStride, DX_TYPE *dx, int dxStride, float *dClass,
                                                  float *dPosition, int batch, int tokens, int width) {
  u32 across = (u32)width / VECTOR, item = blockIdx.x * blockDim.x + threadIdx.x;
  int token = (int)(item / across);
  int column = (int)(item - token * across) * VECTOR;
  if (token >= tokens) return;
  bool last = token == tokens - 1;
  const DY_TYPE *from = dy + (i64)token * dyStride + column;
  DX_TYPE *to = dx + (i64)token * dxStride + column;
  float sum[VECTOR] = {};
  for (int first = 0; first < batch; first += 8) {
    float values[8][VECTOR];
    #pragma unroll
    for (int k = 0; k < 8; k++) {
      if (first + k < batch) load_row<VECTOR>(values[k], from + (i64)(first + k) * tokens * dyStride);
    }
    #pragma unroll
    for (int k = 0; k < 8; k++) {
      if (first + k >= batch) continue;
      #pragma unroll
      for (int i = 0; i < VECTOR; i++) sum[i] += values[k][i];
      if (!last) store_row<VECTOR>(to + (i64)(first + k) * (tokens - 1) * dxStride, values[k]);
    }
  }
  if (dPosition) add_to(dPosition + (i64)token * width + column, sum);
  if (dClass && last) add_to(dClass + column, sum);
}
`;

export const visionTokensBackwardCuda: CudaKernel = {
  launches(node) {
    const [dy, dx] = [node.buffer('dy'), node.buffer('dx')];
    const [batch, tokens, width] = dy.shape as [number, number, number];
    const vector = vectorWidth(dy, dx);
    return [
      {
        kind: 'kernel',
        source: defines({ VECTOR: vector, ...typeDefines({ dy, dx }) }) + SOURCE,
        entry: 'vision_tokens_backward',
        grid: [Math.ceil((tokens * width) / vector / BLOCK)],
        block: BLOCK,
        args: [
          ...rowArguments(dy, dx),
          parameterOperand(node, 'dClass'),
          parameterOperand(node, 'dPosition'),
          i32(batch),
          i32(tokens),
          i32(width),
        ],
      },
    ];
  },
};
