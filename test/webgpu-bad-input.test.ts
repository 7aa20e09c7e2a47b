/** What people meet where WebGPU is missing, too small or lost: errors with a code and the next step. */

import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { acquireBackend } from '../src/backends/open.ts';
import type { WebGpuOptions } from '../src/backends/webgpu/gpu.ts';
import { openWebGpu } from '../src/backends/webgpu/webgpu-backend.ts';
import type { WebGpuBackend } from '../src/backends/webgpu/webgpu-backend.ts';
import { MatMamba2, MatMamba2Vision, MatMambaLMHeadModel, tensor } from '../src/index.ts';
import { runScript } from './support/built.ts';
import { openTestWebGpu } from './support/webgpu-device.ts';

/** What the next devices are opened with; models themselves have no such option. */
let limits: WebGpuOptions = {};
vi.mock('../src/backends/webgpu/gpu.ts', async (original) => {
  const real = await original<typeof import('../src/backends/webgpu/gpu.ts')>();
  return { ...real, openGpu: (options: WebGpuOptions) => real.openGpu({ ...options, ...limits }) };
});

const { backend, reason } = await openTestWebGpu();
await backend?.dispose();
const title = (what: string): string => (backend ? what : `${what}: ${reason}`);

describe('without a device', () => {
  afterEach(() => void vi.unstubAllGlobals());

  const adapter = {
    info: {},
    features: new Set<string>(),
    limits: {},
    requestDevice: async () => Promise.reject(new TypeError('limit exceeded')),
  };
  test.each([
    ['no adapter is offered', async () => null, /no WebGPU adapter was offered/],
    ['the adapter cannot be asked for', async () => Promise.reject(new Error('blocked')), /no WebGPU adapter: blocked/],
    ['the adapter gives no device', async () => adapter, /gave no device: limit exceeded/],
  ])('%s', async (_, requestAdapter, message) => {
    vi.stubGlobal('navigator', { gpu: { requestAdapter } });
    const opening = openWebGpu();
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toMatchObject({
      name: 'MatMambaError',
      code: 'DEVICE',
      hint: expect.stringContaining("device 'cpu'"),
    });
  });

  test('a model says so, and the next device is asked for anew', async () => {
    const requestAdapter = vi.fn(async () => null);
    vi.stubGlobal('navigator', { gpu: { requestAdapter } });
    const create = (): Promise<unknown> => MatMambaLMHeadModel.create({ dModel: 32, nLayer: 1 }, { device: 'webgpu' });
    await expect(create()).rejects.toMatchObject({ code: 'DEVICE' });
    await expect(create()).rejects.toMatchObject({ code: 'DEVICE' });
    expect(requestAdapter).toHaveBeenCalledTimes(2);
  });

  test.skipIf(!backend)('so does a process whose drivers are none', async () => {
    const script = `
      import { create } from 'webgpu';
      const adapter = await create([]).requestAdapter();
      console.log(adapter === null ? 'none' : 'one');`;
    const { stdout } = await runScript(script, 30_000, [], { VK_ICD_FILENAMES: '/dev/null' });
    expect(stdout.trim()).toBe('none');
  });
});

describe.skipIf(!backend)(title('an adapter whose buffers are small'), () => {
  const KILOBYTE = 1024;
  const opened: { dispose(): Promise<void> }[] = [];
  afterEach(async () => {
    for (const model of opened.splice(0)) await model.dispose();
    limits = {};
  });

  test('names the limit and the widest granularity that fits, and that one runs', async () => {
    limits = { bufferLimitBytes: 96 * KILOBYTE };
    const config = { dModel: 256, nLayer: 2, vocabSize: 64, ssmCfg: { dState: 16 } };
    const lm = await MatMambaLMHeadModel.create(config, { device: 'webgpu', seed: 0 });
    opened.push(lm);
    const ids = tensor(new Int32Array(16), [1, 16]);
    const failed = await lm.forward(ids).catch((error: unknown) => error as Error & { hint: string });
    expect(failed).toMatchObject({ name: 'MatMambaError', code: 'MEMORY' });
    const { message, hint } = failed as Error & { hint: string };
    expect(message).toMatch(/activations: 0\.\d MiB are needed in one buffer, this adapter allows 0\.1 MiB \(bufferLimitBytes\)/);
    const [, dims, level] = /^mixnmatchDims: (\d+) \(mrlLevel: (\d)\) would fit/.exec(hint)!;
    expect(256 / Number(level)).toBeLessThanOrEqual(Number(dims));
    const { logits } = await lm.forward(ids, { mixnmatchDims: Number(dims) });
    expect(logits.toFloat32().every(Number.isFinite)).toBe(true);
    await expect(lm.forward(ids, { mixnmatchDims: [256, Number(dims) + 4] })).rejects.toMatchObject({ code: 'MEMORY' });
    await lm.forward(ids, { mrlLevel: Number(level) });
    await expect(lm.forward(tensor(new Int32Array(512), [1, 512]))).rejects.toMatchObject({
      code: 'MEMORY',
      hint: 'no granularity makes it small enough: use a smaller batch or a shorter input',
    });
  });

  test('block and vision model say it, too', async () => {
    limits = { bufferLimitBytes: 64 * KILOBYTE };
    const block = await MatMamba2.create({ dModel: 256, dState: 16 }, { device: 'webgpu', seed: 0 });
    opened.push(block);
    await expect(block.forward(tensor(new Float32Array(16 * 256), [1, 16, 256]))).rejects.toMatchObject({
      code: 'MEMORY',
      hint: expect.stringMatching(/^mixnmatchDims: \d+ .*would fit/),
    });
    const shape = { dModel: 256, nLayer: 1, imageSize: 32, patchSize: 8, nClasses: 4, ssmCfg: { dState: 16 } };
    const vision = await MatMamba2Vision.create(shape, { device: 'webgpu', seed: 0 });
    opened.push(vision);
    await expect(vision.forward(tensor(new Float32Array(3 * 32 * 32), [1, 3, 32, 32]))).rejects.toMatchObject({
      code: 'MEMORY',
      hint: expect.stringMatching(/^mixnmatchDims: \d+ .*would fit/),
    });
  });
});

describe.skipIf(!backend)(title('a device that is lost while a model writes'), () => {
  const CONFIG = { dModel: 64, nLayer: 2, vocabSize: 96, ssmCfg: { dState: 16 } };
  const create = (): Promise<MatMambaLMHeadModel> => MatMambaLMHeadModel.create(CONFIG, { device: 'webgpu', seed: 4 });
  const options = { maxNewTokens: 12, temperature: 0 };
  let lm: MatMambaLMHeadModel;
  let whole: number[];

  async function write(model: MatMambaLMHeadModel, onPiece: (made: number) => void = () => {}): Promise<number[]> {
    const written: number[] = [];
    for await (const { ids } of model.generate([1, 2, 3], options)) {
      written.push(...ids);
      onPiece(written.length);
    }
    return written;
  }
  /** The device that models share, destroyed as a driver's reset does it. */
  async function lose(): Promise<void> {
    const { backend: shared, release } = await acquireBackend({ device: 'webgpu' });
    (shared as WebGpuBackend).device.gpu.destroy();
    await (shared as WebGpuBackend).device.gpu.lost;
    await release();
  }

  beforeEach(async () => {
    lm = await create();
    whole = await write(lm);
  });
  afterAll(() => lm?.dispose());

  test('ends the text with an error that says how to go on; a model that is loaded again writes the same', async () => {
    let made = 0;
    const running = write(lm, (count) => {
      made = count;
      if (count === 4) void lose();
    });
    await expect(running).rejects.toMatchObject({ code: 'DEVICE', hint: 'load the model again' });
    expect(made).toBeGreaterThanOrEqual(4);
    expect(made).toBeLessThan(12);
    await expect(write(lm)).rejects.toMatchObject({ code: 'DEVICE' });
    await lm.dispose();
    lm = await create();
    expect(await write(lm)).toEqual(whole);
  });

  test('fails all texts that run beside each other, and disposal still ends', async () => {
    const other = await create();
    const texts = [write(lm, (count) => void (count === 2 && lose())), write(other)];
    for (const result of await Promise.allSettled(texts)) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'DEVICE' } });
    }
    await Promise.all([lm.dispose(), other.dispose()]);
  });
});
