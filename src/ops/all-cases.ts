/** Every op's cases and float64 reference: what conformance tests, op benchmarks and docs/ops.md walk through. */

import { addNormCases } from './add-norm/cases.ts';
import { addNormReference } from './add-norm/reference.ts';
import type { OpCase, Reference } from './cases.ts';
import { chunkScanCases } from './chunk-scan/cases.ts';
import { chunkScanReference } from './chunk-scan/reference.ts';
import { conv1dSiluCases } from './conv1d-silu/cases.ts';
import { conv1dSiluReference } from './conv1d-silu/reference.ts';
import { embeddingCases } from './embedding/cases.ts';
import { embeddingReference } from './embedding/reference.ts';
import { gatedNormCases } from './gated-norm/cases.ts';
import { gatedNormReference } from './gated-norm/reference.ts';
import { gatedSiluCases } from './gated-silu/cases.ts';
import { gatedSiluReference } from './gated-silu/reference.ts';
import type { OpName } from './index.ts';
import { lastRowsCases } from './last-rows/cases.ts';
import { lastRowsReference } from './last-rows/reference.ts';
import { linearCases } from './linear/cases.ts';
import { linearReference } from './linear/reference.ts';
import { linearCrossEntropyCases } from './linear-cross-entropy/cases.ts';
import { linearCrossEntropyReference } from './linear-cross-entropy/reference.ts';
import { normCases } from './norm/cases.ts';
import { normReference } from './norm/reference.ts';
import { patchifyCases } from './patchify/cases.ts';
import { patchifyReference } from './patchify/reference.ts';
import { poolCases } from './pool/cases.ts';
import { poolReference } from './pool/reference.ts';
import { visionTokensCases } from './vision-tokens/cases.ts';
import { visionTokensReference } from './vision-tokens/reference.ts';

export const CONFORMANCE: Readonly<Record<OpName, { readonly cases: readonly OpCase[]; readonly reference: Reference }>> = {
  add_norm: { cases: addNormCases, reference: addNormReference },
  chunk_scan: { cases: chunkScanCases, reference: chunkScanReference },
  conv1d_silu: { cases: conv1dSiluCases, reference: conv1dSiluReference },
  embedding: { cases: embeddingCases, reference: embeddingReference },
  gated_norm: { cases: gatedNormCases, reference: gatedNormReference },
  gated_silu: { cases: gatedSiluCases, reference: gatedSiluReference },
  last_rows: { cases: lastRowsCases, reference: lastRowsReference },
  linear: { cases: linearCases, reference: linearReference },
  linear_cross_entropy: { cases: linearCrossEntropyCases, reference: linearCrossEntropyReference },
  norm: { cases: normCases, reference: normReference },
  patchify: { cases: patchifyCases, reference: patchifyReference },
  pool: { cases: poolCases, reference: poolReference },
  vision_tokens: { cases: visionTokensCases, reference: visionTokensReference },
};
