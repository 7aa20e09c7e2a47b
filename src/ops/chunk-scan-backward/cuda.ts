/** CUDA launches of the scan's gradient: step by step in float32. */

import type { CudaKernel } from '../cuda-kernel.ts';
import { recurrentLaunches, recurrentScratchBytes } from './cuda-recurrent.ts';

export const chunkScanBackwardCuda: CudaKernel = {
  scratchBytes: recurrentScratchBytes,
  launches: recurrentLaunches,
};
