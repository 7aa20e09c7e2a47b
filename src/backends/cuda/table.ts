/** The CUDA backend's kernel for every op. */

import { addNormCuda } from '../../ops/add-norm/cuda.ts';
import { adamwCuda } from '../../ops/adamw/cuda.ts';
import { addCuda } from '../../ops/add/cuda.ts';
import { chunkScanBackwardCuda } from '../../ops/chunk-scan-backward/cuda.ts';
import { chunkScanCuda } from '../../ops/chunk-scan/cuda.ts';
import { clipFactorCuda } from '../../ops/clip-factor/cuda.ts';
import { conv1dSiluBackwardCuda } from '../../ops/conv1d-silu-backward/cuda.ts';
import { conv1dSiluCuda } from '../../ops/conv1d-silu/cuda.ts';
import type { CudaKernel } from '../../ops/cuda-kernel.ts';
import { copyFromRankCuda } from '../../ops/copy-from-rank/cuda.ts';
import { dropPathCuda } from '../../ops/drop-path/cuda.ts';
import { dropoutCuda } from '../../ops/dropout/cuda.ts';
import { embeddingBackwardCuda } from '../../ops/embedding-backward/cuda.ts';
import { embeddingCuda } from '../../ops/embedding/cuda.ts';
import { gatedNormBackwardCuda } from '../../ops/gated-norm-backward/cuda.ts';
import { gatedNormCuda } from '../../ops/gated-norm/cuda.ts';
import { gatedSiluBackwardCuda } from '../../ops/gated-silu-backward/cuda.ts';
import { gatedSiluCuda } from '../../ops/gated-silu/cuda.ts';
import type { OpName } from '../../ops/index.ts';
import { lastRowsBackwardCuda } from '../../ops/last-rows-backward/cuda.ts';
import { lastRowsCuda } from '../../ops/last-rows/cuda.ts';
import { linearCrossEntropyBackwardCuda } from '../../ops/linear-cross-entropy-backward/cuda.ts';
import { linearCrossEntropyCuda } from '../../ops/linear-cross-entropy/cuda.ts';
import { linearInputBackwardCuda } from '../../ops/linear-input-backward/cuda.ts';
import { linearWeightBackwardCuda } from '../../ops/linear-weight-backward/cuda.ts';
import { linearCuda } from '../../ops/linear/cuda.ts';
import { normBackwardCuda } from '../../ops/norm-backward/cuda.ts';
import { normCuda } from '../../ops/norm/cuda.ts';
import type { KernelTable } from '../../ops/op.ts';
import { patchifyBackwardCuda } from '../../ops/patchify-backward/cuda.ts';
import { patchifyCuda } from '../../ops/patchify/cuda.ts';
import { poolBackwardCuda } from '../../ops/pool-backward/cuda.ts';
import { poolCuda } from '../../ops/pool/cuda.ts';
import { sampleCuda } from '../../ops/sample/cuda.ts';
import { softCrossEntropyCuda } from '../../ops/soft-cross-entropy/cuda.ts';
import { squareSumCuda } from '../../ops/square-sum/cuda.ts';
import { visionTokensBackwardCuda } from '../../ops/vision-tokens-backward/cuda.ts';
import { sumOverRanksCuda } from '../../ops/sum-over-ranks/cuda.ts';
import { totalOverRanksCuda } from '../../ops/total-over-ranks/cuda.ts';
import { visionTokensCuda } from '../../ops/vision-tokens/cuda.ts';

export const cudaKernels: KernelTable<OpName, CudaKernel> = {
  adamw: adamwCuda,
  add: addCuda,
  add_norm: addNormCuda,
  chunk_scan: chunkScanCuda,
  chunk_scan_backward: chunkScanBackwardCuda,
  clip_factor: clipFactorCuda,
  conv1d_silu: conv1dSiluCuda,
  conv1d_silu_backward: conv1dSiluBackwardCuda,
  copy_from_rank: copyFromRankCuda,
  drop_path: dropPathCuda,
  dropout: dropoutCuda,
  embedding: embeddingCuda,
  embedding_backward: embeddingBackwardCuda,
  gated_norm: gatedNormCuda,
  gated_norm_backward: gatedNormBackwardCuda,
  gated_silu: gatedSiluCuda,
  gated_silu_backward: gatedSiluBackwardCuda,
  last_rows: lastRowsCuda,
  last_rows_backward: lastRowsBackwardCuda,
  linear: linearCuda,
  linear_cross_entropy: linearCrossEntropyCuda,
  linear_cross_entropy_backward: linearCrossEntropyBackwardCuda,
  linear_input_backward: linearInputBackwardCuda,
  linear_weight_backward: linearWeightBackwardCuda,
  norm: normCuda,
  norm_backward: normBackwardCuda,
  patchify: patchifyCuda,
  patchify_backward: patchifyBackwardCuda,
  pool: poolCuda,
  pool_backward: poolBackwardCuda,
  sample: sampleCuda,
  soft_cross_entropy: softCrossEntropyCuda,
  square_sum: squareSumCuda,
  sum_over_ranks: sumOverRanksCuda,
  total_over_ranks: totalOverRanksCuda,
  vision_tokens: visionTokensCuda,
  vision_tokens_backward: visionTokensBackwardCuda,
};
