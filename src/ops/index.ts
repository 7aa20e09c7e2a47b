/** All ops by name, and the lists that tests and tables are made from. */

import { adamw } from './adamw/op.ts';
import { add } from './add/op.ts';
import { addNorm } from './add-norm/op.ts';
import { chunkScan } from './chunk-scan/op.ts';
import { chunkScanBackward } from './chunk-scan-backward/op.ts';
import { clipFactor } from './clip-factor/op.ts';
import { conv1dSilu } from './conv1d-silu/op.ts';
import { conv1dSiluBackward } from './conv1d-silu-backward/op.ts';
import { copyFromRank } from './copy-from-rank/op.ts';
import { dropPath } from './drop-path/op.ts';
import { dropout } from './dropout/op.ts';
import { embedding } from './embedding/op.ts';
import { embeddingBackward } from './embedding-backward/op.ts';
import { gatedNorm } from './gated-norm/op.ts';
import { gatedNormBackward } from './gated-norm-backward/op.ts';
import { gatedSilu } from './gated-silu/op.ts';
import { gatedSiluBackward } from './gated-silu-backward/op.ts';
import { lastRows } from './last-rows/op.ts';
import { lastRowsBackward } from './last-rows-backward/op.ts';
import { linear } from './linear/op.ts';
import { linearCrossEntropy } from './linear-cross-entropy/op.ts';
import { linearCrossEntropyBackward } from './linear-cross-entropy-backward/op.ts';
import { linearInputBackward } from './linear-input-backward/op.ts';
import { linearWeightBackward } from './linear-weight-backward/op.ts';
import { norm } from './norm/op.ts';
import { normBackward } from './norm-backward/op.ts';
import { patchify } from './patchify/op.ts';
import { patchifyBackward } from './patchify-backward/op.ts';
import { pool } from './pool/op.ts';
import { poolBackward } from './pool-backward/op.ts';
import { sample } from './sample/op.ts';
import { softCrossEntropy } from './soft-cross-entropy/op.ts';
import { squareSum } from './square-sum/op.ts';
import { sumOverRanks } from './sum-over-ranks/op.ts';
import { totalOverRanks } from './total-over-ranks/op.ts';
import { visionTokens } from './vision-tokens/op.ts';
import { visionTokensBackward } from './vision-tokens-backward/op.ts';

export {
  adamw,
  add,
  addNorm,
  chunkScan,
  chunkScanBackward,
  clipFactor,
  conv1dSilu,
  conv1dSiluBackward,
  copyFromRank,
  dropPath,
  dropout,
  embedding,
  embeddingBackward,
  gatedNorm,
  gatedNormBackward,
  gatedSilu,
  gatedSiluBackward,
  lastRows,
  lastRowsBackward,
  linear,
  linearCrossEntropy,
  linearCrossEntropyBackward,
  linearInputBackward,
  linearWeightBackward,
  norm,
  normBackward,
  patchify,
  patchifyBackward,
  pool,
  poolBackward,
  sample,
  softCrossEntropy,
  squareSum,
  sumOverRanks,
  totalOverRanks,
  visionTokens,
  visionTokensBackward,
};

export const OPS = {
  adamw,
  add,
  add_norm: addNorm,
  chunk_scan: chunkScan,
  chunk_scan_backward: chunkScanBackward,
  clip_factor: clipFactor,
  conv1d_silu: conv1dSilu,
  conv1d_silu_backward: conv1dSiluBackward,
  copy_from_rank: copyFromRank,
  drop_path: dropPath,
  dropout,
  embedding,
  embedding_backward: embeddingBackward,
  gated_norm: gatedNorm,
  gated_norm_backward: gatedNormBackward,
  gated_silu: gatedSilu,
  gated_silu_backward: gatedSiluBackward,
  last_rows: lastRows,
  last_rows_backward: lastRowsBackward,
  linear,
  linear_cross_entropy: linearCrossEntropy,
  linear_cross_entropy_backward: linearCrossEntropyBackward,
  linear_input_backward: linearInputBackward,
  linear_weight_backward: linearWeightBackward,
  norm,
  norm_backward: normBackward,
  patchify,
  patchify_backward: patchifyBackward,
  pool,
  pool_backward: poolBackward,
  sample,
  soft_cross_entropy: softCrossEntropy,
  square_sum: squareSum,
  sum_over_ranks: sumOverRanks,
  total_over_ranks: totalOverRanks,
  vision_tokens: visionTokens,
  vision_tokens_backward: visionTokensBackward,
} as const;

export type OpName = keyof typeof OPS;
