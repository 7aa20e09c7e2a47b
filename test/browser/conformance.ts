/**
 * The conformance cases on the WebGPU of the browser that this page is open in. The test that opens it (see
 * test/webgpu-browser.test.ts) asks for one op in one dtype at a time through `globalThis.conformance`.
 */

import { openWebGpu } from '../../src/backends/webgpu/webgpu-backend.ts';
import { messageOf } from '../../src/errors.ts';
import { type CaseReport, OP_NAMES, reportWebGpuCases } from '../support/check-cases.ts';
import type { ModelDType } from '../../src/backends/backend.ts';
import type { OpName } from '../../src/ops/index.ts';

export interface BrowserConformance {
  readonly summary: string;
  /** Ops that WebGPU runs. */
  readonly ops: readonly OpName[];
  /** Runs cases of an op, the smallest first, `most` of them. */
  run(name: OpName, dtype: ModelDType, most: number): Promise<readonly CaseReport[]>;
}

declare global {
  // oxlint-disable-next-line no-var -- only `var` declares a property of globalThis
  var conformance: Promise<BrowserConformance | { readonly missing: string }> | undefined;
}

async function open(): Promise<BrowserConformance | { readonly missing: string }> {
  const backend = await openWebGpu().catch(messageOf);
  if (typeof backend === 'string') return { missing: backend };
  const { summary, unsupported } = backend.capabilities();
  return {
    summary,
    ops: OP_NAMES.filter((name) => !(name in unsupported)),
    run: (name, dtype, most) => reportWebGpuCases(backend, name, dtype, most),
  };
}

globalThis.conformance = open();
