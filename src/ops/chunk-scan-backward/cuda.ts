/** CUDA launches of the scan's gradient: by chunks on tensor cores in a 16-bit precision, step by step in float32. */

import type { CudaKernel } from '../cuda-kernel.ts';
import { chunkedFits, chunkedLaunches, chunkedScratchBytes } from './cuda-chunked.ts';
import { recurrentLaunches, recurrentScratchBytes } from './cuda-recurrent.ts';

export const chunkScanBackwardCuda: CudaKernel = {
  scratchBytes: (node) => (chunkedFits(node) ? chunkedScratchBytes(node) : recurrentScratchBytes(node)),
  launches: (node) => (chunkedFits(node) ? chunkedLaunches(node) : recurrentLaunches(node)),
};
