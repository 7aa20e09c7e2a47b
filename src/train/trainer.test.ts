/** The loop: the same history however a batch is cut up and shared, what is written when, and how it ends badly. */

import { describe, expect, test } from 'vitest';
import type { Communicator } from '../distributed/communicator.ts';
import { TrainingEngine } from './engine.ts';
import { GradientSum } from './gradient-sum.ts';
import { createStrategy } from './strategy.ts';
import { CONFIG, LENGTH, numberedRows, ranksInProcess, tinyModel } from './testing.ts';
import { type StepRecord, type TrainerOptions, train } from './trainer.ts';

interface Told {
  readonly records: StepRecord[];
  /** What was asked of the hooks, in order. */
  readonly calls: string[];
  best: number;
}

type Change = Partial<Omit<TrainerOptions, 'hooks' | 'shape'>> & {
  readonly validate?: (step: number) => Promise<Record<string, number>>;
  readonly drops?: number;
  readonly microBatches?: number;
  readonly rank?: Communicator;
};

/** Four rows a step for each of two levels, on one rank. */
async function run(change: Change = {}, told: Told = { records: [], calls: [], best: Infinity }): Promise<Told> {
  const { validate, drops = 0, microBatches = 1, rank = ranksInProcess(1)[0]!, ...rest } = change;
  await using model = await tinyModel();
  const engine = await TrainingEngine.attach(model);
  const { dModel, nLayer } = CONFIG;
  const batch = 4 / microBatches;
  const note = (call: string): void => void told.calls.push(call);
  try {
    const options: TrainerOptions = {
      model,
      engine,
      data: numberedRows(batch),
      communicator: rank,
      gradientSum: new GradientSum(),
      strategy: createStrategy({ strategy: 'joint', levels: [1, 4], dModel, nLayer, microBatches }),
      learningRate: () => 1e-3,
      steps: 4,
      batch,
      lossesPerRow: LENGTH,
      shape: { length: LENGTH, recompute: false, projDropRate: drops, dropPathRate: drops },
      distillation: 0,
      seed: 1,
      validateEvery: 2,
      saveEvery: 3,
      ...rest,
      hooks: {
        onStep: (record) => void told.records.push(record),
        ...(validate ? { validate } : {}),
        onValidation: (step) => note(`validated ${step}`),
        save: async (step, best) => note(`saved ${step}${Number.isFinite(best) ? ` best ${best}` : ''}`),
        saveBest: async (step) => note(`best ${step}`),
      },
    };
    told.best = await train(options, 0);
    return told;
  } finally {
    engine.dispose();
  }
}

function expectSame(got: readonly StepRecord[], expected: readonly StepRecord[], limit: number): void {
  expect(got).toHaveLength(expected.length);
  for (const [i, { losses, gradientNorm }] of expected.entries()) {
    for (const [label, loss] of Object.entries(losses))
      expect(Math.abs(got[i]!.losses[label]! - loss), `step ${i + 1}, ${label}`).toBeLessThan(limit);
    expect(Math.abs(got[i]!.gradientNorm / gradientNorm - 1), `norm of step ${i + 1}`).toBeLessThan(10 * limit);
  }
}

const timeless = (records: readonly StepRecord[]): object[] => records.map((record) => ({ ...record, seconds: 0 }));

describe('the history of losses', () => {
  test('repeats bit for bit, with dropout', async () => {
    const first = await run({ drops: 0.2 });
    expect(timeless((await run({ drops: 0.2 })).records)).toEqual(timeless(first.records));
    expect(timeless((await run({ drops: 0.2, seed: 2 })).records)).not.toEqual(timeless(first.records));
  });

  test.each([0, 0.2])('does not depend on micro-batches (dropout %d)', async (drops) => {
    const { records } = await run({ drops });
    for (const microBatches of [2, 4]) expectSame((await run({ drops, microBatches })).records, records, 1e-4);
  });

  test.each([0, 0.2])('does not depend on how many ranks share a batch (dropout %d)', async (drops) => {
    const { records } = await run({ drops });
    for (const [size, microBatches] of [
      [2, 1],
      [2, 2],
      [4, 1],
    ] as const) {
      const told = await Promise.all(ranksInProcess(size).map((rank) => run({ drops, microBatches, rank })));
      expectSame(told[0]!.records, records, 1e-4);
      // Others keep quiet.
      expect(told[1]).toMatchObject({ records: [], calls: [] });
    }
  });
});

test('held-out losses and checkpoints come when due, and at the end', async () => {
  const losses = [3, 2, 2.5];
  const told = await run({ steps: 5, validate: async () => ({ 'level 1': losses[0]!, 'level 4': losses.shift()! }) });
  expect(told.calls).toEqual([
    'validated 2',
    'best 2',
    'saved 3 best 3',
    'validated 4',
    'best 4',
    'validated 5',
    'saved 5 best 2',
  ]);
  expect(told.best).toBe(2);
});

test('a held-out loss that is no number is never the best', async () => {
  const told = await run({ steps: 2, validate: async () => ({ 'level 1': NaN }) });
  expect(told.calls).toEqual(['validated 2', 'saved 2']);
});

test('every batch is asked for once, in order, one ahead', async () => {
  const asked: string[] = [];
  const data = numberedRows(4);
  await run({
    data: {
      inputs(step, index, rows) {
        asked.push(`${step}/${index}`);
        return data.inputs(step, index, rows);
      },
    },
  });
  expect(asked).toEqual(['0/0', '0/1', '1/0', '1/1', '2/0', '2/1', '3/0', '3/1']);
});

test('data that cannot be read end the run after the steps before them', async () => {
  const told: Told = { records: [], calls: [], best: Infinity };
  const data = numberedRows(4);
  const inputs: typeof data.inputs = (step, index, rows) =>
    step === 2 ? Promise.reject(new Error('the disk is gone')) : data.inputs(step, index, rows);
  await expect(run({ data: { inputs } }, told)).rejects.toThrow('the disk is gone');
  expect(told.records).toHaveLength(2);
  expect(told.calls).toEqual([]);
});

test('an abort is a checkpoint, on all ranks after the same step', async () => {
  const told = [0, 1].map((): Told => ({ records: [], calls: [], best: Infinity }));
  const controller = new AbortController();
  const data = numberedRows(4);
  const inputs: typeof data.inputs = (step, index, rows) => {
    if (step === 1) controller.abort();
    return data.inputs(step, index, rows);
  };
  // Only one of the two is told.
  const runs = ranksInProcess(2).map((rank, i) =>
    run({ rank, data: { inputs }, ...(i === 1 ? { signal: controller.signal } : {}) }, told[i]),
  );
  for (const result of await Promise.allSettled(runs)) {
    expect(result).toMatchObject({ status: 'rejected', reason: { code: 'ABORTED' } });
  }
  expect(told[0]!.calls).toEqual([`saved ${told[0]!.records.length}`]);
});

test('a run that diverges is stopped before it writes', async () => {
  const told: Told = { records: [], calls: [], best: Infinity };
  await expect(run({ steps: 20, saveEvery: 1, learningRate: (step) => (step < 2 ? 1e-3 : 1e30) }, told)).rejects.toMatchObject({
    code: 'WEIGHTS',
    message: /step \d+ diverged: the (weight|gradient) \S+ is \S+ at element \d+/,
  });
  expect(told.calls.at(-1)).toBe(`saved ${told.records.length}`);
});

test('a checkpoint that cannot be written ends the run', async () => {
  const told: Told = { records: [], calls: [], best: Infinity };
  told.calls.push = () => {
    throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
  };
  await expect(run({}, told)).rejects.toThrow('no space left');
  expect(told.records).toHaveLength(3);
});
