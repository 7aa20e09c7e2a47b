/** The CPU backend's kernel for every op. */

import { adamwCpu } from '../../ops/adamw/cpu.ts';
import { addCpu } from '../../ops/add/cpu.ts';
import { chunkScanBackwardCpu } from '../../ops/chunk-scan-backward/cpu.ts';
import { chunkScanCpu } from '../../ops/chunk-scan/cpu.ts';
import { clipFactorCpu } from '../../ops/clip-factor/cpu.ts';
import { conv1dSiluBackwardCpu } from '../../ops/conv1d-silu-backward/cpu.ts';
import { conv1dSiluCpu } from '../../ops/conv1d-silu/cpu.ts';
import type { CpuKernel } from '../../ops/cpu-kernel.ts';
import { dropPathCpu } from '../../ops/drop-path/cpu.ts';
import { dropoutCpu } from '../../ops/dropout/cpu.ts';
import { embeddingBackwardCpu } from '../../ops/embedding-backward/cpu.ts';
import { embeddingCpu } from '../../ops/embedding/cpu.ts';
import { gatedNormBackwardCpu } from '../../ops/gated-norm-backward/cpu.ts';
import { gatedNormCpu } from '../../ops/gated-norm/cpu.ts';
import { gatedSiluBackwardCpu } from '../../ops/gated-silu-backward/cpu.ts';
import { gatedSiluCpu } from '../../ops/gated-silu/cpu.ts';
import type { OpName } from '../../ops/index.ts';
import { lastRowsBackwardCpu } from '../../ops/last-rows-backward/cpu.ts';
import { lastRowsCpu } from '../../ops/last-rows/cpu.ts';
import { linearCrossEntropyBackwardCpu } from '../../ops/linear-cross-entropy-backward/cpu.ts';
import { linearCrossEntropyCpu } from '../../ops/linear-cross-entropy/cpu.ts';
import { linearInputBackwardCpu } from '../../ops/linear-input-backward/cpu.ts';
import { linearWeightBackwardCpu } from '../../ops/linear-weight-backward/cpu.ts';
import { linearCpu } from '../../ops/linear/cpu.ts';
import { normBackwardCpu } from '../../ops/norm-backward/cpu.ts';
import { normCpu } from '../../ops/norm/cpu.ts';
import { type KernelTable, unsupported } from '../../ops/op.ts';
import { patchifyBackwardCpu } from '../../ops/patchify-backward/cpu.ts';
import { patchifyCpu } from '../../ops/patchify/cpu.ts';
import { poolBackwardCpu } from '../../ops/pool-backward/cpu.ts';
import { poolCpu } from '../../ops/pool/cpu.ts';
import { softCrossEntropyCpu } from '../../ops/soft-cross-entropy/cpu.ts';
import { squareSumCpu } from '../../ops/square-sum/cpu.ts';
import { visionTokensBackwardCpu } from '../../ops/vision-tokens-backward/cpu.ts';
import { visionTokensCpu } from '../../ops/vision-tokens/cpu.ts';

export const cpuKernels: KernelTable<OpName, CpuKernel> = {
  adamw: adamwCpu,
  add: addCpu,
  add_norm: normCpu,
  chunk_scan: chunkScanCpu,
  chunk_scan_backward: chunkScanBackwardCpu,
  clip_factor: clipFactorCpu,
  conv1d_silu: conv1dSiluCpu,
  conv1d_silu_backward: conv1dSiluBackwardCpu,
  copy_from_rank: unsupported('the host sums over ranks and copies between them'),
  drop_path: dropPathCpu,
  dropout: dropoutCpu,
  embedding: embeddingCpu,
  embedding_backward: embeddingBackwardCpu,
  gated_norm: gatedNormCpu,
  gated_norm_backward: gatedNormBackwardCpu,
  gated_silu: gatedSiluCpu,
  gated_silu_backward: gatedSiluBackwardCpu,
  last_rows: lastRowsCpu,
  last_rows_backward: lastRowsBackwardCpu,
  linear: linearCpu,
  linear_cross_entropy: linearCrossEntropyCpu,
  linear_cross_entropy_backward: linearCrossEntropyBackwardCpu,
  linear_input_backward: linearInputBackwardCpu,
  linear_weight_backward: linearWeightBackwardCpu,
  norm: normCpu,
  norm_backward: normBackwardCpu,
  patchify: patchifyCpu,
  patchify_backward: patchifyBackwardCpu,
  pool: poolCpu,
  pool_backward: poolBackwardCpu,
  sample: unsupported('tokens are sampled on the host'),
  soft_cross_entropy: softCrossEntropyCpu,
  square_sum: squareSumCpu,
  sum_over_ranks: unsupported('the host sums over ranks and copies between them'),
  total_over_ranks: unsupported('the host sums over ranks and copies between them'),
  vision_tokens: visionTokensCpu,
  vision_tokens_backward: visionTokensBackwardCpu,
};
