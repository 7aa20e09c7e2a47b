/** The WebGPU backend's kernel for every op. */

import { addNormWebGpu } from '../../ops/add-norm/webgpu.ts';
import { addWebGpu } from '../../ops/add/webgpu.ts';
import { embeddingWebGpu } from '../../ops/embedding/webgpu.ts';
import type { OpName } from '../../ops/index.ts';
import { linearWebGpu } from '../../ops/linear/webgpu.ts';
import { normWebGpu } from '../../ops/norm/webgpu.ts';
import { type KernelTable, unsupported } from '../../ops/op.ts';
import type { WebGpuKernel } from '../../ops/webgpu-kernel.ts';

const TO_COME = unsupported('not written yet');
const ONE_DEVICE = unsupported('WebGPU devices do not work together');

export const webGpuKernels: KernelTable<OpName, WebGpuKernel> = {
  adamw: TO_COME,
  add: addWebGpu,
  add_norm: addNormWebGpu,
  chunk_scan: TO_COME,
  chunk_scan_backward: TO_COME,
  clip_factor: TO_COME,
  conv1d_silu: TO_COME,
  conv1d_silu_backward: TO_COME,
  copy_from_rank: ONE_DEVICE,
  drop_path: TO_COME,
  dropout: TO_COME,
  embedding: embeddingWebGpu,
  embedding_backward: TO_COME,
  gated_norm: TO_COME,
  gated_norm_backward: TO_COME,
  gated_silu: TO_COME,
  gated_silu_backward: TO_COME,
  last_rows: TO_COME,
  last_rows_backward: TO_COME,
  linear: linearWebGpu,
  linear_cross_entropy: TO_COME,
  linear_cross_entropy_backward: TO_COME,
  linear_input_backward: TO_COME,
  linear_weight_backward: TO_COME,
  norm: normWebGpu,
  norm_backward: TO_COME,
  patchify: TO_COME,
  patchify_backward: TO_COME,
  pool: TO_COME,
  pool_backward: TO_COME,
  sample: TO_COME,
  soft_cross_entropy: TO_COME,
  square_sum: TO_COME,
  sum_over_ranks: ONE_DEVICE,
  total_over_ranks: ONE_DEVICE,
  vision_tokens: TO_COME,
  vision_tokens_backward: TO_COME,
};
