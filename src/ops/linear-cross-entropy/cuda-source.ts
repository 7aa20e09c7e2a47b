/** CUDA C of the head's loss: softmax over rows of logits, and the gradient in their place. */

export const CROSS_ENTROPY_SOURCE = String.raw`
struct Peak { float largest; float sum; };

/* The largest logit of a row and the sum of exp(logit - largest), on every thread of the block. */
__device__ __forceinline__ Peak row_peak(const T_LOGITS *row, int vocabulary, float *cells) {
  float largest = -INFINITY, sum = 0.0f;
  int vectors = vocabulary / 8;
  for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
    float v[8];
    load_row(v, row + 8 * i);
    float here = v[0];
    #pragma unroll
    for (int j = 1; j < 8; j++) here = fmaxf(here, v[j]);
    if (here > largest) { sum *= expf(largest - here); largest = here; }
    #pragma unroll
    for (int j = 0; j < 8; j++) sum += EXP(v[j] - largest);
  }
  for (int i = 8 * vectors + threadIdx.x; i < vocabulary; i += blockDim.x) {
    float v = to_float(row[i]);
    if (v > largest) { sum *= expf(largest - v); largest = v; }
    sum += EXP(v - largest);
  }
  Peak peak;
  peak.largest = block_max(largest, cells);
  peak.sum = block_sum(largest == -INFINITY ? 0.0f : sum * expf(largest - peak.largest), cells);
  return peak;
}

/* loss[row] = log sum exp(logits) - logits[target], 0 for a negative target; a block a row. logits: [rows][stride]. */
extern "C" __global__ void cross_entropy(const T_LOGITS *logits, int stride, int vocabulary, const int *targets, float *loss, int loss_stride) {
  __shared__ float cells[32];
  const T_LOGITS *row = logits + (i64)blockIdx.x * stride;
  int target = targets[blockIdx.x];
  Peak peak = row_peak(row, vocabulary, cells);
  if (threadIdx.x < 16) {
    float value = target < 0 || target >= vocabulary ? 0.0f : logf(peak.sum) + peak.largest - to_float(row[target]);
    loss[(i64)blockIdx.x * loss_stride + threadIdx.x] = threadIdx.x == 0 ? value : 0.0f;
  }
}

/*
 * The same, and logits become (softmax - (1 - share) onehot - share softmax(teacher)) * scale[row], 0 for a negative
 * target; teacher: [rows][stride] logits or null.
 */
extern "C" __global__ void cross_entropy_gradient(
    T_LOGITS *logits, int stride, int vocabulary, const int *targets, const T_LOGITS *teacher, float share,
    const T_SCALE *scale, int scale_stride, float *loss, int loss_stride) {
  __shared__ float cells[32];
  T_LOGITS *row = logits + (i64)blockIdx.x * stride;
  const T_LOGITS *taught = teacher ? teacher + (i64)blockIdx.x * stride : (const T_LOGITS *)0;
  int target = targets[blockIdx.x];
  bool counts = target >= 0 && target < vocabulary;
  Peak peak = row_peak(row, vocabulary, cells);
  Peak soft = peak;
  if (taught) soft = row_peak(taught, vocabulary, cells);
  float at_target = counts ? to_float(row[target]) : 0.0f;
  float factor = counts ? to_float(scale[(i64)blockIdx.x * scale_stride]) : 0.0f;
  /* All threads have read the target's logit before any of them writes. */
  __syncthreads();
  if (threadIdx.x < 16) {
    float value = counts ? logf(peak.sum) + peak.largest - at_target : 0.0f;
    loss[(i64)blockIdx.x * loss_stride + threadIdx.x] = threadIdx.x == 0 ? value : 0.0f;
  }
  float own = factor / peak.sum;
  float other = taught ? factor * share / soft.sum : 0.0f;
  float one = factor * (1.0f - (taught ? share : 0.0f));
  int vectors = vocabulary / 8;
  for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
    float v[8];
    load_row(v, row + 8 * i);
    #pragma unroll
    for (int j = 0; j < 8; j++) v[j] = own * EXP(v[j] - peak.largest);
    if (taught) {
      float q[8];
      load_row(q, taught + 8 * i);
      #pragma unroll
      for (int j = 0; j < 8; j++) v[j] -= other * EXP(q[j] - soft.largest);
    }
    if (target >> 3 == i) {
      #pragma unroll
      for (int j = 0; j < 8; j++) if ((target & 7) == j) v[j] -= one;
    }
    store_row(row + 8 * i, v);
  }
  for (int i = 8 * vectors + threadIdx.x; i < vocabulary; i += blockDim.x) {
    float v = own * EXP(to_float(row[i]) - peak.largest);
    if (taught) v -= other * EXP(to_float(taught[i]) - soft.largest);
    if (i == target) v -= one;
    row[i] = from_float<T_LOGITS>(v);
  }
}
`;
