/** The clipping factor and the norm from the sum of squares: one number each, computed by the first thread of a warp. */

import { paddedColumns } from '../../graph/graph.ts';
import { type CudaKernel, i32 } from '../cuda-kernel.ts';

/** settings[0]: the largest norm. A norm that is not finite gives the factor 0. The outputs' padding is zeroed. */
const SOURCE = String.raw`
extern "C" __global__ void clip_factor(const float *squares, const float *settings, float *factor, float *norm, int columns) {
  float length = sqrtf(*squares);
  bool finite = length <= 3.402823466e38f;
  float clipped = finite ? fminf(1.0f, *settings / (length + 1e-6f)) : 0.0f;
  for (int i = threadIdx.x; i < columns; i += 32) {
    factor[i] = i == 0 ? clipped : 0.0f;
    norm[i] = i == 0 ? length : 0.0f;
  }
}
`;

export const clipFactorCuda: CudaKernel = {
  wide: ['factor', 'norm'],
  launches(node) {
    const operands = ['squares', 'settings', 'factor', 'norm'].map((name) => node.buffer(name).pointer);
    const columns = i32(paddedColumns(node.buffer('factor').width));
    return [{ kind: 'kernel', source: SOURCE, entry: 'clip_factor', grid: [1], block: 32, args: [...operands, columns] }];
  },
};
