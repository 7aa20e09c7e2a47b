import { expect, it } from 'vitest';
import { TRAIN_PRESETS, TRAIN_PRESET_NAMES, type TrainPreset, isTrainPresetName } from './presets.ts';
import { learningRateSchedule } from './schedule.ts';
import { createStrategy } from './strategy.ts';

it.each(TRAIN_PRESET_NAMES)('%s has a schedule and a strategy that hold', (name) => {
  const preset: TrainPreset = TRAIN_PRESETS[name];
  const { schedule, strategy, levels, model } = preset;
  expect(isTrainPresetName(name)).toBe(true);
  const rate = learningRateSchedule(schedule);
  expect(rate(schedule.warmupSteps)).toBeGreaterThan(0.9 * schedule.peak);
  expect(rate(schedule.totalSteps)).toBeCloseTo(schedule.peak * schedule.floor, 15);
  expect(createStrategy({ strategy, levels, dModel: model.dModel!, nLayer: model.nLayer! }).microBatches).toBe(4);
  expect(Number.isInteger(preset.batch)).toBe(true);
});

it("holds the original's tokens and images", () => {
  const { batch, lengthTokens, schedule } = TRAIN_PRESETS['lm-130m'];
  expect(batch * lengthTokens * schedule.totalSteps).toBe(15_728_640_000);
  const books = TRAIN_PRESETS['books-10m'];
  expect(books.batch * books.lengthTokens * books.schedule.totalSteps).toBe(90_963_968);
  const vision = [TRAIN_PRESETS['vision-35m'], TRAIN_PRESETS['vision-135m']];
  expect(vision.map(({ batch, schedule, levels }) => batch * schedule.totalSteps * levels.length)).toEqual([
    1_022_361_600, 1_022_361_600,
  ]);
});
