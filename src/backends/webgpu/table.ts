/** The WebGPU backend's kernel for every op. */

import { adamwWebGpu } from '../../ops/adamw/webgpu.ts';
import { addNormWebGpu } from '../../ops/add-norm/webgpu.ts';
import { addWebGpu } from '../../ops/add/webgpu.ts';
import { chunkScanBackwardWebGpu } from '../../ops/chunk-scan-backward/webgpu.ts';
import { chunkScanWebGpu } from '../../ops/chunk-scan/webgpu.ts';
import { clipFactorWebGpu } from '../../ops/clip-factor/webgpu.ts';
import { conv1dSiluWebGpu } from '../../ops/conv1d-silu/webgpu.ts';
import { conv1dSiluBackwardWebGpu } from '../../ops/conv1d-silu-backward/webgpu.ts';
import { dropPathWebGpu } from '../../ops/drop-path/webgpu.ts';
import { dropoutWebGpu } from '../../ops/dropout/webgpu.ts';
import { embeddingBackwardWebGpu } from '../../ops/embedding-backward/webgpu.ts';
import { embeddingWebGpu } from '../../ops/embedding/webgpu.ts';
import { gatedNormWebGpu } from '../../ops/gated-norm/webgpu.ts';
import { gatedNormBackwardWebGpu } from '../../ops/gated-norm-backward/webgpu.ts';
import { gatedSiluWebGpu } from '../../ops/gated-silu/webgpu.ts';
import { gatedSiluBackwardWebGpu } from '../../ops/gated-silu-backward/webgpu.ts';
import { normBackwardWebGpu } from '../../ops/norm-backward/webgpu.ts';
import { softCrossEntropyWebGpu } from '../../ops/soft-cross-entropy/webgpu.ts';
import { linearInputBackwardWebGpu } from '../../ops/linear-input-backward/webgpu.ts';
import { linearWeightBackwardWebGpu } from '../../ops/linear-weight-backward/webgpu.ts';
import { linearCrossEntropyWebGpu } from '../../ops/linear-cross-entropy/webgpu.ts';
import { linearCrossEntropyBackwardWebGpu } from '../../ops/linear-cross-entropy-backward/webgpu.ts';
import { sampleWebGpu } from '../../ops/sample/webgpu.ts';
import type { OpName } from '../../ops/index.ts';
import { lastRowsBackwardWebGpu } from '../../ops/last-rows-backward/webgpu.ts';
import { lastRowsWebGpu } from '../../ops/last-rows/webgpu.ts';
import { linearWebGpu } from '../../ops/linear/webgpu.ts';
import { normWebGpu } from '../../ops/norm/webgpu.ts';
import { type KernelTable, unsupported } from '../../ops/op.ts';
import { patchifyBackwardWebGpu } from '../../ops/patchify-backward/webgpu.ts';
import { patchifyWebGpu } from '../../ops/patchify/webgpu.ts';
import { poolBackwardWebGpu } from '../../ops/pool-backward/webgpu.ts';
import { poolWebGpu } from '../../ops/pool/webgpu.ts';
import { squareSumWebGpu } from '../../ops/square-sum/webgpu.ts';
import { visionTokensBackwardWebGpu } from '../../ops/vision-tokens-backward/webgpu.ts';
import { visionTokensWebGpu } from '../../ops/vision-tokens/webgpu.ts';
import type { WebGpuKernel } from '../../ops/webgpu-kernel.ts';

const ONE_DEVICE = unsupported('WebGPU devices do not work together');

export const webGpuKernels: KernelTable<OpName, WebGpuKernel> = {
  adamw: adamwWebGpu,
  add: addWebGpu,
  add_norm: addNormWebGpu,
  chunk_scan: chunkScanWebGpu,
  chunk_scan_backward: chunkScanBackwardWebGpu,
  clip_factor: clipFactorWebGpu,
  conv1d_silu: conv1dSiluWebGpu,
  conv1d_silu_backward: conv1dSiluBackwardWebGpu,
  copy_from_rank: ONE_DEVICE,
  drop_path: dropPathWebGpu,
  dropout: dropoutWebGpu,
  embedding: embeddingWebGpu,
  embedding_backward: embeddingBackwardWebGpu,
  gated_norm: gatedNormWebGpu,
  gated_norm_backward: gatedNormBackwardWebGpu,
  gated_silu: gatedSiluWebGpu,
  gated_silu_backward: gatedSiluBackwardWebGpu,
  last_rows: lastRowsWebGpu,
  last_rows_backward: lastRowsBackwardWebGpu,
  linear: linearWebGpu,
  linear_cross_entropy: linearCrossEntropyWebGpu,
  linear_cross_entropy_backward: linearCrossEntropyBackwardWebGpu,
  linear_input_backward: linearInputBackwardWebGpu,
  linear_weight_backward: linearWeightBackwardWebGpu,
  norm: normWebGpu,
  norm_backward: normBackwardWebGpu,
  patchify: patchifyWebGpu,
  patchify_backward: patchifyBackwardWebGpu,
  pool: poolWebGpu,
  pool_backward: poolBackwardWebGpu,
  sample: sampleWebGpu,
  soft_cross_entropy: softCrossEntropyWebGpu,
  square_sum: squareSumWebGpu,
  sum_over_ranks: ONE_DEVICE,
  total_over_ranks: ONE_DEVICE,
  vision_tokens: visionTokensWebGpu,
  vision_tokens_backward: visionTokensBackwardWebGpu,
};
