/** AdamW over float32 buffers (weight, gradient and both moments), all consecutive parameters in one launch. */

import type { CudaKernel, CudaLaunch, CudaNode } from '../cuda-kernel.ts';
import { pieceTable } from '../cuda-pieces.ts';

const PIECE = 4096;
const BLOCK = 256;

/** A block takes a piece of up to 4,096 floats, 4 a thread at a time; what is left behind the last 4 one by one. */
const SOURCE = String.raw`
struct Piece { float *weight; float *gradient; float *m; float *v; u32 count; u32 decay; };
struct Step { float keep, rate, eps, first, firstRest, second, secondRest, inverse; };

__device__ __forceinline__ void update(float &w, float &g, float &m, float &v, const Step &step) {
  m = step.first * m + step.firstRest * g;
  v = step.second * v + step.secondRest * (g * g);
  w = step.keep * w - step.rate * (m / (sqrtf(v) * step.inverse + step.eps));
  g = 0.0f;
}

extern "C" __global__ void __launch_bounds__(256) adamw(const Piece *pieces, const float *factors, const float *settings) {
  Piece piece = pieces[blockIdx.x];
  float factor = *factors;
  if (factor == 0.0f) return;
  Step step;
  step.first = settings[1];
  step.firstRest = (1.0f - step.first) * factor;
  step.second = settings[2];
  step.secondRest = (1.0f - step.second) * factor * factor;
  step.eps = settings[3];
  step.keep = piece.decay ? 1.0f - settings[0] * settings[4] : 1.0f;
  step.rate = settings[0] / settings[5];
  step.inverse = 1.0f / sqrtf(settings[6]);
  u32 whole = piece.count & ~3u;
  for (u32 i = threadIdx.x * 4; i < whole; i += blockDim.x * 4) {
    float w[4], g[4], m[4], v[4];
    load_row<4>(w, piece.weight + i);
    load_row<4>(g, piece.gradient + i);
    load_row<4>(m, piece.m + i);
    load_row<4>(v, piece.v + i);
    #pragma unroll
    for (int j = 0; j < 4; j++) update(w[j], g[j], m[j], v[j], step);
    store_row<4>(piece.weight + i, w);
    store_row<4>(piece.gradient + i, g);
    store_row<4>(piece.m + i, m);
    store_row<4>(piece.v + i, v);
  }
  u32 i = whole + threadIdx.x;
  if (i < piece.count) update(piece.weight[i], piece.gradient[i], piece.m[i], piece.v[i], step);
}
`;

/** Consecutive nodes that read one factor and one set of settings are one launch. */
function group(nodes: readonly CudaNode[]): CudaLaunch[] {
  const launches: CudaLaunch[] = [];
  for (let start = 0, end = 0; start < nodes.length; start = end) {
    const factor = nodes[start]!.buffer('factor').pointer;
    const settings = nodes[start]!.buffer('settings').pointer;
    const same = (node: CudaNode): boolean =>
      node.buffer('factor').pointer === factor && node.buffer('settings').pointer === settings;
    for (end = start + 1; end < nodes.length && same(nodes[end]!);) end++;
    const sources = nodes.slice(start, end).map((node) => ({
      buffers: ['weight', 'gradient', 'dM', 'dV'].map((name) => node.weight(name)),
      flag: node.flag('decay'),
    }));
    const { table, pieces } = pieceTable(sources, PIECE);
    launches.push({
      kind: 'kernel',
      source: SOURCE,
      entry: 'adamw',
      grid: [pieces],
      block: BLOCK,
      args: [{ table }, factor, settings],
    });
  }
  return launches;
}

export const adamwCuda: CudaKernel = { launches: (node) => group([node]), group };
