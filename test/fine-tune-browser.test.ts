/**
 * A small model is fine-tuned in Chromium through the library as pages load it, on WebGPU and on the CPU: its losses are
 * those of the CPU backend in Node, and the files that it gives back hold what it learned.
 */

import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { serveFolder } from '../scripts/static-server.mjs';
import type * as BrowserPackage from '../src/browser/index.ts';
import { MatMambaLMHeadModel } from '../src/index.ts';
import { type FineTuneOptions, fineTune } from '../src/train/fine-tune.ts';
import { WEBGPU_FLAGS, describeBrowser, launchChromium } from './support/chromium.ts';
import { relativeError } from './support/run-case.ts';
import { buildWeb } from './support/web-build.ts';

declare global {
  // oxlint-disable-next-line no-var -- only `var` declares a property of globalThis
  var matmamba: typeof BrowserPackage | undefined;
}

const CONFIG = { dModel: 64, nLayer: 2, vocabSize: 256, ssmCfg: { dState: 16 } };
const IDS = [...new TextEncoder().encode('the sea was calm and the sky was clear. '.repeat(8))];
const PROMPT = IDS.slice(0, 8);
const OPTIONS = { steps: 5, batch: 2, length: 32, learningRate: 1e-2, seed: 2 } satisfies FineTuneOptions;
const GREEDY = { maxNewTokens: 12, temperature: 0 };
/** Float32 sums in other orders, after five updates. */
const LOSS_TOLERANCE = 1e-5;
const WEIGHT_TOLERANCE = 1e-4;

async function write(model: MatMambaLMHeadModel): Promise<number[]> {
  const written: number[] = [];
  for await (const { ids } of model.generate(PROMPT, GREEDY)) written.push(...ids);
  return written;
}

describeBrowser('fine-tuning in Chromium', () => {
  const folder = mkdtempSync(`${tmpdir()}/matmamba-fine-tune-`);
  let browser: Browser | undefined;
  let page: Page;
  let url: string;
  let close: () => Promise<void>;
  /** Scripts that the page has loaded. */
  const scripts: string[] = [];
  /** What Node's CPU makes of it. */
  let expected: {
    readonly before: number[];
    readonly losses: Record<string, number>[];
    readonly weights: Record<string, Float32Array>;
  };

  beforeAll(async () => {
    await using model = await MatMambaLMHeadModel.create(CONFIG, { threads: 1, blas: 'off', seed: 1 });
    await model.savePretrained(`${folder}/model`);
    const before = await write(model);
    const losses: Record<string, number>[] = [];
    await fineTune(model, IDS, { ...OPTIONS, onStep: (record) => void losses.push({ ...record.losses }) });
    const weights = Object.entries(model.stateDict()).map(([name, tensor]) => [name, tensor.toFloat32()]);
    expected = { before, losses, weights: Object.fromEntries(weights) as Record<string, Float32Array> };
    const [{ library }, started] = await Promise.all([buildWeb('fine-tune'), launchChromium(...WEBGPU_FLAGS)]);
    browser = started;
    cpSync(library, `${folder}/bundle`, { recursive: true });
    const script = "import * as matmamba from './bundle/browser.js'; globalThis.matmamba = matmamba;";
    writeFileSync(`${folder}/index.html`, `<!doctype html><title>fine-tuning</title><script type="module">${script}</script>`);
    ({ url, close } = await serveFolder(folder));
    page = await browser.newPage();
    page.on('request', (request) => scripts.push(new URL(request.url()).pathname));
    await page.goto(url);
    await page.waitForFunction(() => globalThis.matmamba);
  });
  afterAll(async () => {
    await browser?.close();
    await close?.();
    rmSync(folder, { recursive: true });
  });

  test.for(['webgpu', 'cpu'] as const)('on %s', { timeout: 280_000 }, async (device, { skip }) => {
    const found = await page.evaluate(
      async ({ device, ids, prompt, options, greedy }) => {
        const engine = globalThis.matmamba!.Engine.start();
        const report = (await engine.devices()).find((one) => one.device === device)!;
        if (!report.usable) return { missing: report.summary };
        const lm = await engine.languageModel('./model/', { device, ...(device === 'cpu' ? { threads: 1 } : {}) });
        const write = async (): Promise<number[]> => {
          const written: number[] = [];
          for await (const piece of lm.generate(prompt, greedy)) written.push(...piece.ids);
          return written;
        };
        const before = await write();
        const losses = [];
        for await (const record of lm.fineTune(ids, options)) losses.push(record.losses);
        const after = await write();
        let stopped = 0;
        for await (const { step } of lm.fineTune(ids, { ...options, learningRate: 0 })) if ((stopped = step) === 2) break;
        const again = await write();
        const blobs = await lm.files();
        const files: Record<string, number[]> = {};
        for (const [name, blob] of Object.entries(blobs)) files[name] = [...new Uint8Array(await blob.arrayBuffer())];
        await lm.dispose();
        const reloaded = await engine.languageModel(blobs, { device: 'cpu', threads: 1 });
        const afterReload: number[] = [];
        for await (const piece of reloaded.generate(prompt, greedy)) afterReload.push(...piece.ids);
        engine.dispose();
        return { before, losses, after, again, stopped, files, afterReload };
      },
      { device, ids: IDS, prompt: PROMPT, options: OPTIONS, greedy: GREEDY },
    );
    if ('missing' in found) {
      if (process.env['MATMAMBA_REQUIRE']?.split(',').includes('webgpu')) throw new Error(found.missing);
      return skip(found.missing);
    }
    const { before, losses, after, again, stopped, files, afterReload } = found;
    expect(before).toEqual(expected.before);
    expect(losses).toHaveLength(OPTIONS.steps);
    for (const [step, byLevel] of losses.entries()) {
      expect(Object.keys(byLevel)).toEqual(['level 1', 'level 2', 'level 4', 'level 8']);
      for (const [level, loss] of Object.entries(byLevel)) {
        expect(Math.abs(loss / expected.losses[step]![level]! - 1), `${level} of step ${step}`).toBeLessThan(LOSS_TOLERANCE);
      }
    }
    for (const level of Object.keys(losses[0]!)) expect(losses.at(-1)![level]).toBeLessThan(losses[0]![level]! - 1);
    expect(after).not.toEqual(before);
    // At a rate of 0 nothing changes, whatever step it is stopped at.
    expect(stopped).toBe(2);
    expect(again).toEqual(after);

    expect(afterReload).toEqual(after);
    const saving = `${folder}/saved-${device}`;
    mkdirSync(saving);
    for (const [name, bytes] of Object.entries(files)) writeFileSync(`${saving}/${name}`, Uint8Array.from(bytes));
    await using saved = await MatMambaLMHeadModel.fromPretrained(saving, { threads: 1, blas: 'off' });
    expect(await write(saved)).toEqual(after);
    for (const [name, tensor] of Object.entries(saved.stateDict())) {
      expect(relativeError(tensor.toFloat32(), expected.weights[name]!), name).toBeLessThan(WEIGHT_TOLERANCE);
    }
  });

  test('the example of docs/web.md teaches a text and saves the weights', { timeout: 120_000 }, async () => {
    const example = /```html\n(<!doctype html>.*?)\n```/s.exec(readFileSync('docs/web.md', 'utf8'))![1]!;
    writeFileSync(`${folder}/example.html`, example);
    const small = { ...CONFIG, vocabSize: 4096 };
    await using model = await MatMambaLMHeadModel.create(small, { threads: 1, blas: 'off', seed: 1 });
    await model.savePretrained(`${folder}/models/books-10m`);
    cpSync('models/books-10m/tokenizer.json', `${folder}/models/books-10m/tokenizer.json`);
    const plain = await launchChromium();
    try {
      const reader = await plain.newPage();
      const problems: string[] = [];
      reader.on('pageerror', (error) => problems.push(String(error)));
      await reader.goto(`${url}example.html`);
      await reader.waitForFunction(() => document.querySelector('#log')!.textContent === 'ready');
      await reader.getByRole('button', { name: 'Teach' }).click();
      await reader.waitForFunction(() => document.querySelector('#teach:not([disabled])'));
      expect(await reader.locator('#log').textContent()).toMatch(/the text has 0 tokens.*give more text/s);
      await reader
        .getByLabel('A text of some pages')
        .fill('The sea was calm, and the sky was clear, and nobody spoke. '.repeat(20));
      await reader.getByRole('button', { name: 'Teach' }).click();
      await reader.waitForSelector('#save:not([hidden])', { timeout: 90_000 });
      expect(await reader.locator('#log').textContent()).toMatch(/^step 50: loss \d\.\d+ at full width, \d\.\d+ at an eighth\n./);
      const [download] = await Promise.all([reader.waitForEvent('download'), reader.locator('#save').click()]);
      expect(download.suggestedFilename()).toBe('model.safetensors');
      expect(problems).toEqual([]);
    } finally {
      await plain.close();
    }
  });

  test('its code is loaded only by those who train', async () => {
    const fresh = await browser!.newPage();
    const asked: string[] = [];
    fresh.on('request', (request) => asked.push(new URL(request.url()).pathname));
    await fresh.goto(url);
    await fresh.waitForFunction(() => globalThis.matmamba);
    await fresh.evaluate(async () => {
      const engine = globalThis.matmamba!.Engine.start();
      const lm = await engine.languageModel('./model/', { device: 'cpu', threads: 1 });
      for await (const _ of lm.generate([1], { maxNewTokens: 1 }));
      engine.dispose();
    });
    const isTraining = (path: string): boolean => path.includes('fine-tune');
    expect(asked.some((path) => path.includes('engine.worker'))).toBe(true);
    expect(asked.filter(isTraining)).toEqual([]);
    expect(scripts.filter(isTraining)).not.toEqual([]);
  });
});
