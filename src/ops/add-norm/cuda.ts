/** CUDA launch of the residual addition with the norm, in the kernel of `norm`; the sum stays float32. */

import type { CudaKernel } from '../cuda-kernel.ts';
import { normLaunches } from '../norm/cuda.ts';

export const addNormCuda: CudaKernel = { wide: ['sum'], launches: normLaunches };
