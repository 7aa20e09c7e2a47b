/**
 * Training on several GPUs, emulated: sums within the step change nothing for one rank, ranks together train as one does,
 * sharded as not, and a step waits for sums where it uses them.
 */

import { describe, expect, test, vi } from 'vitest';
import { acquireBackend } from '../src/backends/open.ts';
import { RankJoins } from '../src/backends/cuda/rank-joins.ts';
import { type Communicator, connect } from '../src/distributed/index.ts';
import { gradientSpec } from '../src/graph/differentiate.ts';
import { Graph } from '../src/graph/graph.ts';
import { MatMambaLMHeadModel } from '../src/index.ts';
import { squareSum, sumOverRanks } from '../src/ops/index.ts';
import type { CudaLaunch } from '../src/ops/cuda-kernel.ts';
import { TrainingEngine } from '../src/train/engine.ts';
import { placeSums } from '../src/train/gradient-buckets.ts';
import { GradientSum } from '../src/train/gradient-sum.ts';
import { createStrategy } from '../src/train/strategy.ts';
import { CONFIG, LENGTH, numberedRows, ranksInProcess, shapeOf, tinyModel } from '../src/train/testing.ts';
import { type StepRecord, train } from '../src/train/trainer.ts';

vi.mock(import('../src/backends/cuda/gpu-driver.ts'), async () => {
  const { openEmulator } = await import('./support/cuda-emulator/emulator.ts');
  return { GpuDriver: { open: () => openEmulator() } } as never;
});

const BATCH = 4;
const STEPS = 3;

interface Trained {
  readonly records: StepRecord[];
  readonly weights: Record<string, Float32Array>;
  /** Of the parameters that this rank keeps them of. */
  readonly moments: Record<string, Float32Array>;
}

interface Change {
  readonly shard?: boolean;
  /** Rows cut so small that steps are no programs of their own. */
  readonly microBatches?: number;
}

/** Ranks of one process must not share a device, nor use one that knows no ranks. */
const indexOf = (rank: number): number => 1 + rank;

/** A rank of a small run on an emulated GPU of its own; without a communicator, on one that knows no ranks. */
async function run(communicator: Communicator | undefined, { shard = false, microBatches = 1 }: Change = {}): Promise<Trained> {
  const alone = ranksInProcess(1)[0]!;
  const place = communicator ?? alone;
  const index = communicator ? indexOf(communicator.rank) : 0;
  await using model = await MatMambaLMHeadModel.create(CONFIG, { device: 'cuda', dtype: 'f32', seed: 3, index });
  const engine = await TrainingEngine.attach(model, { maxNorm: 0.5 }, { communicator: place, shard });
  const records: StepRecord[] = [];
  const batch = BATCH / microBatches;
  await train(
    {
      model,
      engine,
      data: numberedRows(batch),
      communicator: place,
      gradientSum: new GradientSum(),
      strategy: createStrategy({ strategy: 'joint', levels: [1, 4], dModel: CONFIG.dModel, nLayer: CONFIG.nLayer, microBatches }),
      learningRate: () => 1e-2,
      steps: STEPS,
      batch,
      lossesPerRow: LENGTH,
      shape: { length: LENGTH, recompute: false, projDropRate: 0, dropPathRate: 0 },
      distillation: 0,
      seed: 1,
      validateEvery: 100,
      saveEvery: 100,
      hooks: { onStep: (record) => void records.push({ ...record, seconds: 0 }), save: async () => {} },
    },
    0,
  );
  const names = [...model.parameters.declared.values()];
  const read = async (name: string, rows: number): Promise<Float32Array> => model.runtime.weight(name).read(0, rows);
  const weights = Object.fromEntries(
    await Promise.all(names.map(async ({ name, shape }) => [name, await read(name, shape[0]!)] as const)),
  );
  const owned = names.filter(({ name }) => engine.owns(name));
  const moments = Object.fromEntries(
    await Promise.all(owned.map(async ({ name, shape }) => [name, await engine.moment(name, 'v').read(0, shape[0]!)] as const)),
  );
  const gradients = await Promise.all(names.map((spec) => read(gradientSpec(spec).name, spec.shape[0]!)));
  expect(gradients.every((values) => values.every((value) => value === 0))).toBe(true);
  engine.dispose();
  return { records, weights, moments };
}

/** Ranks of this process, each on an emulated GPU of its own. */
async function inRanks(size: number, change: Change = {}): Promise<Trained[]> {
  const ranks = ranksInProcess(size);
  const held: (() => Promise<void>)[] = [];
  // One after another: imports at the same time do not all get the emulator.
  for (const { rank } of ranks) held.push((await acquireBackend({ device: 'cuda', index: indexOf(rank) })).release);
  try {
    return await Promise.all(ranks.map((communicator) => run(communicator, change)));
  } finally {
    for (const release of held) await release();
  }
}

/** What a launcher starts as the only one is a group of one all the same. */
const onlyRank = (): Promise<Communicator> =>
  connect({ env: { RANK: '0', WORLD_SIZE: '1', MASTER_ADDR: 'localhost', MASTER_PORT: '29500' } });

describe('a group of one', () => {
  test.each([{}, { shard: true }, { microBatches: 4 }, { microBatches: 4, shard: true }])(
    'trains as no group does: %j',
    async (change) => {
      expect(await run(await onlyRank(), change)).toEqual(await run(undefined, { ...change, shard: false }));
    },
  );
});

function expectNear(got: Trained, expected: Trained): void {
  for (const [i, { losses, gradientNorm }] of expected.records.entries()) {
    for (const [label, loss] of Object.entries(losses))
      expect(Math.abs(got.records[i]!.losses[label]! - loss)).toBeLessThan(1e-4);
    expect(got.records[i]!.gradientNorm / gradientNorm).toBeCloseTo(1, 4);
  }
}

describe.each([2, 4])('%i ranks', (size) => {
  test('train as one does, the same on all', async () => {
    const one = await run(undefined);
    const all = await inRanks(size);
    expectNear(all[0]!, one);
    for (const { weights, moments } of all.slice(1))
      expect({ weights, moments }).toEqual({ weights: all[0]!.weights, moments: all[0]!.moments });
  });

  test.each([...new Set([1, BATCH / size])])('sharded are as not sharded, in %i micro-batches', async (microBatches) => {
    const whole = await inRanks(size, { microBatches });
    const sharded = await inRanks(size, { microBatches, shard: true });
    expectNear(sharded[0]!, whole[0]!);
    for (const { weights } of sharded) expect(weights).toEqual(sharded[0]!.weights);
    const kept = sharded.map(({ moments }) => Object.keys(moments));
    expect(kept.flat().sort()).toEqual(Object.keys(whole[0]!.weights).sort());
    expect(Math.min(...kept.map(({ length }) => length))).toBeGreaterThan(0);
  });
});

describe('sums in a program', () => {
  test('stand right behind the last node that adds to a gradient of the bucket', async () => {
    await using model = await tinyModel();
    const parameters = [...model.parameters.declared.values()];
    const graph = new Graph();
    graph.withPrefix('0.', () => model.traceTraining(graph, shapeOf(2)));
    graph.withPrefix('1.', () => model.traceTraining(graph, shapeOf(2, { dims: [8, 8, 8] })));
    const before = [...graph.nodes];
    placeSums(graph, parameters, { bucketBytes: 6000 });
    expect(graph.nodes.filter(({ op }) => op !== sumOverRanks)).toEqual(before);
    const sums = graph.nodes.flatMap((node, i) =>
      node.op === sumOverRanks ? [{ i, bucket: node.attributes['bucket'] as number, name: node.inputs['x']!.value.name }] : [],
    );
    expect(sums.map(({ name }) => name).sort()).toEqual(parameters.map((spec) => gradientSpec(spec).name).sort());
    const buckets = new Set(sums.map(({ bucket }) => bucket));
    expect(buckets.size).toBeGreaterThan(3);
    for (const bucket of buckets) {
      const mine = sums.filter((sum) => sum.bucket === bucket);
      const names = new Set(mine.map(({ name }) => name));
      const touches = graph.nodes.flatMap(({ op, inputs }, i) =>
        op !== sumOverRanks && Object.values(inputs).some(({ value }) => names.has(value.name)) ? [i] : [],
      );
      expect(mine[0]!.i).toBeGreaterThan(touches.at(-1)!);
      // Nothing but other sums lies between.
      const between = graph.nodes.slice(touches.at(-1)! + 1, mine[0]!.i);
      expect(between.every(({ op }) => op === sumOverRanks)).toBe(true);
    }
    // Most of the second backward pass comes after the first sums.
    expect(graph.nodes.findLastIndex(({ op }) => op !== sumOverRanks)).toBeGreaterThan(sums[0]!.i + 10);
  });

  test('are waited for by what uses them, and at the end', () => {
    const graph = new Graph();
    const spec = (name: string) => ({ name, shape: [8], layout: 'vector' as const });
    const [a, b, c] = ['a', 'b', 'c'].map((name) => graph.parameter(spec(name)));
    sumOverRanks({ x: a });
    squareSum({ x: b });
    sumOverRanks({ x: c });
    squareSum({ x: c });
    sumOverRanks({ x: b });
    const joins = new RankJoins();
    const parts = [{ from: 0n, to: 0n, count: 8, root: -1 }];
    const placed = graph.nodes.flatMap((node) => {
      const launch: CudaLaunch =
        node.op === sumOverRanks ? { kind: 'all-reduce', parts } : { kind: 'fill', pointer: 0n, bytes: 0 };
      return joins.place([node], [launch]);
    });
    const kinds = [...placed, ...joins.end(), ...joins.end()].map(({ kind }) => kind);
    expect(kinds).toEqual(['all-reduce', 'fill', 'all-reduce', 'join', 'fill', 'all-reduce', 'join']);
  });
});
