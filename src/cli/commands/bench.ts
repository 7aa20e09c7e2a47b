/** `matmamba bench`: how fast this machine runs and trains a model. */

import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ArgsDef } from 'citty';
import { z } from 'zod';
import { type WeightStorage, COMMON_DTYPES } from '../../backends/backend.ts';
import { acquireBackend } from '../../backends/open.ts';
import {
  type CpuResult,
  type ProductResult,
  type Rate,
  type SpeedResult,
  cpuSuite,
  profilePhases,
} from '../../bench/cpu-suite.ts';
import { type Machine, describeMachine } from '../../bench/machine.ts';
import { ProfileTotals } from '../../bench/profile-totals.ts';
import { WEBGPU_FEATURE_NAMES } from '../../backends/webgpu/gpu.ts';
import { MatMambaError } from '../../errors.ts';
import { describeModel, hasLevel } from '../../models/description.ts';
import { PRESETS, PRESET_NAMES, isPresetName } from '../../models/presets.ts';
import { randomWeights } from '../../models/weight-sources.ts';
import { UsageError, type CheckedArguments } from '../arguments.ts';
import { benchGpu } from '../bench/gpu.ts';
import { benchTraining, trainBenchModels } from '../bench/train-cpu.ts';
import { benchWebGpu } from '../bench/webgpu.ts';
import { defineCliCommand } from '../command.ts';
import type { Io } from '../io.ts';
import { locateModel, specOf } from '../models.ts';
import { flag, jsonArgs, modelOptions, modelArgs, whole, wholeList, wordList } from '../options.ts';
import { packageVersion } from '../package-files.ts';
import { profileTable } from '../profile-table.ts';
import { Progress, withProgress } from '../progress.ts';
import { formatCount, formatNumber, table } from '../text-layout.ts';
import { writeModel } from '../write-model.ts';

const SUITES = ['cpu', 'train-cpu', 'gpu', 'webgpu'] as const;
const DEFAULT_MODEL = 'lm-130m';

const args: ArgsDef = {
  suite: { type: 'positional', required: false, description: `what to measure: ${SUITES.join(', ')} (default cpu)` },
  model: {
    ...modelArgs.model,
    valueHint: 'DIR|ID|PRESET',
    description: `a language model; a preset has random weights (default ${DEFAULT_MODEL}); train-cpu: some of books-10m, lm-130m (default both)`,
  },
  rows: {
    type: 'string',
    valueHint: 'LIST',
    description: 'gpu, webgpu: rows whose names hold one of these, such as decode,vision-35m (default all)',
  },
  features: {
    type: 'string',
    valueHint: 'LIST',
    description: `webgpu: what to use where the adapter has it: some of ${WEBGPU_FEATURE_NAMES.join(', ')}, or none (default all)`,
  },
  dtype: { type: 'string', valueHint: 'LIST', description: `some of ${COMMON_DTYPES.join(', ')} (default f32,bf16,int8)` },
  level: { type: 'string', valueHint: 'LIST', description: 'levels (default 1,2,4,8)' },
  threads: { type: 'string', valueHint: 'LIST', description: 'thread counts (default 1 and one per core)' },
  blas: { type: 'string', valueHint: 'LIST', description: 'some of on, off (default both where there is a BLAS)' },
  prompt: { type: 'string', valueHint: 'N', description: 'tokens of the prompt, or of a training sequence', default: '512' },
  tokens: { type: 'string', valueHint: 'N', description: 'tokens of one timed decode', default: '16' },
  repeat: { type: 'string', valueHint: 'N', description: 'repetitions at least', default: '3' },
  recompute: { type: 'boolean', description: 'train-cpu: activations are computed again instead of kept' },
  quick: {
    type: 'boolean',
    description:
      'levels 1 and 8, all cores, two repetitions: about a minute; train-cpu: books-10m, all levels; webgpu: a small shape',
  },
  ops: { type: 'boolean', description: 'time every op of the model instead, by the profiler' },
  ...jsonArgs,
};

const options = z.object({
  suite: z.enum(SUITES).default('cpu'),
  model: modelOptions.model,
  rows: z.string().optional(),
  features: wordList([...WEBGPU_FEATURE_NAMES, 'none'] as const).optional(),
  dtype: wordList(COMMON_DTYPES).optional(),
  level: wholeList(1, 'levels with commas between them').optional(),
  threads: wholeList(1, 'thread counts with commas between them').optional(),
  blas: wordList(['on', 'off'] as const).optional(),
  prompt: whole(1, 4096),
  tokens: whole(1),
  repeat: whole(1),
  recompute: flag,
  quick: flag,
  ops: flag,
  json: flag,
});

export const benchCommand = defineCliCommand({
  name: 'bench',
  description: 'how fast this machine runs a model: prompts, single tokens, matrix products; and how fast it trains one',
  args,
  options,
  examples: [
    { command: 'matmamba bench --quick', says: 'about a minute' },
    { command: 'matmamba bench cpu --dtype f32,int8 --level 1 --threads 2', says: 'some of it' },
    { command: 'matmamba bench --ops --dtype bf16 --level 4', says: 'where the time goes' },
    { command: 'matmamba bench train-cpu --model books-10m', says: 'training steps' },
    { command: 'matmamba bench gpu --rows decode --ops', says: 'single tokens on a GPU, and where their time goes' },
    { command: 'matmamba bench webgpu --rows f16 --features subgroups,timestamps', says: 'without half arithmetic' },
    { command: 'matmamba bench --model books-10m --json > speed.jsonl', says: 'for programs' },
  ],
  notes: [
    'Figures are medians; +-: half of the range between the quartiles. A first run that compiles is not counted. prefill: one prompt with the ' +
      'logits of its last token. decode: one token at a time with its logits. matrix: the input projection of a layer for a whole prompt. ' +
      'vector: the head for one token, a matrix larger than the caches. With --json: one object for the machine, then one for every figure.',
    'train-cpu: one joint step, forward and backward at every level, clipping and AdamW; tokens of all levels count. GFLOP/s: 6 for every token ' +
      'and element of the matrices that its level uses, and 15 for every element of the states; of GEMM: that as a share of one large product ' +
      'under the same settings. in products: share of the time in matrix products, by the profiler, and their own speed as a share of GEMM. memory: the largest resident size.',
    'gpu: the published shapes on an NVIDIA GPU, wall-clock times of whole calls. floor: the operations of the matrix products at the rate of one ' +
      'large product, or the bytes of all ops at the rate of a large copy, whichever takes longer. ops: the launches one by one, without the graph.',
    'webgpu: the 130M shape on a WebGPU adapter. call: the whole call on the host; GPU: the replay on its own clock, or on the host where there ' +
      'are no timestamps. bytes: weights of the width, operands and states; of copy: their rate as a share of a large copy\u2019s.',
  ],
  run: bench,
});

type Options = z.output<typeof options>;

async function bench(given: Options, _checked: CheckedArguments, io: Io): Promise<void> {
  const machine = { version: packageVersion(), ...describeMachine() };
  if (machine.load > 0.5)
    io.warn(
      `other work keeps this machine busy (load ${formatNumber(machine.load)} on ${machine.cores} cores): expect low figures`,
    );
  if (given.suite === 'gpu' || given.suite === 'webgpu') {
    const { repeat, quick, json, ops, rows } = given;
    const repetition = { least: quick ? 2 : Math.max(5, repeat), most: 200, budgetMs: quick ? 200 : 1000 };
    const wanted = rows?.split(',').map((part) => part.trim());
    if (json) io.json({ kind: 'machine', ...machine });
    const suite = { rows: wanted, repetition, signal: io.signal };
    const output = { json: json === true, ops: ops === true };
    const features = given.features?.filter((name) => name !== 'none');
    await (given.suite === 'gpu'
      ? benchGpu(suite, output, io)
      : benchWebGpu({ ...suite, features, small: quick === true }, output, io));
    return;
  }
  const blasNow = await blasLibrary();
  if (given.suite === 'train-cpu') {
    await benchTrainCpu(given, machine, blasNow, io);
    return;
  }
  const { folder, name, dModel, cleanUp } = await benchModel(given, io);
  try {
    const settings = settingsOf(given, dModel, blasNow.available);
    if (given.json) io.json({ kind: 'machine', ...machine, blas: blasNow.description, model: name });
    else {
      io.line(machineLine(machine));
      io.line(`BLAS: ${blasNow.description}; model ${name}, prompt of ${given.prompt} tokens\n`);
    }
    await (given.ops ? benchOps(given, folder, settings, io) : benchSpeeds(given, folder, settings, io));
  } finally {
    await cleanUp();
  }
}

async function benchTrainCpu(
  given: Options,
  machine: Machine & { readonly version: string },
  blasNow: { available: boolean; description: string },
  io: Io,
): Promise<void> {
  const { model, quick, ops, repeat, recompute, json, prompt } = given;
  if (given.dtype) throw new UsageError('--dtype is for the cpu suite', 'models are trained in float32');
  const models = trainBenchModels(model ?? (quick ? 'books-10m' : undefined));
  const { levels, threads, blas } = settingsOf({ ...given, level: given.level ?? [1, 2, 4, 8] }, 0, blasNow.available);
  if (json) io.json({ kind: 'machine', ...machine, blas: blasNow.description });
  else io.line(`${machineLine(machine)}\nBLAS: ${blasNow.description}\n`);
  const repetition = { least: quick ? 2 : repeat, most: 50, budgetMs: quick ? 500 : 5000 };
  const suite = {
    models,
    levels,
    threads,
    blas,
    recompute: recompute === true,
    lengthTokens: prompt,
    repetition,
    signal: io.signal,
  };
  await benchTraining(suite, { json: json === true, ops: ops === true }, io);
}

function machineLine({ cpu, cores, node, platform, version }: Machine & { readonly version: string }): string {
  return `${cpu}, ${cores} cores; Node ${node}, ${platform}; matmamba ${version}`;
}

interface Settings {
  readonly dtypes: readonly WeightStorage[];
  readonly levels: readonly number[];
  readonly threads: readonly number[];
  readonly blas: readonly string[];
}

function settingsOf({ dtype, level, threads, blas, quick, ops }: Options, dModel: number, hasBlas: boolean): Settings {
  const cores = availableParallelism();
  if (blas?.includes('on') && !hasBlas) {
    throw new MatMambaError('DEVICE', 'there is no BLAS on this machine to measure', { hint: 'see: matmamba info' });
  }
  const libraries =
    blas?.map((word) => (word === 'on' ? 'auto' : 'off')) ?? (hasBlas ? (quick || ops ? ['auto'] : ['auto', 'off']) : ['off']);
  return {
    dtypes: dtype ?? (ops ? ['f32'] : ['f32', 'bf16', 'int8']),
    levels: level ?? (ops ? [1] : (quick ? [1, 8] : [1, 2, 4, 8]).filter((one) => hasLevel(one, dModel))),
    threads: threads ?? [...new Set(quick || ops ? [cores] : [1, cores])],
    blas: [...new Set(libraries)],
  };
}

async function blasLibrary(): Promise<{ available: boolean; description: string }> {
  const { backend, release } = await acquireBackend({ threads: 1 });
  const { BLAS: blas = 'none' } = backend.capabilities().facts;
  await release();
  return { available: !/^(off|none|no )/.test(blas), description: blas };
}

/** A model's folder; a preset's random weights are written to a temporary one. */
async function benchModel(
  { model = DEFAULT_MODEL }: Options,
  io: Io,
): Promise<{ folder: string; name: string; dModel: number; cleanUp: () => Promise<void> }> {
  if (!isPresetName(model)) {
    const located = await locateModel({ model }, io);
    const { dModel } = languageModel(describeModel(await specOf(located, {}, io)), model);
    return { folder: located.path, name: located.name, dModel, cleanUp: async () => {} };
  }
  const description = languageModel(describeModel(PRESETS[model]), model);
  const folder = await mkdtemp(join(tmpdir(), 'matmamba-bench-'));
  const cleanUp = (): Promise<void> => rm(folder, { recursive: true, force: true });
  try {
    await withProgress({ label: 'random weights', format: formatCount }, (progress) =>
      writeModel(description, {
        folder,
        format: 'safetensors',
        dtype: 'bf16',
        sourceOf: randomWeights(0),
        signal: io.signal,
        progress,
      }),
    );
  } catch (error) {
    await cleanUp();
    throw error;
  }
  return { folder, name: `${model} (random weights)`, dModel: description.dModel, cleanUp };
}

function languageModel<D extends { readonly kind: string }>(description: D, name: string): D {
  if (description.kind === 'language') return description;
  throw new UsageError(
    `${name} is no language model`,
    `bench measures language models: ${PRESET_NAMES.filter((preset) => preset.startsWith('lm-')).join(', ')}, or a folder`,
  );
}

async function benchSpeeds(given: Options, folder: string, settings: Settings, io: Io): Promise<void> {
  const progress = new Progress({ label: 'bench', format: (n) => `${Math.round(n * 10) / 10} figures` });
  const least = given.quick ? 2 : given.repeat;
  const results: CpuResult[] = [];
  try {
    const suite = cpuSuite({
      ...settings,
      folder,
      promptTokens: given.prompt,
      decodeTokens: given.tokens,
      repetition: { least, most: 50, budgetMs: given.quick ? 500 : 1000 },
      signal: io.signal,
      onProgress: (done, total) => progress.update(done, total),
    });
    for await (const result of suite) {
      results.push(result);
      if (!given.json) continue;
      progress.end();
      io.json(result);
    }
  } finally {
    progress.end();
    // Whoever stops half-way sees what there is.
    if (!given.json) showResults(results, io);
  }
}

function showResults(results: readonly CpuResult[], io: Io): void {
  const right = 'right' as const;
  const blasName = (blas: string): string => (blas === 'off' ? 'off' : 'on');
  const rate = ({ perSecond, spread }: Rate): string => `${formatNumber(perSecond)} \u00b1${Math.round(100 * spread)}%`;
  const speeds = results.filter((result): result is SpeedResult => result.kind === 'model');
  const products = results.filter((result): result is ProductResult => result.kind !== 'model');
  const setting = [{ title: 'dtype' }, { title: 'threads', align: right }, { title: 'BLAS' }];
  if (speeds.length > 0) {
    const columns = [
      ...setting,
      { title: 'level', align: right },
      { title: 'prefill tokens/s', align: right },
      { title: 'decode tokens/s', align: right },
    ];
    const rows = speeds.map(({ dtype, threads, blas, level, prefill, decode }) => [
      dtype,
      String(threads),
      blasName(blas),
      String(level),
      rate(prefill),
      rate(decode),
    ]);
    io.line(table(columns, rows, io.columns));
  }
  if (products.length > 0) {
    const columns = [
      ...setting,
      { title: 'product' },
      { title: 'shape' },
      { title: 'GFLOP/s', align: right },
      { title: 'GB/s', align: right },
    ];
    const rows = products.map(({ kind, dtype, threads, blas, shape: [m, k, n], gflops, gigabytes }) => [
      dtype,
      String(threads),
      blasName(blas),
      kind,
      `${m} x ${k} x ${n}`,
      rate(gflops),
      rate(gigabytes),
    ]);
    io.line(`\n${table(columns, rows, io.columns)}`);
  }
}

async function benchOps(given: Options, folder: string, { dtypes, levels, threads, blas }: Settings, io: Io): Promise<void> {
  for (const dtype of dtypes)
    for (const count of threads)
      for (const library of blas)
        for (const level of levels) {
          const totals = { prefill: new ProfileTotals(), decode: new ProfileTotals() };
          const setting = { dtype, threads: count, blas: library, level };
          const runs = given.quick ? 1 : given.repeat;
          await profilePhases({ folder, ...setting, promptTokens: given.prompt, runs, signal: io.signal }, (phase, ops) =>
            totals[phase].add(ops),
          );
          for (const [phase, profile] of Object.entries(totals)) {
            if (given.json) io.json({ kind: 'ops', phase, ...setting, runs: profile.runs, ops: profile.sorted });
            else {
              io.line(
                `${phase}: level ${level}, ${dtype}, ${count} threads, BLAS ${library === 'off' ? 'off' : 'on'}; mean of ${profile.runs} runs`,
              );
              io.line(`${profileTable(profile.sorted, io.columns, profile.runs)}\n`);
            }
          }
        }
}
