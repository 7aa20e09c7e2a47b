/** The command line end to end: every command is spawned from dist on tiny models, as a user's shell would. */

import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MatMambaLMHeadModel, tensor } from 'matmamba';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TOKEN_FILE_MAGIC } from '../data/token-file.ts';
import { dequantise, quantiseInt4 } from '../tensor/int4.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const main = join(root, 'dist/cli/main.js');
const goldenLm = join(root, 'test/golden/lm');
const goldenVision = join(root, 'test/golden/vision');
const folder = mkdtempSync(join(tmpdir(), 'matmamba-cli-'));
const tiny = join(folder, 'tiny');
const tokens = join(folder, 'tokens.bin');

interface Result {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function start(args: readonly string[], environment: NodeJS.ProcessEnv = {}): { child: ChildProcess; done: Promise<Result> } {
  const env = {
    ...process.env,
    MATMAMBA_THREADS: '1',
    MATMAMBA_BLAS: 'off',
    MATMAMBA_DEBUG: '',
    HF_HUB_OFFLINE: '1',
    ...environment,
  };
  const child = spawn(process.execPath, [main, ...args], { env, stdio: 'pipe', cwd: folder });
  let [out, err] = ['', ''];
  child.stdout.on('data', (part: Buffer) => (out += part.toString()));
  child.stderr.on('data', (part: Buffer) => (err += part.toString()));
  const done = new Promise<Result>((resolve) => {
    child.on('close', (code) => resolve({ code, out, err }));
  });
  return { child, done };
}

/** Runs a command line to its end; `input` is what is piped in. */
async function matmamba(args: readonly string[], input = '', environment: NodeJS.ProcessEnv = {}): Promise<Result> {
  const { child, done } = start(args, environment);
  child.stdin!.on('error', () => {});
  child.stdin!.end(input);
  return done;
}

/** The JSON objects of a run that went well. */
async function json<T = Record<string, unknown>>(...args: string[]): Promise<T[]> {
  const { code, out, err } = await matmamba([...args, '--json']);
  expect(code, err).toBe(0);
  return out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as T);
}

function newest(path: string): number {
  return Math.max(
    ...readdirSync(path, { recursive: true, withFileTypes: true }).map((entry) =>
      entry.isFile() && /\.[jt]s$/.test(entry.name) && !entry.name.includes('.test.')
        ? statSync(join(entry.parentPath, entry.name)).mtimeMs
        : 0,
    ),
  );
}

function writeTokens(
  path: string,
  ids: readonly number[],
  header: Partial<Record<'magic' | 'version' | 'count', number>> = {},
): void {
  const bytes = Buffer.alloc(1024 + 2 * ids.length);
  bytes.writeInt32LE(header.magic ?? TOKEN_FILE_MAGIC, 0);
  bytes.writeInt32LE(header.version ?? 1, 4);
  bytes.writeInt32LE(header.count ?? ids.length, 8);
  ids.forEach((id, i) => bytes.writeUInt16LE(id, 1024 + 2 * i));
  writeFileSync(path, bytes);
}

beforeAll(async () => {
  if (!existsSync(main) || newest(join(root, 'dist/cli')) < newest(join(root, 'src/cli'))) {
    throw new Error('dist is missing or older than src: build first (npm run build)');
  }
  // A model small enough to make in a moment, with a tokenizer.
  const config = { d_model: 32, n_layer: 2, vocab_size: 478, ssm_cfg: { d_state: 16 } };
  writeFileSync(join(folder, 'tiny.json'), JSON.stringify(config));
  const { code, err } = await matmamba(['init', '--config', 'tiny.json', '--out', tiny, '--seed', '3']);
  if (code !== 0) throw new Error(err);
  cpSync(join(root, 'src/text/fixtures/byte-level.json'), join(tiny, 'tokenizer.json'));
  writeTokens(
    tokens,
    Array.from({ length: 101 }, (_, i) => (37 * i) % 203),
  );
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe('matmamba', () => {
  test('shows help and version', async () => {
    const [bare, version, page, other] = await Promise.all(
      [[], ['--version'], ['generate', '--help'], ['help', 'eval']].map((args) => matmamba(args)),
    );
    expect(bare).toMatchObject({ code: 0, err: '' });
    for (const command of ['generate', 'eval', 'classify', 'info', 'init', 'convert', 'bench'])
      expect(bare!.out).toContain(`\n  ${command} `);
    expect(version).toMatchObject({
      code: 0,
      out: `${(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version}\n`,
    });
    expect(page!.out).toMatch(/USAGE[^]*--temperature X[^]*default 0\.8[^]*EXAMPLES/);
    expect(other!.out).toContain('matmamba eval <TOKENS> [options]');
  });

  test.each([
    [['genrate'], /no command 'genrate'\n {2}did you mean 'generate'\?/],
    [['generate', '--temprature', '1'], /no option --temprature\n {2}did you mean --temperature\?/],
    [['generate', '--dtype', 'int9'], /did you mean 'int8'\?/],
    [['generate', '--temperature', '-1'], /--temperature is "-1": expected a number of at least 0/],
    [['generate', 'x', '--max-tokens'], /--max-tokens needs a value/],
    [['generate', 'x', '--level', '2', '--dims', '8'], /both given/],
    [['eval'], /TOKENS is missing/],
    [['init', '--preset', 'lm-130m'], /--out is missing/],
    [['convert', 'a', 'b', 'c'], /one argument too many: 'c'/],
    [['info', '--level', '1'], /no option --level/],
  ])('%j is wrong usage', async (args, message) => {
    const { code, out, err } = await matmamba(args);
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).toMatch(message);
    expect(err).toMatch(/see: matmamba .*--help/);
  });

  test('prints errors of the library with code and hint, a stack only when asked', async () => {
    const missing = ['eval', 'no-such.bin', '--model', tiny];
    const [plain, debug] = await Promise.all([matmamba(missing), matmamba(missing, '', { MATMAMBA_DEBUG: '1' })]);
    expect(plain).toMatchObject({ code: 1, out: '', err: 'error FILE: there is no file no-such.bin\n' });
    expect(debug.err).toMatch(/\n {4}at /);
    const threads = await matmamba(['info'], '', { MATMAMBA_THREADS: 'many' });
    expect(threads).toMatchObject({ code: 2, err: expect.stringContaining("MATMAMBA_THREADS is 'many'") as string });
  });
});

describe('generate', () => {
  test('prints the prompt and its continuation, the speed on standard error', async () => {
    const args = ['generate', 'The cat', '--model', tiny, '--max-tokens', '6', '--seed', '5'];
    const [first, again] = await Promise.all([matmamba(args), matmamba(args)]);
    expect(first.code, first.err).toBe(0);
    expect(first.out).toMatch(/^The cat[^]+\n$/);
    expect(first.out).toBe(again.out);
    expect(first.err).toMatch(/^\[prompt \d+ tokens at .*decode 5 tokens.*level 1 \(32 dims\), f32, 1 thread\]\n$/);
  });

  test('reads the prompt from a pipe and runs at any width', async () => {
    const { code, out, err } = await matmamba(
      ['generate', '--model', tiny, '--dims', '32,8', '--max-tokens', '2', '--dtype', 'int8'],
      'Once\n',
    );
    expect(code, err).toBe(0);
    expect(out.startsWith('Once')).toBe(true);
    expect(err).toMatch(/mix of 8 to 32 dims, int8/);
    expect(await matmamba(['generate', '-', '--model', tiny])).toMatchObject({ code: 2, out: '' });
  });

  test('--json prints pieces and a summary; --profile where the time went', async () => {
    const objects = await json(
      'generate',
      'The',
      '--model',
      tiny,
      '--max-tokens',
      '4',
      '--temperature',
      '0',
      '--profile',
      '--level',
      '4',
    );
    const done = objects.find((object) => object['done'] === true)!;
    const pieces = objects.filter((object) => 'ids' in object);
    expect(done).toMatchObject({ finishReason: 'length', prompt: 'The', tokens: 4, dims: [8, 8], dtype: 'f32', threads: 1 });
    expect(pieces.map(({ text }) => text).join('')).toBe(done['text']);
    expect(pieces.flatMap(({ ids }) => ids as number[])).toHaveLength(4);
    expect(objects.filter((object) => 'profile' in object).map(({ profile }) => profile)).toEqual(['prefill', 'decode']);
  });

  test('stops at Ctrl-C with code 130, and quietly when nobody reads', async () => {
    const endless = ['generate', 'The', '--model', tiny, '--max-tokens', '1000000', '--ignore-end'];
    for (const [signal, code] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
    ] as const) {
      const { child, done } = start(endless);
      child.stdin!.end();
      await new Promise((resolve) => child.stdout!.once('data', () => setTimeout(resolve, 150)));
      child.kill(signal);
      const result = await done;
      expect(result.code).toBe(code);
      expect(result.err).toMatch(/^\[prompt/);
    }
    const { child, done } = start(endless);
    child.stdin!.end();
    child.stdout!.once('data', () => child.stdout!.destroy());
    expect(await done).toMatchObject({ code: 0, err: '' });
  });

  test('says what a model cannot do', async () => {
    const [vision, wordless, width] = await Promise.all([
      matmamba(['generate', 'x', '--model', goldenVision]),
      matmamba(['generate', 'x', '--model', goldenLm]),
      matmamba(['generate', 'x', '--model', tiny, '--level', '3']),
    ]);
    expect(vision).toMatchObject({ code: 1, err: expect.stringContaining('is a vision model, not a language model') as string });
    expect(wordless).toMatchObject({ code: 1, err: expect.stringMatching(/^error TOKEN: [^]*--tokenizer/) as string });
    expect(width).toMatchObject({ code: 1, err: expect.stringMatching(/^error WIDTH: /) as string });
  });
});

describe('eval', () => {
  test('is the mean loss of the windows, as the library has it', async () => {
    const rows = await json<{ granularity: number[]; level?: number; loss: number }>(
      'eval',
      tokens,
      '--model',
      goldenLm,
      '--level',
      '1,4',
      '--dims',
      '128,40,8',
      '--windows',
      '4',
      '--length',
      '25',
    );
    await using lm = await MatMambaLMHeadModel.fromPretrained(goldenLm, { threads: 1, blas: 'off' });
    const all = Int32Array.from({ length: 101 }, (_, i) => (37 * i) % 203);
    for (const [i, mixnmatchDims] of [128, 32, [128, 40, 8]].entries()) {
      const from = (start: number): Int32Array => all.subarray(start, start + 100);
      const ids = tensor(from(0), [4, 25]);
      const targets = tensor(from(1), [4, 25]);
      const losses = (await lm.loss(ids, targets, { mixnmatchDims })).array as Float32Array;
      expect(rows[i]!.loss).toBeCloseTo(losses.reduce((sum, loss) => sum + loss, 0) / 100, 5);
    }
    expect(rows.map(({ granularity, level }) => [granularity, level])).toEqual([
      [[128, 128, 128], 1],
      [[32, 32, 32], 4],
      [[128, 40, 8], undefined],
    ]);
  });

  test('prints a table', async () => {
    const { code, out } = await matmamba(['eval', tokens, '--model', goldenLm, '--windows', '1', '--length', '16']);
    expect(code).toBe(0);
    expect(out).toMatch(/^width +loss +per byte +perplexity +time +tokens\/s\nlevel 1 \(128 dims\) +\d\.\d{6} /);
  });

  test('refuses files that do not fit', async () => {
    const [magic, cut, large] = ['magic.bin', 'cut.bin', 'large.bin'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    writeTokens(magic, [1, 2, 3], { magic: 7 });
    writeTokens(cut, [1, 2, 3], { count: 9 });
    writeTokens(large, [1, 2, 300, 4]);
    const evaluate = (path: string): Promise<Result> =>
      matmamba(['eval', path, '--model', goldenLm, '--windows', '1', '--length', '3']);
    const [first, second, third, few] = await Promise.all([
      evaluate(magic),
      evaluate(cut),
      evaluate(large),
      matmamba(['eval', tokens, '--model', goldenLm]),
    ]);
    expect(first).toMatchObject({ code: 1, err: expect.stringContaining('its magic number is 7') as string });
    expect(second).toMatchObject({ code: 1, err: expect.stringContaining('9 tokens, the file holds 3') as string });
    expect(third).toMatchObject({ code: 1, err: expect.stringContaining('token 300 at position 2') as string });
    expect(few).toMatchObject({
      code: 1,
      err: expect.stringContaining('holds 101 tokens; 32 windows of 1024 need 32769') as string,
    });
  });
});

describe('classify', () => {
  test('names the likeliest classes, and goes on after a bad image', async () => {
    const good = join(folder, 'good.png');
    const bad = join(folder, 'bad.png');
    await sharp({ create: { width: 50, height: 40, channels: 4, background: { r: 200, g: 30, b: 90, alpha: 0.5 } } })
      .png()
      .toFile(good);
    writeFileSync(bad, readFileSync(good).subarray(0, 60));
    writeFileSync(join(folder, 'labels.txt'), Array.from({ length: 10 }, (_, i) => `thing ${i}`).join('\n'));
    const args = ['classify', good, '--model', goldenVision, '--top', '3', '--labels', 'labels.txt', '--level', '2'];
    const [only] = await json<{ image: string; top: { class: number; label: string; probability: number }[] }>(...args);
    expect(only!.image).toBe(good);
    expect(only!.top).toHaveLength(3);
    for (const { class: index, label } of only!.top) expect(label).toBe(`thing ${index}`);
    expect(only!.top[0]!.probability).toBeGreaterThanOrEqual(only!.top[1]!.probability);
    const [mixed, single] = await Promise.all([
      matmamba(['classify', bad, good, '--model', goldenVision, '--json']),
      matmamba(['classify', bad, '--model', goldenVision]),
    ]);
    expect(mixed.code).toBe(1);
    expect(
      mixed.out
        .trim()
        .split('\n')
        .map((line) => Object.keys(JSON.parse(line) as object)),
    ).toEqual([
      ['image', 'error'],
      ['image', 'top'],
    ]);
    expect(single).toMatchObject({
      code: 1,
      out: '',
      err: expect.stringMatching(/^error FORMAT: .*bad\.png cannot be decoded/) as string,
    });
  });
});

describe('info', () => {
  test('tells of the machine', async () => {
    const [machine] = await json('info');
    expect(machine).toMatchObject({ node: process.version, device: 'cpu', threads: 1, facts: { BLAS: 'off' } });
    expect(machine).toHaveProperty('memoryLimitBytes');
  });

  test('counts a model from its shapes', async () => {
    const [preset] = await json<{ sizes: { level: number; parameters: number }[] }>('info', 'lm-130m');
    expect(preset!.sizes.map(({ level }) => level)).toEqual([1, 2, 4, 8]);
    expect(preset!.sizes[0]!.parameters).toBe(129_723_648);
    const [own] = await json<{ kind: string; sizes: { parameters: number; bytes: { f32: number } }[] }>(
      'info',
      tiny,
      '--dims',
      '32,8',
    );
    expect(own!.kind).toBe('language');
    await using lm = await MatMambaLMHeadModel.fromPretrained(tiny, { threads: 1, blas: 'off' });
    expect(own!.sizes[0]!.parameters).toBe(lm.parameterCount);
    expect(own!.sizes.at(-1)!.parameters).toBeLessThan(lm.parameterCount);
    const { code, out } = await matmamba(['info', goldenVision]);
    expect(code).toBe(0);
    expect(out).toContain('vision model');
  });

  test('fetches no more of a hub model than its config', async () => {
    const asked: string[] = [];
    const server = createServer(({ url = '' }, response) => {
      asked.push(url);
      const known = url === '/me/tiny/resolve/main/config.json';
      response.writeHead(known ? 200 : 404).end(known ? readFileSync(join(tiny, 'config.json')) : '{}');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = server.address() as AddressInfo;
      const { code, out, err } = await matmamba(['info', 'me/tiny'], '', {
        HF_HUB_OFFLINE: '',
        HF_TOKEN: '',
        HF_ENDPOINT: `http://127.0.0.1:${port}`,
      });
      expect(code, err).toBe(0);
      expect(out).toMatch(/2 layers, d_model 32/);
      expect(asked).toEqual(['/me/tiny/resolve/main/config.json']);
    } finally {
      server.close();
    }
  });
});

describe('init and convert', () => {
  test('init writes what create makes of the same seed, and overwrites nothing', async () => {
    await using written = await MatMambaLMHeadModel.fromPretrained(tiny, { threads: 1, blas: 'off' });
    await using made = await MatMambaLMHeadModel.create(
      { dModel: 32, nLayer: 2, vocabSize: 478, ssmCfg: { dState: 16 } },
      { seed: 3, threads: 1, blas: 'off' },
    );
    const expected = made.stateDict();
    for (const [name, value] of Object.entries(written.stateDict())) expect(value.array, name).toEqual(expected[name]!.array);
    expect(await matmamba(['init', '--config', 'tiny.json', '--out', tiny])).toMatchObject({
      code: 1,
      err: expect.stringContaining('--force') as string,
    });
  });

  test('convert goes there and back through both formats and a trainer file', async () => {
    const [torch, back, int8, pt] = ['torch', 'back', 'int8', 'pt'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
      string,
    ];
    const [report] = await json('convert', tiny, torch, '--format', 'pytorch');
    expect(report).toMatchObject({ kind: 'language', dtype: 'f32', format: 'pytorch' });
    expect(readdirSync(torch).sort()).toEqual(['config.json', 'pytorch_model.bin', 'tokenizer.json']);
    await json('convert', torch, back);
    expect(readFileSync(join(back, 'model.safetensors')).equals(readFileSync(join(tiny, 'model.safetensors')))).toBe(true);
    // Weights by themselves need to be told their shape.
    mkdirSync(pt);
    cpSync(join(torch, 'pytorch_model.bin'), join(pt, 'ckpt.pt'));
    const alone = join(pt, 'ckpt.pt');
    expect(await matmamba(['convert', alone, join(folder, 'none')])).toMatchObject({
      code: 1,
      err: expect.stringContaining('--preset') as string,
    });
    await json('convert', alone, join(folder, 'from-pt'), '--config', 'tiny.json', '--dtype', 'bf16');
    await json('convert', tiny, int8, '--dtype', 'int8');
    await using small = await MatMambaLMHeadModel.fromPretrained(int8, { dtype: 'int8', threads: 1, blas: 'off' });
    await using direct = await MatMambaLMHeadModel.fromPretrained(tiny, { dtype: 'int8', threads: 1, blas: 'off' });
    const expected = direct.stateDict();
    for (const [name, value] of Object.entries(small.stateDict())) expect(value.array, name).toEqual(expected[name]!.array);
    for (const dtype of ['int8', 'int4']) {
      const wrong = await matmamba(['convert', tiny, join(folder, 'never'), '--format', 'pytorch', '--dtype', dtype]);
      expect(wrong.code).toBe(2);
    }
    expect(existsSync(join(folder, 'never'))).toBe(false);
  });

  test('convert to int4 packs what it rounds; from there nothing is lost', async () => {
    const [packed, again, wide] = ['int4', 'int4-again', 'from-int4'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    const [report] = await json('convert', tiny, packed, '--dtype', 'int4');
    expect(report).toMatchObject({ dtype: 'int4' });
    expect(await json('convert', packed, again)).toMatchObject([{ dtype: 'int4' }]);
    expect(readFileSync(join(again, 'model.safetensors')).equals(readFileSync(join(packed, 'model.safetensors')))).toBe(true);
    await json('convert', packed, wide, '--dtype', 'f32');
    const load = (model: string) => MatMambaLMHeadModel.fromPretrained(model, { threads: 1, blas: 'off' });
    await using source = await load(tiny);
    await using direct = await load(packed);
    await using through = await load(wide);
    for (const [name, value] of Object.entries(source.stateDict())) {
      const got = direct.stateDict()[name]!.toFloat32();
      expect(through.stateDict()[name]!.toFloat32(), name).toEqual(got);
      if (!/(_proj|embedding|lm_head|fc1|fc2)\.weight$/.test(name)) expect(got, name).toEqual(value.toFloat32());
      else {
        const floats = value.toFloat32();
        const columns = value.shape[1]!;
        const { values, scales } = quantiseInt4(floats, columns);
        expect(got, name).toEqual(dequantise(values, scales, columns, 32, columns / 32));
      }
    }
  });

  test('convert takes a vision model', async () => {
    const out = join(folder, 'vision');
    const [report] = await json('convert', goldenVision, out, '--dtype', 'bf16');
    expect(report).toMatchObject({ kind: 'vision', dtype: 'bf16' });
  });
});

describe('bench', () => {
  test('measures a model and its products', async () => {
    const args = ['--model', tiny, '--prompt', '16', '--tokens', '2', '--threads', '1', '--blas', 'off'];
    const [machine, ...results] = await json('bench', 'cpu', '--quick', '--dtype', 'f32,int8', '--level', '1', ...args);
    expect(machine).toMatchObject({ kind: 'machine', node: process.version });
    expect(results.map(({ kind, dtype }) => `${String(dtype)} ${String(kind)}`)).toEqual([
      'f32 model',
      'f32 matrix',
      'f32 vector',
      'int8 model',
      'int8 matrix',
      'int8 vector',
    ]);
    for (const result of results)
      if (result['kind'] === 'model')
        expect(result).toMatchObject({ level: 1, threads: 1, prefill: { perSecond: expect.any(Number) as number } });
    const { code, out } = await matmamba(['bench', '--ops', '--repeat', '1', ...args]);
    expect(code).toBe(0);
    expect(out).toMatch(/prefill: level 1, f32, 1 threads[^]*chunk_scan[^]*decode: level 1/);
  });
});
