/** Every op's cases and float64 reference: what conformance tests, op benchmarks and docs/ops.md walk through. */

import type { OpCase, Reference } from './cases.ts';
import type { OpName } from './index.ts';
import { adamwCases } from './adamw/cases.ts';
import { adamwReference } from './adamw/reference.ts';
import { addCases } from './add/cases.ts';
import { addReference } from './add/reference.ts';
import { addNormCases } from './add-norm/cases.ts';
import { addNormReference } from './add-norm/reference.ts';
import { chunkScanCases } from './chunk-scan/cases.ts';
import { chunkScanReference } from './chunk-scan/reference.ts';
import { chunkScanBackwardCases } from './chunk-scan-backward/cases.ts';
import { chunkScanBackwardReference } from './chunk-scan-backward/reference.ts';
import { clipFactorCases } from './clip-factor/cases.ts';
import { clipFactorReference } from './clip-factor/reference.ts';
import { conv1dSiluCases } from './conv1d-silu/cases.ts';
import { conv1dSiluReference } from './conv1d-silu/reference.ts';
import { conv1dSiluBackwardCases } from './conv1d-silu-backward/cases.ts';
import { conv1dSiluBackwardReference } from './conv1d-silu-backward/reference.ts';
import { copyFromRankCases } from './copy-from-rank/cases.ts';
import { copyFromRankReference } from './copy-from-rank/reference.ts';
import { dropPathCases } from './drop-path/cases.ts';
import { dropPathReference } from './drop-path/reference.ts';
import { dropoutCases } from './dropout/cases.ts';
import { dropoutReference } from './dropout/reference.ts';
import { embeddingCases } from './embedding/cases.ts';
import { embeddingReference } from './embedding/reference.ts';
import { embeddingBackwardCases } from './embedding-backward/cases.ts';
import { embeddingBackwardReference } from './embedding-backward/reference.ts';
import { gatedNormCases } from './gated-norm/cases.ts';
import { gatedNormReference } from './gated-norm/reference.ts';
import { gatedNormBackwardCases } from './gated-norm-backward/cases.ts';
import { gatedNormBackwardReference } from './gated-norm-backward/reference.ts';
import { gatedSiluCases } from './gated-silu/cases.ts';
import { gatedSiluReference } from './gated-silu/reference.ts';
import { gatedSiluBackwardCases } from './gated-silu-backward/cases.ts';
import { gatedSiluBackwardReference } from './gated-silu-backward/reference.ts';
import { lastRowsCases } from './last-rows/cases.ts';
import { lastRowsReference } from './last-rows/reference.ts';
import { lastRowsBackwardCases } from './last-rows-backward/cases.ts';
import { lastRowsBackwardReference } from './last-rows-backward/reference.ts';
import { linearCases } from './linear/cases.ts';
import { linearReference } from './linear/reference.ts';
import { linearCrossEntropyCases } from './linear-cross-entropy/cases.ts';
import { linearCrossEntropyReference } from './linear-cross-entropy/reference.ts';
import { linearCrossEntropyBackwardCases } from './linear-cross-entropy-backward/cases.ts';
import { linearCrossEntropyBackwardReference } from './linear-cross-entropy-backward/reference.ts';
import { linearInputBackwardCases } from './linear-input-backward/cases.ts';
import { linearInputBackwardReference } from './linear-input-backward/reference.ts';
import { linearWeightBackwardCases } from './linear-weight-backward/cases.ts';
import { linearWeightBackwardReference } from './linear-weight-backward/reference.ts';
import { normCases } from './norm/cases.ts';
import { normReference } from './norm/reference.ts';
import { normBackwardCases } from './norm-backward/cases.ts';
import { normBackwardReference } from './norm-backward/reference.ts';
import { patchifyCases } from './patchify/cases.ts';
import { patchifyReference } from './patchify/reference.ts';
import { patchifyBackwardCases } from './patchify-backward/cases.ts';
import { patchifyBackwardReference } from './patchify-backward/reference.ts';
import { poolCases } from './pool/cases.ts';
import { poolReference } from './pool/reference.ts';
import { poolBackwardCases } from './pool-backward/cases.ts';
import { poolBackwardReference } from './pool-backward/reference.ts';
import { sampleCases } from './sample/cases.ts';
import { sampleReference } from './sample/reference.ts';
import { softCrossEntropyCases } from './soft-cross-entropy/cases.ts';
import { softCrossEntropyReference } from './soft-cross-entropy/reference.ts';
import { squareSumCases } from './square-sum/cases.ts';
import { squareSumReference } from './square-sum/reference.ts';
import { sumOverRanksCases } from './sum-over-ranks/cases.ts';
import { sumOverRanksReference } from './sum-over-ranks/reference.ts';
import { totalOverRanksCases } from './total-over-ranks/cases.ts';
import { totalOverRanksReference } from './total-over-ranks/reference.ts';
import { visionTokensCases } from './vision-tokens/cases.ts';
import { visionTokensReference } from './vision-tokens/reference.ts';
import { visionTokensBackwardCases } from './vision-tokens-backward/cases.ts';
import { visionTokensBackwardReference } from './vision-tokens-backward/reference.ts';

export const CONFORMANCE: Readonly<Record<OpName, { readonly cases: readonly OpCase[]; readonly reference: Reference }>> = {
  adamw: { cases: adamwCases, reference: adamwReference },
  add: { cases: addCases, reference: addReference },
  add_norm: { cases: addNormCases, reference: addNormReference },
  chunk_scan: { cases: chunkScanCases, reference: chunkScanReference },
  chunk_scan_backward: { cases: chunkScanBackwardCases, reference: chunkScanBackwardReference },
  clip_factor: { cases: clipFactorCases, reference: clipFactorReference },
  conv1d_silu: { cases: conv1dSiluCases, reference: conv1dSiluReference },
  conv1d_silu_backward: { cases: conv1dSiluBackwardCases, reference: conv1dSiluBackwardReference },
  copy_from_rank: { cases: copyFromRankCases, reference: copyFromRankReference },
  drop_path: { cases: dropPathCases, reference: dropPathReference },
  dropout: { cases: dropoutCases, reference: dropoutReference },
  embedding: { cases: embeddingCases, reference: embeddingReference },
  embedding_backward: { cases: embeddingBackwardCases, reference: embeddingBackwardReference },
  gated_norm: { cases: gatedNormCases, reference: gatedNormReference },
  gated_norm_backward: { cases: gatedNormBackwardCases, reference: gatedNormBackwardReference },
  gated_silu: { cases: gatedSiluCases, reference: gatedSiluReference },
  gated_silu_backward: { cases: gatedSiluBackwardCases, reference: gatedSiluBackwardReference },
  last_rows: { cases: lastRowsCases, reference: lastRowsReference },
  last_rows_backward: { cases: lastRowsBackwardCases, reference: lastRowsBackwardReference },
  linear: { cases: linearCases, reference: linearReference },
  linear_cross_entropy: { cases: linearCrossEntropyCases, reference: linearCrossEntropyReference },
  linear_cross_entropy_backward: { cases: linearCrossEntropyBackwardCases, reference: linearCrossEntropyBackwardReference },
  linear_input_backward: { cases: linearInputBackwardCases, reference: linearInputBackwardReference },
  linear_weight_backward: { cases: linearWeightBackwardCases, reference: linearWeightBackwardReference },
  norm: { cases: normCases, reference: normReference },
  norm_backward: { cases: normBackwardCases, reference: normBackwardReference },
  patchify: { cases: patchifyCases, reference: patchifyReference },
  patchify_backward: { cases: patchifyBackwardCases, reference: patchifyBackwardReference },
  pool: { cases: poolCases, reference: poolReference },
  pool_backward: { cases: poolBackwardCases, reference: poolBackwardReference },
  sample: { cases: sampleCases, reference: sampleReference },
  soft_cross_entropy: { cases: softCrossEntropyCases, reference: softCrossEntropyReference },
  square_sum: { cases: squareSumCases, reference: squareSumReference },
  sum_over_ranks: { cases: sumOverRanksCases, reference: sumOverRanksReference },
  total_over_ranks: { cases: totalOverRanksCases, reference: totalOverRanksReference },
  vision_tokens: { cases: visionTokensCases, reference: visionTokensReference },
  vision_tokens_backward: { cases: visionTokensBackwardCases, reference: visionTokensBackwardReference },
};
