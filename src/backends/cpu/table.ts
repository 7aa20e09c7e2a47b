/** The CPU backend's kernel for every op. */

import { addNormCpu } from '../../ops/add-norm/cpu.ts';
import { chunkScanCpu } from '../../ops/chunk-scan/cpu.ts';
import { conv1dSiluCpu } from '../../ops/conv1d-silu/cpu.ts';
import type { CpuKernel } from '../../ops/cpu-kernel.ts';
import { embeddingCpu } from '../../ops/embedding/cpu.ts';
import { gatedNormCpu } from '../../ops/gated-norm/cpu.ts';
import { gatedSiluCpu } from '../../ops/gated-silu/cpu.ts';
import type { OpName } from '../../ops/index.ts';
import { lastRowsCpu } from '../../ops/last-rows/cpu.ts';
import { linearCpu } from '../../ops/linear/cpu.ts';
import { linearCrossEntropyCpu } from '../../ops/linear-cross-entropy/cpu.ts';
import { normCpu } from '../../ops/norm/cpu.ts';
import type { KernelTable } from '../../ops/op.ts';
import { patchifyCpu } from '../../ops/patchify/cpu.ts';
import { poolCpu } from '../../ops/pool/cpu.ts';
import { visionTokensCpu } from '../../ops/vision-tokens/cpu.ts';

export const cpuKernels: KernelTable<OpName, CpuKernel> = {
  add_norm: addNormCpu,
  chunk_scan: chunkScanCpu,
  conv1d_silu: conv1dSiluCpu,
  embedding: embeddingCpu,
  gated_norm: gatedNormCpu,
  gated_silu: gatedSiluCpu,
  last_rows: lastRowsCpu,
  linear: linearCpu,
  linear_cross_entropy: linearCrossEntropyCpu,
  norm: normCpu,
  patchify: patchifyCpu,
  pool: poolCpu,
  vision_tokens: visionTokensCpu,
};
