/** Every kernel by the name that the `cpu.ts` files call it: the index of its function in the module's table. */

import { add } from './add/kernel.as';
import { chunkScan } from './chunk-scan/chunk.as';
import { chunkScanPrepare } from './chunk-scan/prepare.as';
import { chunkScanStep } from './chunk-scan/step.as';
import { conv1dSilu } from './conv1d-silu/kernel.as';
import { embeddingBackward } from './embedding-backward/kernel.as';
import { embedding } from './embedding/kernel.as';
import { gatedNormBackward } from './gated-norm-backward/kernel.as';
import { gatedNorm } from './gated-norm/kernel.as';
import { gatedSiluBackward } from './gated-silu-backward/kernel.as';
import { gatedSilu } from './gated-silu/kernel.as';
import { lastRowsBackward } from './last-rows-backward/kernel.as';
import { lastRows } from './last-rows/kernel.as';
import { crossEntropyRows } from './linear-cross-entropy/kernel.as';
import { linearBlas } from './linear/blas.as';
import { linearGemm } from './linear/gemm.as';
import { linearInt8, linearQuantise } from './linear/int8.as';
import { linearFewRows } from './linear/matvec.as';
import { addSums, normBackward } from './norm-backward/kernel.as';
import { norm } from './norm/kernel.as';
import { patchify, patchifyBackward } from './patchify/kernel.as';
import { poolBackward } from './pool-backward/kernel.as';
import { pool } from './pool/kernel.as';
import { visionTokensBackward } from './vision-tokens-backward/kernel.as';
import { visionTokens } from './vision-tokens/kernel.as';

type Kernel = (args: usize, thread: i32, threads: i32) => void;
function index(kernel: Kernel): u32 {
  return kernel.index;
}

export const add_index = index(add);
export const add_sums_index = index(addSums);
export const chunk_scan_index = index(chunkScan);
export const chunk_scan_prepare_index = index(chunkScanPrepare);
export const chunk_scan_step_index = index(chunkScanStep);
export const conv1d_silu_index = index(conv1dSilu);
export const cross_entropy_rows_index = index(crossEntropyRows);
export const embedding_backward_index = index(embeddingBackward);
export const embedding_index = index(embedding);
export const gated_norm_backward_index = index(gatedNormBackward);
export const gated_norm_index = index(gatedNorm);
export const gated_silu_backward_index = index(gatedSiluBackward);
export const gated_silu_index = index(gatedSilu);
export const last_rows_backward_index = index(lastRowsBackward);
export const last_rows_index = index(lastRows);
export const linear_blas_index = index(linearBlas);
export const linear_few_rows_index = index(linearFewRows);
export const linear_gemm_index = index(linearGemm);
export const linear_int8_index = index(linearInt8);
export const linear_quantise_index = index(linearQuantise);
export const norm_backward_index = index(normBackward);
export const norm_index = index(norm);
export const patchify_backward_index = index(patchifyBackward);
export const patchify_index = index(patchify);
export const pool_backward_index = index(poolBackward);
export const pool_index = index(pool);
export const vision_tokens_backward_index = index(visionTokensBackward);
export const vision_tokens_index = index(visionTokens);
