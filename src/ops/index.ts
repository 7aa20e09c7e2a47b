/** All ops by name, and the lists that tests and tables are made from. */

import { addNorm } from './add-norm/op.ts';
import { chunkScan } from './chunk-scan/op.ts';
import { conv1dSilu } from './conv1d-silu/op.ts';
import { embedding } from './embedding/op.ts';
import { gatedNorm } from './gated-norm/op.ts';
import { gatedSilu } from './gated-silu/op.ts';
import { lastRows } from './last-rows/op.ts';
import { linear } from './linear/op.ts';
import { linearCrossEntropy } from './linear-cross-entropy/op.ts';
import { norm } from './norm/op.ts';
import { patchify } from './patchify/op.ts';
import { pool } from './pool/op.ts';
import { visionTokens } from './vision-tokens/op.ts';

export { addNorm, chunkScan, conv1dSilu, embedding, gatedNorm, gatedSilu, lastRows, linear, linearCrossEntropy, norm, patchify, pool, visionTokens };

export const OPS = {
  add_norm: addNorm,
  chunk_scan: chunkScan,
  conv1d_silu: conv1dSilu,
  embedding,
  gated_norm: gatedNorm,
  gated_silu: gatedSilu,
  last_rows: lastRows,
  linear,
  linear_cross_entropy: linearCrossEntropy,
  norm,
  patchify,
  pool,
  vision_tokens: visionTokens,
} as const;

export type OpName = keyof typeof OPS;
