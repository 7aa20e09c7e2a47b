/** The parameters that all CUDA kernels of the chunk scan have, in the order in which `cuda.ts` gives them. */

export const SCAN_PARAMETERS = String.raw`
/*
 * x, y (batch x length, E), b, c (.., N), dt (.., H); dtBias, aLog, d: H floats or more, d one a channel with dPerChannel.
 * The state of a batch row is that of slot slots[row], (full heads, P, N); without a slotTable it starts at zero.
 */
#define PARAMETERS \
  const TX *x, int xStride, const TB *b, int bStride, const TC *c, int cStride, const TDT *dt, int dtStride, \
  TY *y, int yStride, const float *dtBias, const float *aLog, const float *d, int dPerChannel, float dtMin, float dtMax, \
  char *const *slotTable, i64 stateOffset, const int *slots, const int *lengths, int length, int heads

__device__ __forceinline__ float step_size(float raw, float bias, float low, float high) {
  return fminf(fmaxf(softplus(raw + bias), low), high);
}
`;
