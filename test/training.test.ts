/**
 * Training end to end, through the command line in processes of its own: a real text, a small model trained jointly,
 * killed and resumed, exported and run at every level; several ranks; what goes wrong and what stays behind.
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { MatMambaLMHeadModel } from '../src/index.ts';
import { TokenSet, listTokenFiles } from '../src/data/index.ts';
import { buildPackage } from './support/built.ts';

const text = fileURLToPath(new URL('./fixtures/great-god-pan.txt', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'matmamba-training-'));
const data = join(folder, 'data');
const LEVELS = [1, 2, 4, 8];
const STEPS = 60;
const VOCABULARY = 512;
const MODEL = `--d-model 64 --layers 2 --d-state 16 --vocabulary ${VOCABULARY}`.split(' ');
const RECIPE =
  `--steps ${STEPS} --batch 8 --micro-batch 4 --length 64 --lr 1e-2 --warmup 5 --validate-every 20 --validation-windows 32 --save-every 8`.split(
    ' ',
  );

interface Result {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

interface Started {
  readonly child: ChildProcess;
  readonly done: Promise<Result>;
}

let main = '';

function environment(): NodeJS.ProcessEnv {
  const asRoot = { OMPI_ALLOW_RUN_AS_ROOT: '1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1' };
  return { ...process.env, ...asRoot, NODE_OPTIONS: '', MATMAMBA_THREADS: '1', MATMAMBA_BLAS: 'off', HF_HUB_OFFLINE: '1' };
}

function spawned(command: string, words: readonly string[]): Started {
  const child = spawn(command, words, { env: environment(), stdio: 'pipe', cwd: folder });
  child.stdin.end();
  let [out, err] = ['', ''];
  child.stdout.on('data', (part: Buffer) => (out += part.toString()));
  child.stderr.on('data', (part: Buffer) => (err += part.toString()));
  const timer = setTimeout(() => child.kill('SIGKILL'), 40_000);
  const done = new Promise<Result>((resolve) => {
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code, out, err });
    });
  });
  return { child, done };
}

const start = (...words: string[]): Started => spawned(process.execPath, [main, ...words]);

const matmamba = (...words: string[]): Promise<Result> => start(...words).done;

const startTraining = (out: string, ...words: string[]): Started =>
  start('train', 'lm', '--data', data, '--out', join(folder, out), ...MODEL, ...RECIPE, ...words);

/** Runs a training to its end. */
async function trained(out: string, ...words: string[]): Promise<Result> {
  const result = await startTraining(out, ...words).done;
  expect(result.code, result.err).toBe(0);
  return result;
}

/** Everything in a run's log that is no time. */
function logOf(out: string): Record<string, unknown>[] {
  const lines = readFileSync(join(folder, out, 'log.jsonl'), 'utf8')
    .trim()
    .split('\n');
  return lines.map((line) => {
    const { seconds: _, ...rest } = JSON.parse(line) as Record<string, unknown>;
    return rest;
  });
}

interface Step {
  readonly step: number;
  readonly losses: Record<string, number>;
  readonly gradientNorm: number;
}

const stepsOf = (out: string): Step[] => logOf(out).filter((entry) => 'losses' in entry) as unknown as Step[];

const filesIn = (path: string): string[] => (existsSync(path) ? readdirSync(path).sort() : []);

const checkpointsOf = (out: string): string[] => filesIn(join(folder, out, 'checkpoints'));

/** Settles when the run has printed a step that is at least this one; false when it ended before. */
async function reaches({ child, done }: Started, step: number): Promise<boolean> {
  return new Promise((resolve) => {
    let printed = '';
    child.stdout!.on('data', (part: Buffer) => {
      printed += part.toString();
      const last = [...printed.matchAll(/^\{"step":(\d+),"losses"/gm)].at(-1);
      if (last && Number(last[1]) >= step) resolve(true);
    });
    void done.then(() => resolve(false));
  });
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms));

/** Kills a run of one process with SIGKILL a moment after it has done `step` steps. */
async function killAfter(started: Started, step: number, ms: number): Promise<void> {
  expect(await reaches(started, step), 'it ended too early').toBe(true);
  await wait(ms);
  started.child.kill('SIGKILL');
  expect((await started.done).code, 'it was killed, not done').toBeNull();
}

async function tokensOf(split: 'train' | 'val'): Promise<Int32Array> {
  await using set = await TokenSet.open(await listTokenFiles(data, split));
  return Int32Array.from(await set.read(0, set.length, VOCABULARY));
}

/** Nats a token, when tokens are predicted by nothing but how often they occur. */
function unigramEntropy(ids: Int32Array): number {
  const counts = new Float64Array(VOCABULARY);
  for (const id of ids) counts[id]!++;
  return -counts.reduce((sum, count) => (count === 0 ? sum : sum + (count / ids.length) * Math.log(count / ids.length)), 0);
}

beforeAll(async () => {
  main = join(dirname(fileURLToPath(buildPackage('matmamba-training-test'))), 'cli/main.js');
  const words = `data text ${text} --out ${data} --train-bpe ${VOCABULARY} --split blank-line --validation-tokens 4096 --workers 1`;
  const prepared = await matmamba(...words.split(' '));
  if (prepared.code !== 0) throw new Error(prepared.err);
  await trained('unbroken');
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('a run of one process', () => {
  test('learns more than how often tokens occur, at every level', async () => {
    const entropy = Math.min(unigramEntropy(await tokensOf('val')), unigramEntropy(await tokensOf('train')));
    const held = logOf('unbroken').at(-1)!['validation'] as Record<string, number>;
    expect(Object.keys(held)).toEqual(LEVELS.map((level) => `level ${level}`));
    for (const [label, loss] of Object.entries(held)) expect(loss, `${label}, entropy ${entropy}`).toBeLessThan(entropy);
    expect(stepsOf('unbroken').map(({ step }) => step)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
  });

  test('killed at any moment, it goes on as if it had not been', async () => {
    for (const first of [1, 20]) {
      const [step, ms] = [first + Math.floor(20 * Math.random()), 60 * Math.random()];
      await killAfter(startTraining('killed', '--json'), step, ms);
    }
    await trained('killed');
    expect(logOf('killed')).toEqual(logOf('unbroken'));
    expect(checkpointsOf('killed')).toEqual(checkpointsOf('unbroken'));
    const last = checkpointsOf('unbroken').at(-1)!;
    for (const file of ['model.safetensors', 'optimizer/model.safetensors'])
      expect(
        readFileSync(join(folder, 'killed/checkpoints', last, file)).equals(
          readFileSync(join(folder, 'unbroken/checkpoints', last, file)),
        ),
        file,
      ).toBe(true);
  });

  test('stopped by a signal, it writes a checkpoint first', async () => {
    const started = startTraining('stopped', '--json', '--save-every', '1000');
    expect(await reaches(started, 3)).toBe(true);
    started.child.kill('SIGINT');
    const { code, err } = await started.done;
    expect(code, err).not.toBe(0);
    expect(checkpointsOf('stopped')).toHaveLength(1);
    expect(stepsOf('stopped').at(-1)!.step).toBe(Number(checkpointsOf('stopped')[0]!.slice(5)));
  });

  test('the best model is exported to the original format and back, and generates at every level', async () => {
    const best = join(folder, 'unbroken/best');
    for (const [from, to, format] of [
      [best, 'original', 'pytorch'],
      [join(folder, 'original'), 'back', 'safetensors'],
    ] as const) {
      const { code, err } = await matmamba('convert', from, join(folder, to), '--format', format);
      expect(code, err).toBe(0);
    }
    expect(filesIn(join(folder, 'original'))).toContain('pytorch_model.bin');
    await using before = await MatMambaLMHeadModel.fromPretrained(best);
    await using after = await MatMambaLMHeadModel.fromPretrained(join(folder, 'back'));
    const weights = after.stateDict();
    for (const [name, tensor] of Object.entries(before.stateDict())) expect(weights[name]!.array, name).toEqual(tensor.array);
    for (const level of LEVELS) {
      const words = ['generate', 'The great', '--model', join(folder, 'back'), '--level', String(level)];
      const { code, out, err } = await matmamba(...words, '--max-tokens', '12', '--ignore-end', '--seed', '1', '--json');
      expect(code, err).toBe(0);
      expect(out.trim().split('\n').at(-1), `level ${level}`).toMatch(/"tokens":12/);
    }
  });

  test('one level at a time, Mix’n’Match and recomputed activations resume exactly too', async () => {
    const options = ['--strategy', 'sample', '--mixes', '1', '--steps', '12', '--save-every', '3', '--recompute'];
    await trained('sample', ...options);
    await killAfter(startTraining('sample-killed', ...options, '--json'), 4, 10 * Math.random());
    await trained('sample-killed', ...options);
    expect(logOf('sample-killed')).toEqual(logOf('sample'));
  });
});

function hasMpirun(): boolean {
  try {
    execFileSync('mpirun', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** `MATMAMBA_REQUIRE=mpi` turns the skip into a failure. */
const required = (process.env['MATMAMBA_REQUIRE'] ?? '').split(',').includes('mpi');

describe.skipIf(!required && !hasMpirun())('two ranks (skipped where mpirun is missing: apt-get install openmpi-bin)', () => {
  const startRanks = (out: string, ...words: string[]): Started =>
    spawned(
      'mpirun',
      ['--oversubscribe', '-n', '2', process.execPath, main, 'train', 'lm', '--data', data, '--out', join(folder, out)].concat(
        MODEL,
        RECIPE,
        words,
      ),
    );

  function expectSameHistory(out: string, other: string): void {
    const [got, expected] = [stepsOf(out), stepsOf(other)];
    expect(got).toHaveLength(expected.length);
    for (const [i, { step, losses, gradientNorm }] of expected.entries()) {
      for (const [label, loss] of Object.entries(losses))
        expect(Math.abs(got[i]!.losses[label]! - loss), `step ${step}, ${label}`).toBeLessThan(1e-4);
      expect(Math.abs(got[i]!.gradientNorm / gradientNorm - 1), `gradient norm of step ${step}`).toBeLessThan(1e-2);
    }
  }

  test('train as one process does', async () => {
    const { code, err } = await startRanks('ranks').done;
    expect(code, err).toBe(0);
    expectSameHistory('ranks', 'unbroken');
    expect(checkpointsOf('ranks')).toEqual(checkpointsOf('unbroken'));
  });

  test('a rank that dies ends the job; one process goes on from the last checkpoint', async () => {
    const started = startRanks('dead', '--json');
    expect(await reaches(started, 12)).toBe(true);
    // The second rank, by the variable that the launcher gave it.
    const [, second] = childrenOf(started.child.pid!);
    process.kill(second!, 'SIGKILL');
    const { code, err } = await started.done;
    expect(code).not.toBe(0);
    expect(err).toMatch(/rank [01] .*signal 9/);
    expect(err).toContain(hostname());
    expect(checkpointsOf('dead').every((name) => !name.startsWith('.'))).toBe(true);
    await trained('dead');
    expectSameHistory('dead', 'unbroken');
  });
});

/** Processes that a process started, oldest first. */
function childrenOf(pid: number): number[] {
  return execFileSync('ps', ['-o', 'pid=', '--ppid', String(pid)])
    .toString()
    .trim()
    .split(/\s+/)
    .map(Number)
    .sort((a, b) => a - b);
}

describe('what goes wrong', () => {
  /** A token file; `header` replaces fields of a good one. */
  function tokenFile(name: string, ids: readonly number[], header: { magic?: number; count?: number } = {}): string {
    const { magic = 20240520, count = ids.length } = header;
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    const head = new Int32Array(256);
    head.set([magic, 1, count]);
    writeFileSync(path, Buffer.concat([Buffer.from(head.buffer), Buffer.from(Uint16Array.from(ids).buffer)]));
    return path;
  }

  const ids = Array.from({ length: 2000 }, (_, i) => i % 500);

  test.each([
    ['a wrong magic number', () => tokenFile('magic.bin', ids, { magic: 7 }), /magic\.bin/],
    ['a wrong count', () => tokenFile('count.bin', ids, { count: 3000 }), /count\.bin.*(3,?000|tokens|bytes)/],
    ['ids outside the vocabulary', () => tokenFile('ids.bin', ids.with(900, VOCABULARY)), /ids\.bin.*512/],
    ['a file that is not there', () => join(folder, 'nowhere.bin'), /nowhere\.bin/],
    ['fewer tokens than a window', () => tokenFile('short.bin', ids.slice(0, 40)), /short\.bin.*40 tokens/],
  ])('%s', async (_, file, message) => {
    const words = ['train', 'lm', '--data', file(), '--out', join(folder, 'bad-data'), ...MODEL, ...RECIPE];
    const { code, err } = await matmamba(...words);
    expect(code).not.toBe(0);
    expect(err).toMatch(message);
    expect(err).not.toMatch(/^\s+at /m);
    expect(checkpointsOf('bad-data')).toEqual([]);
  });

  test('a batch that does not divide', async () => {
    const { code, err } = await startTraining('bad-batch', '--batch', '6').done;
    expect(code).not.toBe(0);
    expect(err).toMatch(/batch of 6 .*micro-batches of 4/);
    expect(err).toMatch(/multiple of 4/);
  });

  test('a resume with other options, which changes nothing', async () => {
    cpSync(join(folder, 'unbroken'), join(folder, 'changed'), { recursive: true });
    for (const [option, value, message] of [
      ['--lr', '2e-2', /peak.*0\.01.*0\.02/],
      ['--d-model', '96', /dModel.*64.*96/],
      ['--length', '32', /length.*64.*32/],
      ['--seed', '1', /seed.*0.*1/],
      ['--init-from', join(folder, 'unbroken/best'), /initFrom/],
    ] as const) {
      const { code, err } = await startTraining('changed', option, value).done;
      expect(code, option).not.toBe(0);
      expect(err).toMatch(message);
    }
    expect(logOf('changed')).toEqual(logOf('unbroken'));
    // What decides nothing may change.
    await trained('changed', '--micro-batch', '2', '--save-every', '5');
  });

  test('weights that are no numbers stop the run before anything is written', async () => {
    await using model = await MatMambaLMHeadModel.fromPretrained(join(folder, 'unbroken/best'));
    const bad = join(folder, 'not-a-number');
    cpSync(join(folder, 'unbroken/best'), bad, { recursive: true });
    const file = readFileSync(join(bad, 'model.safetensors'));
    const name = 'backbone.layers.1.mixer.out_proj.weight';
    expect(model.stateDict()[name]).toBeDefined();
    const headerBytes = Number(file.readBigUInt64LE());
    const header = JSON.parse(file.subarray(8, 8 + headerBytes).toString()) as Record<string, { data_offsets: [number, number] }>;
    file.writeFloatLE(NaN, 8 + headerBytes + header[name]!.data_offsets[0] + 4 * 77);
    writeFileSync(join(bad, 'model.safetensors'), file);
    const { code, err } = await startTraining('from-bad', '--init-from', bad).done;
    expect(code).not.toBe(0);
    expect(err).toMatch(/backbone\.layers\.1\.mixer\.out_proj\.weight (is|holds) NaN at element 77/);
    expect(checkpointsOf('from-bad')).toEqual([]);
  });

  test('a run that diverges stops and keeps its last good checkpoint', async () => {
    const { code, err } = await startTraining('diverged', '--lr', '1e30', '--warmup', '0', '--save-every', '1').done;
    expect(code).not.toBe(0);
    expect(err).toMatch(/step \d+ diverged: the (weight|gradient) \S+ is (NaN|-?Infinity) at element \d+/);
    const { length } = stepsOf('diverged');
    expect(checkpointsOf('diverged')).toContain(`step-${String(length).padStart(8, '0')}`);
  });

  test('a disk that is full while a checkpoint is written', async () => {
    const run = (limit: string): Promise<Result> => {
      const words = [main, 'train', 'lm', '--data', data, '--out', join(folder, 'full'), ...MODEL, ...RECIPE];
      return spawned('bash', ['-c', `ulimit -f ${limit}; exec "$0" "$@"`, process.execPath, ...words]).done;
    };
    await killAfter(startTraining('full', '--json'), 10, 0);
    const before = checkpointsOf('full');
    expect(before).toEqual(['step-00000008']);
    // No file may grow beyond 64 KiB: the log fits, the weights do not.
    const { code, err } = await run('64');
    expect(code).not.toBe(0);
    expect(err).toMatch(/step-00000016.*model\.safetensors|EFBIG|too large/);
    expect(checkpointsOf('full')).toEqual(before);
    const again = await run('unlimited');
    expect(again.code, again.err).toBe(0);
    expect(logOf('full')).toEqual(logOf('unbroken'));
  });
});
