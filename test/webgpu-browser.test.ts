/**
 * Every op's WebGPU kernels inside Chromium itself, on its software adapter, against the float64 references: what
 * test/webgpu-conformance.test.ts checks through Dawn in Node. Chromium compiles WGSL and checks limits by itself, so
 * a kernel that Node takes may fail here. The smallest cases of every op in float32, and in int8 and int4 where kernels
 * read matrices in ways of their own; `MATMAMBA_ALL_DTYPES=1` asks for all cases in every dtype.
 */

import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { serveFolder } from '../scripts/static-server.mjs';
import type { ModelDType } from '../src/backends/backend.ts';
import type { OpName } from '../src/ops/index.ts';
import type { BrowserConformance } from './browser/conformance.ts';
import { OP_NAMES, throwFailures, webGpuDTypesOf } from './support/check-cases.ts';
import { WEBGPU_FLAGS, describeBrowser, launchChromium } from './support/chromium.ts';
import { buildBrowserTest } from './support/web-build.ts';

/** Shaders compile slowly on a busy machine. */
const LIMIT_MS = 300_000;
const everything = process.env['MATMAMBA_ALL_DTYPES'] === '1';

/** So many of an op's cases, the smallest first. */
function mostCases(name: OpName, dtype: ModelDType): number {
  if (everything) return OPS_CASES;
  if (dtype === 'f32') return 6;
  return READ_IN_BITS.has(name) && (dtype === 'int8' || dtype === 'int4') ? 4 : 0;
}
/** More than any op has. */
const OPS_CASES = 1000;
/** The ops whose kernels read a matrix in ways of their own. */
const READ_IN_BITS = new Set<OpName>(['linear', 'embedding']);

describeBrowser('WebGPU conformance in Chromium', () => {
  let browser: Browser | undefined;
  let page: Page;
  let opened: { readonly missing: string } | { readonly ops: readonly string[]; readonly summary: string };
  const ends: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    const [folder, started] = await Promise.all([buildBrowserTest('conformance'), launchChromium(...WEBGPU_FLAGS)]);
    browser = started;
    const { url, close } = await serveFolder(folder);
    ends.push(close);
    page = await browser.newPage();
    await page.goto(url);
    await page.waitForFunction(() => globalThis.conformance);
    opened = await page.evaluate(async () => {
      const runner = (await globalThis.conformance)!;
      return 'missing' in runner ? { missing: runner.missing } : { ops: runner.ops, summary: runner.summary };
    });
    if ('missing' in opened && process.env['MATMAMBA_REQUIRE']?.split(',').includes('webgpu')) throw new Error(opened.missing);
  });
  afterAll(async () => {
    await browser?.close();
    for (const end of ends) await end();
  });

  for (const name of OP_NAMES) {
    for (const dtype of webGpuDTypesOf(name)) {
      const most = mostCases(name, dtype);
      if (most === 0) continue;
      test(
        `${name} ${dtype}`,
        async ({ skip }) => {
          if ('missing' in opened) return skip(opened.missing);
          if (!opened.ops.includes(name)) return skip('not on WebGPU');
          const reports = await page.evaluate(
            async (asked) => {
              const runner = (await globalThis.conformance) as BrowserConformance;
              return runner.run(asked.name, asked.dtype, asked.most);
            },
            { name, dtype, most },
          );
          expect(reports.length).toBeGreaterThan(0);
          throwFailures(reports);
        },
        LIMIT_MS,
      );
    }
  }
});
