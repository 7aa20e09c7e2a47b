/** The page in Chromium, as people use it. `MATMAMBA_SCREENSHOTS=1` also writes docs/images/page-*.png anew. */

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { IncomingMessage, ServerResponse } from 'node:http';
import sharp from 'sharp';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { serveFolder } from '../scripts/static-server.mjs';
import { WEBGPU_FLAGS, describeBrowser, launchChromium } from './support/chromium.ts';
import { buildWeb } from './support/web-build.ts';

const READY_MS = 30_000;
const images = fileURLToPath(new URL('../docs/images/', import.meta.url));

describeBrowser('the page', () => {
  let browser: Browser;
  let folder: string;
  const ends: (() => Promise<void>)[] = [];
  const problems: string[] = [];

  beforeAll(async () => {
    [{ page: folder }, browser] = await Promise.all([buildWeb('page-test'), launchChromium()]);
  });
  afterAll(() => browser?.close());
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
    expect(problems.splice(0)).toEqual([]);
  });

  async function serve(options: Parameters<typeof serveFolder>[1] = {}): Promise<string> {
    const { url, close } = await serveFolder(folder, options);
    ends.push(close);
    return url;
  }

  async function context(options: Parameters<Browser['newContext']>[0] = {}): Promise<BrowserContext> {
    const made = await browser.newContext({ viewport: { width: 1240, height: 900 }, ...options });
    ends.push(() => made.close());
    return made;
  }

  async function open(url: string, within?: BrowserContext): Promise<Page> {
    const page = await (within ?? (await context())).newPage();
    page.on('pageerror', (error) => problems.push(String(error)));
    await page.goto(url);
    return page;
  }

  const ready = (page: Page, as = 'cpu'): Promise<unknown> =>
    page.waitForSelector(`body[data-ready^="${as}"]`, { timeout: READY_MS });
  /** Waits until a pane has said all, and gives what it wrote. */
  async function written(page: Page, side = 'A'): Promise<string> {
    const pane = page.locator(`.pane.side-${side}`);
    await page.waitForFunction(
      (name) => {
        const element = document.querySelector(`.pane.side-${name}`)!;
        return element.querySelector('.words')!.textContent !== '' && !element.hasAttribute('data-writing');
      },
      side,
      { timeout: READY_MS },
    );
    return (await pane.locator('.words').textContent())!;
  }
  /** Waits until the pane's words are others. */
  async function rewritten(page: Page, before: string, side = 'A'): Promise<string> {
    await page.waitForFunction(
      ([name, old]) => document.querySelector(`.pane.side-${name} .words`)!.textContent.slice(0, 40) !== old,
      [side, before.slice(0, 40)] as const,
      { timeout: READY_MS },
    );
    return written(page, side);
  }
  const figure = (page: Page, name: string): Promise<string | null> =>
    page.locator('.figures div', { hasText: name }).locator('b').textContent();

  test('loads, writes, writes on when one types, keeps words, stops', async () => {
    const page = await open(await serve());
    await ready(page, 'cpu int8');
    const first = await written(page);
    expect(first.length).toBeGreaterThan(100);
    expect(await page.locator('.pane.side-A .pane-speed').textContent()).toMatch(/^\d+ tokens\/s$/);
    expect(await page.locator('#announce').textContent()).toMatch(/^160 tokens written/);
    const prompt = page.locator('#prompt');
    await prompt.pressSequentially(' nothing but a word of');
    const second = await rewritten(page, first);
    expect(await page.locator('.pane.side-A .lead').textContent()).toContain('a word of');
    await prompt.press('Control+Enter');
    expect(await prompt.inputValue()).toContain(second.slice(0, 60));
    await prompt.press('Escape');
    await page.waitForSelector('.pane.side-A:not([data-writing])');
  });

  test('slides: every size writes its own text; bars mix; the plot follows', async () => {
    const page = await open(await serve());
    await ready(page);
    const full = await written(page);
    expect(await figure(page, 'Parameters')).toBe('9.7 M');
    const slider = page.locator('#all-layers');
    await slider.press('Home');
    const least = await rewritten(page, full);
    expect(await slider.getAttribute('aria-valuetext')).toContain('1 of 64 heads');
    await page.getByRole('button', { name: 'Level 4, 16 heads' }).click();
    await rewritten(page, least);
    expect(await figure(page, 'Loss')).toBe('3.48');
    const bar = page.getByRole('slider', { name: 'Heads of layer 3' });
    const before = await written(page);
    for (let i = 0; i < 5; i++) await bar.press('ArrowUp');
    expect(await page.locator('.all-text').textContent()).toBe('mixed, 17 on average');
    expect(await figure(page, 'Loss')).toMatch(/^≈/);
    await rewritten(page, before);
    // Measured here once the model has nothing else to do.
    await page.waitForFunction(() => document.querySelector('.mark circle') && !document.querySelector('.mark.guessed'));
    const loss = Number(await figure(page, 'Loss'));
    expect(loss).toBeGreaterThan(3.3);
    expect(loss).toBeLessThan(3.7);
    expect(await page.locator('.plot svg').getAttribute('aria-label')).toContain(`loss ${loss.toFixed(2)}`);
    await page.getByText('Measured numbers').click();
    await page.getByRole('button', { name: 'Use level 8' }).click();
    expect(await page.locator('.all-text').textContent()).toBe('8 of 64 heads');
  });

  test('two sizes side by side, each with its own controls', async () => {
    const page = await open(await serve());
    await ready(page);
    await page.getByRole('switch', { name: 'Two sizes side by side' }).check();
    const [a, b] = await Promise.all([written(page, 'A'), written(page, 'B')]);
    expect(a).not.toBe(b);
    expect(await page.locator('.mark').count()).toBe(2);
    await page.getByRole('radio', { name: 'B', exact: true }).check({ force: true });
    expect(await page.locator('.all-text').textContent()).toBe('8 of 64 heads');
    await page.getByRole('button', { name: 'Hourglass' }).click();
    await rewritten(page, b, 'B');
    expect(await written(page, 'A')).toBe(a);
  });

  test('classifies a picture at every level, and says that the weights are random', async () => {
    const page = await open(await serve());
    await ready(page);
    expect(await page.getByRole('note').textContent()).toContain('Random weights');
    const picture = readFileSync(`${images}page-light.png`);
    await page.locator('#picture').setInputFiles({ name: 'page.png', mimeType: 'image/png', buffer: picture });
    await page.waitForSelector('.results li', { timeout: READY_MS });
    expect(await page.locator('.results li').count()).toBe(5);
    const shares = await page.locator('.results').textContent();
    await page.locator('.vision').getByRole('radio', { name: '8' }).check({ force: true });
    await page.waitForFunction((old) => document.querySelector('.results')!.textContent !== old, shares);
    expect(await page.locator('.vision [role=status]').textContent()).toMatch(/^Level 8: class \d+ in [\d.]+ ms\.$/);
    await page.locator('#picture').setInputFiles({ name: 'no.png', mimeType: 'image/png', buffer: Buffer.from('no picture') });
    await page.waitForFunction(() => document.querySelector('.vision [role=status]')!.textContent.includes('no picture'));
  });

  test('runs on what it is told to; a device that is not there says why', async () => {
    const page = await open(await serve());
    await ready(page);
    await page.locator('#dtype').selectOption('f32');
    await ready(page, 'cpu f32');
    expect((await written(page)).length).toBeGreaterThan(100);
    await page.waitForFunction(() => document.querySelector('#device-note')!.textContent.includes('thread'));
    expect(await page.getByRole('radio', { name: 'WebGPU' }).isDisabled()).toBe(true);
    expect(await page.locator('#device-note').textContent()).toMatch(/WebGPU: \S/);
  });

  test('writes on a WebGPU adapter where there is one', async ({ skip }) => {
    const other = await launchChromium(...WEBGPU_FLAGS);
    ends.push(() => other.close());
    const page = await open(await serve(), await other.newContext());
    await ready(page);
    await page.getByRole('button', { name: 'Level 8, 8 heads' }).click();
    const onCpu = await written(page);
    await page.waitForFunction(() => document.querySelector('#device-note')!.textContent.includes('thread'));
    const webgpu = page.getByRole('radio', { name: 'WebGPU' });
    if (await webgpu.isDisabled()) return skip((await page.locator('#device-note').textContent()) ?? '');
    await page.locator('#dtype').selectOption('f32');
    await webgpu.check({ force: true });
    await ready(page, 'webgpu');
    await page.waitForFunction(() => document.querySelector('.pane.side-A .words')!.textContent.length > 2, undefined, {
      timeout: READY_MS,
    });
    await page.locator('#stop').click();
    expect(onCpu).not.toBe('');
    expect(await page.locator('#problem').isHidden()).toBe(true);
  });

  test('a GPU that is lost while it writes takes no text with it; the CPU goes on, or WebGPU anew', async ({ skip }) => {
    const other = await launchChromium(...WEBGPU_FLAGS);
    ends.push(() => other.close());
    const page = await open(await serve(), await other.newContext());
    await ready(page);
    await page.getByRole('button', { name: 'Level 8, 8 heads' }).click();
    await page.waitForFunction(() => document.querySelector('#device-note')!.textContent.includes('thread'));
    const webgpu = page.getByRole('radio', { name: 'WebGPU' });
    if (await webgpu.isDisabled()) return skip((await page.locator('#device-note').textContent()) ?? '');
    // The worker's devices are kept, so that the last one can be destroyed as a driver's reset does it.
    const worker = page.workers()[0]!;
    await worker.evaluate(() => {
      const { prototype } = GPUAdapter;
      const { requestDevice } = prototype;
      prototype.requestDevice = async function (...given) {
        const device = await requestDevice.apply(this, given);
        Object.assign(globalThis, { lastDevice: device });
        return device;
      };
    });
    const lose = async (): Promise<void> => {
      const before = await page.locator('.pane.side-A .words').textContent();
      await page.waitForFunction(
        (old) => !['', old].includes(document.querySelector('.pane.side-A .words')!.textContent),
        before,
        { timeout: READY_MS },
      );
      await worker.evaluate(() => (globalThis as unknown as { lastDevice: GPUDevice }).lastDevice.destroy());
      await page.waitForSelector('#problem:not([hidden])', { timeout: READY_MS });
    };
    await page.locator('#prompt').fill('She opened the door and');
    await webgpu.check({ force: true });
    await ready(page, 'webgpu');
    await lose();
    const problem = page.locator('#problem');
    expect(await problem.textContent()).toMatch(/^WebGPU stopped working: the GPU was lost: \S.*Your text is still here/s);
    expect(await page.locator('.pane.side-A').getAttribute('aria-busy')).toBe('false');
    await page.getByRole('button', { name: 'Try WebGPU again' }).click();
    await page.waitForSelector('#problem', { state: 'hidden', timeout: READY_MS });
    await lose();
    await page.getByRole('button', { name: 'Go on on the CPU' }).click();
    await ready(page, 'cpu');
    const cpu = page.getByRole('radio', { name: 'CPU' });
    expect(await cpu.isChecked()).toBe(true);
    expect(await cpu.evaluate((element) => element === document.activeElement)).toBe(true);
    expect((await written(page)).length).toBeGreaterThan(100);
    expect(await page.locator('#prompt').inputValue()).toBe('She opened the door and');
    expect(await problem.isHidden()).toBe(true);
  });

  test('without isolation one thread does it, and the page says so', async () => {
    const page = await open(await serve({ isolated: false }));
    await ready(page);
    expect((await written(page)).length).toBeGreaterThan(100);
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(false);
    await page.waitForFunction(() => document.querySelector('#device-note')!.textContent.includes('not cross-origin isolated'));
  });

  test('a download that breaks off goes on where it stopped, and is then kept', async () => {
    const asked: { method: string | undefined; range: string | undefined }[] = [];
    let isBroken = false;
    const intercept = (request: IncomingMessage, response: ServerResponse): boolean => {
      if (!request.url?.endsWith('model.safetensors')) return false;
      asked.push({ method: request.method, range: request.headers.range });
      if (!isBroken) {
        isBroken = true;
        const whole = readFileSync(`${folder}/models/books-10m/model.safetensors`);
        // The same name for the version as the server's own answers have.
        void fetch(`http://${request.headers.host}${request.url}`, { method: 'HEAD' }).then(({ headers }) => {
          response.writeHead(200, { 'Content-Length': whole.length, ETag: headers.get('ETag')! });
          response.write(whole.subarray(0, 6_000_000), () => setTimeout(() => response.destroy(), 200));
        });
        return true;
      }
      return false;
    };
    const url = await serve({ intercept });
    const within = await context();
    const page = await open(url, within);
    await ready(page);
    await written(page);
    const gets = asked.filter(({ method }) => method === 'GET');
    expect(gets[0]!.range).toBeUndefined();
    const resumed = Number(/^bytes=(\d+)-$/.exec(gets[1]!.range ?? '')?.[1]);
    expect(resumed).toBeGreaterThan(1_000_000);
    expect(resumed).toBeLessThanOrEqual(6_000_000);
    asked.length = 0;
    const again = await open(url, within);
    await ready(again);
    await written(again);
    expect(asked.map(({ method }) => method)).toEqual(['HEAD']);
    await again.locator('#clear').click();
    await again.waitForSelector('#stored-line', { state: 'hidden' });
  });

  test('a file that changes on the server while it is fetched is fetched anew, and the page says so', async () => {
    const whole = readFileSync(`${folder}/models/books-10m/model.safetensors`);
    let gets = 0;
    let goOn = (): void => {};
    const intercept = (request: IncomingMessage, response: ServerResponse): boolean => {
      if (!request.url?.endsWith('model.safetensors') || request.method !== 'GET') return false;
      gets++;
      if (gets === 1) {
        // Another version, which breaks off.
        response.writeHead(200, { 'Content-Length': whole.length + 64, ETag: '"old"' });
        response.write(Buffer.alloc(6_000_000, 7), () => setTimeout(() => response.destroy(), 200));
        return true;
      }
      expect(request.headers['if-range']).toBe('"old"');
      response.writeHead(200, { 'Content-Length': whole.length, ETag: '"new"' });
      response.write(whole.subarray(0, 1_000_000));
      goOn = () => void response.end(whole.subarray(1_000_000));
      return true;
    };
    const page = await open(await serve({ intercept }));
    await page.waitForFunction(() => document.querySelector('#loading-text')!.textContent.includes('has changed on the server'));
    goOn();
    await ready(page);
    // Weights of two versions would write nothing of the kind.
    expect(await written(page)).toMatch(/^[\x20-\u2019\n]{100,}$/);
    expect(gets).toBe(2);
  });

  test('a file that never stays the same is given up with the reason', async () => {
    let version = 0;
    const intercept = (request: IncomingMessage, response: ServerResponse): boolean => {
      if (!request.url?.endsWith('model.safetensors')) return false;
      response.writeHead(200, { 'Content-Length': 20_000_000, ETag: `"${++version}"` });
      response.write(Buffer.alloc(5_000_000), () => setTimeout(() => response.destroy(), 100));
      return true;
    };
    const page = await open(await serve({ intercept }));
    await page.waitForSelector('#problem:not([hidden])', { timeout: READY_MS });
    expect(await page.locator('#problem').textContent()).toMatch(/model\.safetensors cannot be fetched: the file changed/);
    expect(await page.locator('#problem').textContent()).toContain('try later');
    expect(version).toBeLessThan(10);
  });

  test('a model that is not there is said to be so', async () => {
    const page = await open(`${await serve()}?model=./models/none/`);
    await page.waitForSelector('#problem:not([hidden])');
    expect(await page.locator('#problem').textContent()).toMatch(/holds no weights/);
  });

  test('everything can be reached and has a name; nothing is cut off at 360 pixels', async () => {
    const page = await open(await serve(), await context({ viewport: { width: 360, height: 740 } }));
    await ready(page);
    await written(page);
    await page.getByRole('switch', { name: 'Two sizes side by side' }).check();
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll<HTMLInputElement>('button, input, select, textarea, a, [role=img], [role=region]')]
        .filter((element) => {
          const label = element.labels?.[0]?.textContent ?? '';
          return `${element.getAttribute('aria-label') ?? ''}${label}${element.textContent}`.trim() === '';
        })
        .map((element) => element.outerHTML.slice(0, 120)),
    );
    expect(nameless).toEqual([]);
    // From the top, the tabulator key comes by every kind of control in the order in which they are read.
    const seen: string[] = [];
    await page.locator('.skip').focus();
    for (let i = 0; i < 30; i++) {
      seen.push(
        await page.evaluate(
          () => document.activeElement!.id || document.activeElement!.className || document.activeElement!.tagName,
        ),
      );
      await page.keyboard.press('Tab');
    }
    const order = ['skip', 'dtype', 'theme', 'compare', 'prompt', 'again', 'stop', 'keep', 'all-layers'];
    expect(seen.filter((name) => order.includes(name)).slice(0, order.length)).toEqual(order);
  });

  test.runIf(process.env['MATMAMBA_SCREENSHOTS'])('has its picture taken', async () => {
    const url = await serve();
    for (const [name, width, height, colorScheme] of [
      ['light', 1240, 1110, 'light'],
      ['dark', 1240, 1110, 'dark'],
      ['narrow', 360, 780, 'light'],
    ] as const) {
      const page = await open(url, await context({ viewport: { width, height }, colorScheme }));
      await ready(page);
      await written(page);
      if (name === 'dark') {
        await page.getByRole('switch', { name: 'Two sizes side by side' }).check();
        await page.getByRole('radio', { name: 'B', exact: true }).check({ force: true });
        await page.getByRole('button', { name: 'Hourglass' }).click();
        await page.waitForTimeout(1500);
        await Promise.all([written(page, 'A'), written(page, 'B')]);
        await page.waitForFunction(() => !document.querySelector('.mark.guessed'));
      }
      await page.waitForTimeout(1500);
      const picture = await page.screenshot({ animations: 'disabled' });
      await sharp(picture)
        .png({ palette: true, colours: 16, dither: 0.2, effort: 10, compressionLevel: 9 })
        .toFile(`${images}page-${name}.png`);
    }
  });
});
