/** The engine: dropout that repeats whatever the batch is cut into, clipping, what is decayed, what is refused. */

import { describe, expect, test } from 'vitest';
import { MatMambaLMHeadModel } from '../models/language-model.ts';
import type { TrainingShape } from '../models/training.ts';
import { TrainingEngine } from './engine.ts';
import { CONFIG, LENGTH, batchOf, shapeOf, tinyModel } from './testing.ts';

const DROPS = { projDropRate: 0.3, dropPathRate: 0.4 };
const ROWS = 4;

/** Losses and gradients of some runs that accumulate. `rows`: [first, count] of each run. */
async function passes(
  rows: readonly (readonly [number, number])[],
  change: Partial<TrainingShape> = {},
  key = 5,
): Promise<{ losses: number[]; gradients: Float32Array[] }> {
  await using model = await tinyModel();
  const engine = await TrainingEngine.attach(model);
  const losses: number[] = [];
  for (const [first, count] of rows) {
    const scale = new Float32Array(count * LENGTH).fill(1 / (ROWS * LENGTH));
    const inputs = { ...batchOf(0, first, count), scale, seed: Int32Array.of(key, 7, first) };
    losses.push(...(await engine.accumulate(shapeOf(count, change), inputs)));
  }
  const gradients = await Promise.all(engine.gradients().map(async (weight) => weight.read(0, weight.spec.shape[0]!)));
  engine.dispose();
  return { losses, gradients };
}

/** Largest difference of two gradients, relative to the largest element of their tensor. */
function difference(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  return Math.max(
    ...a.map((values, i) => {
      const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-12);
      return values.reduce((most, value, j) => Math.max(most, Math.abs(value - b[i]![j]!)), 0) / largest;
    }),
  );
}

describe('dropout and drop path', () => {
  const whole = [[0, ROWS]] as const;

  test('repeat bit for bit, and differ under another seed', async () => {
    const first = await passes(whole, DROPS);
    expect(await passes(whole, DROPS)).toEqual(first);
    expect((await passes(whole, DROPS, 6)).losses).not.toEqual(first.losses);
    expect((await passes(whole)).losses).not.toEqual(first.losses);
  });

  test('act on their own', async () => {
    const plain = await passes(whole);
    for (const change of [{ projDropRate: 0.3 }, { dropPathRate: 0.4 }]) {
      const { losses } = await passes(whole, change);
      expect(losses).not.toEqual(plain.losses);
    }
  });

  test('are the same when activations are computed again', async () => {
    for (const change of [DROPS, {}]) {
      const kept = await passes(whole, change);
      const again = await passes(whole, { ...change, recompute: true });
      expect(again.losses).toEqual(kept.losses);
      expect(difference(again.gradients, kept.gradients)).toBeLessThan(1e-6);
    }
  });

  test('draw for a row what they draw for it in any batch', async () => {
    const together = await passes(whole, DROPS);
    for (const parts of [
      [
        [0, 2],
        [2, 2],
      ],
      [
        [0, 1],
        [1, 3],
      ],
      [
        [3, 1],
        [0, 3],
      ],
    ] as const) {
      const apart = await passes(parts, DROPS);
      const ordered = parts[0][0] === 0 ? apart.losses : [...apart.losses.slice(LENGTH), ...apart.losses.slice(0, LENGTH)];
      for (const [i, loss] of ordered.entries()) expect(Math.abs(loss - together.losses[i]!)).toBeLessThan(1e-5);
      expect(difference(apart.gradients, together.gradients)).toBeLessThan(1e-5);
    }
  });
});

/** Copies: a state dict reads its tensors when they are first asked for. */
function weightsOf(model: MatMambaLMHeadModel): Record<string, Float32Array> {
  return Object.fromEntries(Object.entries(model.stateDict()).map(([name, tensor]) => [name, tensor.toFloat32()]));
}

describe('an update', () => {
  async function withGradients<T>(
    work: (model: MatMambaLMHeadModel, engine: TrainingEngine) => Promise<T>,
    scale = 1,
  ): Promise<T> {
    await using model = await tinyModel();
    const engine = await TrainingEngine.attach(model, { maxNorm: 1 });
    const scales = new Float32Array(ROWS * LENGTH).fill(scale / (ROWS * LENGTH));
    const inputs = { ...batchOf(0, 0, ROWS), scale: scales, seed: new Int32Array(3) };
    await engine.accumulate(shapeOf(ROWS), inputs);
    try {
      return await work(model, engine);
    } finally {
      engine.dispose();
    }
  }

  const norm = (gradients: readonly Float32Array[]): number =>
    Math.sqrt(gradients.reduce((sum, values) => values.reduce((part, value) => part + value ** 2, sum), 0));

  test('tells the norm before clipping and leaves gradients of zero', async () => {
    await withGradients(async (_, engine) => {
      const read = (): Promise<Float32Array[]> =>
        Promise.all(engine.gradients().map(async (weight) => weight.read(0, weight.spec.shape[0]!)));
      const expected = norm(await read());
      expect((await engine.update(1, 1e-3)) / expected).toBeCloseTo(1, 5);
      expect(norm(await read())).toBe(0);
    });
  });

  test('the scale of the loss scales the norm and, clipped, changes no update', async () => {
    const step = (scale: number): Promise<{ norm: number; moment: Float32Array }> =>
      withGradients(async (_, engine) => {
        const norm = await engine.update(1, 1e-3);
        return { norm, moment: await engine.moment('backbone.layers.0.mixer.in_proj.weight', 'm').read(0, 1) };
      }, scale);
    const [one, large] = [await step(100), await step(1000)];
    expect(large.norm / one.norm).toBeCloseTo(10, 3);
    for (const [i, value] of one.moment.entries()) expect(Math.abs(value - large.moment[i]!)).toBeLessThan(1e-6);
  });

  test('decays matrices only', async () => {
    await using model = await tinyModel();
    const engine = await TrainingEngine.attach(model, { weightDecay: 0.5 });
    const before = weightsOf(model);
    // No gradients: nothing but decay is left.
    await engine.update(1, 0.1);
    for (const [name, tensor] of Object.entries(model.stateDict())) {
      const factor = tensor.shape.length >= 2 ? 0.95 : 1;
      const old = before[name]!;
      for (const [i, value] of tensor.toFloat32().entries()) expect(Math.abs(value - factor * old[i]!), name).toBeLessThan(1e-6);
    }
    engine.dispose();
  });

  test('a gradient that is no number changes nothing and is named', async () => {
    await withGradients(async (model, engine) => {
      const before = weightsOf(model);
      const names = [...model.parameters.declared.keys()];
      const at = names.indexOf('backbone.layers.1.mixer.dt_bias');
      expect(await engine.firstBad('gradient')).toBeUndefined();
      engine.gradients()[at]!.hostView()!.fill(Number.NaN, 2, 3);
      expect(await engine.update(1, 1e-3)).toBeNaN();
      expect(await engine.firstBad('weight')).toBeUndefined();
      expect(await engine.firstBad('gradient')).toEqual({ kind: 'gradient', name: names[at], element: 2, value: NaN });
      expect(weightsOf(model)).toEqual(before);
    });
  });
});

test('only float32 models are trained', async () => {
  await using model = await MatMambaLMHeadModel.create(CONFIG, { dtype: 'bf16', threads: 1, blas: 'off' });
  await expect(TrainingEngine.attach(model)).rejects.toMatchObject({ code: 'OPTION' });
});
