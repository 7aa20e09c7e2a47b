import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { SingleProcess } from '../distributed/index.ts';
import { MatMamba2Vision } from '../models/vision-model.ts';
import { Random } from '../tensor/random.ts';
import { readImage } from '../vision/decode.ts';
import { readLabels } from '../vision/labels.ts';
import { imageTransform } from '../vision/preprocess.ts';
import type { RunSummary } from './run.ts';
import { type VisionRunOptions, trainVisionModel } from './vision-run.ts';

const root = mkdtempSync(join(tmpdir(), 'matmamba-vision-run-'));
const data = join(root, 'pictures');
afterAll(() => rmSync(root, { recursive: true, force: true }));

const COLOURS = { blue: [0, 0, 1], green: [0, 1, 0], red: [1, 0, 0], yellow: [1, 1, 0] } as const;
const NAMES = Object.keys(COLOURS) as (keyof typeof COLOURS)[];
const STEPS = 30;
const SIZE = 16;

/** Noise around a colour. */
beforeAll(async () => {
  for (const name of NAMES) {
    mkdirSync(join(data, name), { recursive: true });
    for (let i = 0; i < 10; i++) {
      const random = new Random(i, name);
      const pixels = Uint8Array.from(
        { length: 3 * SIZE * SIZE },
        (_, k) => 60 + 120 * COLOURS[name][k % 3]! + 70 * random.uniform(),
      );
      await sharp(pixels, { raw: { width: SIZE, height: SIZE, channels: 3 } })
        .png()
        .toFile(join(data, name, `${i}.png`));
    }
  }
});

function trainInto(out: string, given: Partial<VisionRunOptions> = {}): Promise<RunSummary> {
  return trainVisionModel({
    out: join(root, out),
    data,
    validationData: data,
    config: { dModel: 32, nLayer: 2, imageSize: SIZE, patchSize: 8, ssmCfg: { dState: 16 } },
    headBias: -1,
    mixing: { mixup: 0.2, cutmix: 1, labelSmoothing: 0.05 },
    augmentation: 'full',
    skipBad: false,
    recipe: {
      strategy: { strategy: 'sample', levels: [1, 2, 4, 8] },
      batch: 16,
      microBatch: 8,
      schedule: { peak: 1e-2, warmupSteps: 3, totalSteps: STEPS },
      adamw: { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.05, maxNorm: 1 },
      projDropRate: 0.1,
      dropPathRate: 0.1,
      distillation: 0,
      seed: 1,
    },
    recompute: false,
    validateEvery: 12,
    saveEvery: 7,
    communicator: new SingleProcess(),
    device: { threads: 1, blas: 'off' },
    ...given,
  });
}

interface LogLine {
  readonly step: number;
  readonly losses?: Record<string, number>;
  readonly validation?: Record<string, number>;
  readonly accuracy?: Record<string, number>;
}

/** The log without what depends on the clock. */
function logOf(out: string): LogLine[] {
  const lines = readFileSync(join(root, out, 'log.jsonl'), 'utf8')
    .trimEnd()
    .split('\n');
  return lines.map((line) => {
    const { seconds: _, ...rest } = JSON.parse(line) as LogLine & { seconds?: number };
    return rest;
  });
}

const mean = (values: Record<string, number> | undefined): number => {
  const all = Object.values(values ?? {});
  return all.reduce((a, b) => a + b, 0) / all.length;
};

test('a vision model learns at every level; a stopped run goes on as if it had not been', { timeout: 60_000 }, async () => {
  const seen: number[] = [];
  const summary = await trainInto('whole', { onValidation: (step, _losses, accuracy) => seen.push(step, mean(accuracy)) });
  const log = logOf('whole');
  const steps = log.filter(({ losses }) => losses);
  expect(steps).toHaveLength(STEPS);
  expect(mean(steps.at(-1)?.losses)).toBeLessThan(mean(steps[0]?.losses));
  const held = log.filter(({ validation }) => validation);
  expect(held.map(({ step }) => step)).toEqual([12, 24, 30]);
  expect(seen).toEqual(held.flatMap(({ step, accuracy }) => [step, mean(accuracy)]));
  for (const level of [1, 2, 4, 8]) {
    expect(held.at(-1)?.validation?.[`level ${level}`]).toBeLessThan(Math.log(NAMES.length));
    expect(held.at(-1)?.accuracy?.[`level ${level}`]).toBeGreaterThan(0.6);
  }
  expect(summary.bestLoss).toBe(Math.min(...held.map(({ validation }) => mean(validation))));

  // Stopped after step 10, killed, so to speak, after step 17; the checkpoint of step 14 is what the last part starts from.
  const stop = new AbortController();
  const stopped = trainInto('parts', { signal: stop.signal, onStep: ({ step }) => step === 10 && stop.abort() });
  await expect(stopped).rejects.toMatchObject({ code: 'ABORTED' });
  const killed = trainInto('parts', {
    onStep({ step }) {
      if (step === 17) throw new Error('killed');
    },
  });
  await expect(killed).rejects.toThrow('killed');
  expect((await trainInto('parts')).firstStep).toBe(14);
  expect(logOf('parts')).toEqual(log);
  await expect(trainInto('parts', { augmentation: 'crop' })).rejects.toMatchObject({ code: 'OPTION' });

  const best = join(root, 'whole', 'best');
  const labels = await readLabels(join(best, 'labels.json'));
  expect(labels).toEqual(NAMES);
  await using model = await MatMamba2Vision.fromPretrained(best, { threads: 1, blas: 'off' });
  for (const mrlLevel of [1, 2, 4, 8]) {
    const scores = await model.forward(await readImage(join(data, 'red', '3.png'), imageTransform(SIZE)), { mrlLevel });
    const values = [...scores.toFloat32()];
    expect(labels[values.indexOf(Math.max(...values))], `level ${mrlLevel}`).toBe('red');
  }
});

test('weights with another number of classes are refused', async () => {
  const folder = join(root, 'other');
  await using model = await MatMamba2Vision.create(
    { dModel: 32, nLayer: 1, imageSize: SIZE, patchSize: 8, nClasses: 3 },
    { threads: 1 },
  );
  await model.savePretrained(folder);
  await expect(trainInto('started', { initFrom: folder })).rejects.toMatchObject({ code: 'CONFIG' });
});
