/**
 * Cross-entropy of each row of logits (rows, V) with a soft target, and its gradient. A block takes a row: its largest
 * logit, then the sums, then the gradient; the row is read from memory once and from the cache after that.
 */

import { paddedColumns } from '../../graph/graph.ts';
import { type CudaKernel, defines, i32 } from '../cuda-kernel.ts';
import { ROWS_SOURCE, rowArguments, typeDefines } from '../cuda-vectors.ts';

const VECTOR = 4;

/** With m the largest logit and s = sum of exp(logits - m): loss = mass * log s - sum of targets * (logits - m). */
const SOURCE = String.raw`
extern "C" __global__ void soft_cross_entropy(const LOGITS_TYPE *logits, int logitsStride, const TARGETS_TYPE *targets,
                                              int targetsStride, const SCALE_TYPE *scale, int scaleStride,
                                              LOSS_TYPE *loss, int lossStride, int lossColumns,
                                              DLOGITS_TYPE *dLogits, int dLogitsStride, int width, int columns) {
  __shared__ float cells[32];
  i64 row = blockIdx.x;
  logits += row * logitsStride;
  targets += row * targetsStride;
  dLogits += row * dLogitsStride;
  int step = blockDim.x * VECTOR;
  float largest = -INFINITY;
  for (int column = threadIdx.x * VECTOR; column < width; column += step) {
    float x[VECTOR];
    load_row<VECTOR>(x, logits + column);
    #pragma unroll
    for (int i = 0; i < VECTOR; i++) if (column + i < width) largest = fmaxf(largest, x[i]);
  }
  largest = block_max(largest, cells);
  float sum = 0.0f, mass = 0.0f, product = 0.0f;
  for (int column = threadIdx.x * VECTOR; column < width; column += step) {
    float x[VECTOR], t[VECTOR];
    load_row<VECTOR>(x, logits + column);
    load_row<VECTOR>(t, targets + column);
    #pragma unroll
    for (int i = 0; i < VECTOR; i++) {
      if (column + i >= width) continue;
      float shifted = x[i] - largest;
      sum += expf(shifted);
      mass += t[i];
      product += t[i] * shifted;
    }
  }
  sum = block_sum(sum, cells);
  mass = block_sum(mass, cells);
  product = block_sum(product, cells);
  if ((int)threadIdx.x < lossColumns) {
    loss[row * lossStride + threadIdx.x] = from_float<LOSS_TYPE>(threadIdx.x == 0 ? mass * logf(sum) - product : 0.0f);
  }
  float factor = to_float(scale[row * scaleStride]);
  float softmax = mass / sum * factor;
  for (int column = threadIdx.x * VECTOR; column < columns; column += step) {
    float x[VECTOR], t[VECTOR];
    load_row<VECTOR>(x, logits + column);
    load_row<VECTOR>(t, targets + column);
    #pragma unroll
    for (int i = 0; i < VECTOR; i++) x[i] = softmax * expf(x[i] - largest) - factor * t[i];
    clear_pads(x, column, width);
    store_row<VECTOR>(dLogits + column, x);
  }
}
`;

export const softCrossEntropyCuda: CudaKernel = {
  wide: ['loss'],
  launches(node) {
    const [logits, targets, scale] = [node.buffer('logits'), node.buffer('targets'), node.buffer('scale')];
    const [loss, dLogits] = [node.buffer('loss'), node.buffer('dLogits')];
    const columns = paddedColumns(logits.width);
    return [
      {
        kind: 'kernel',
        source: defines({ VECTOR, ...typeDefines({ logits, targets, scale, loss, dLogits }) }) + ROWS_SOURCE + SOURCE,
        entry: 'soft_cross_entropy',
        grid: [logits.rows],
        block: columns > 8192 ? 1024 : 256,
        args: [
          ...rowArguments(logits, targets, scale, loss),
          i32(paddedColumns(loss.width)),
          ...rowArguments(dLogits),
          i32(logits.width),
          i32(columns),
        ],
      },
    ];
  },
};
