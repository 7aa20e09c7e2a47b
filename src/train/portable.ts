/** Training without files and other processes: what browsers are given of `matmamba/train`. */
export { ADAMW_DEFAULTS, type AdamWOptions, TrainingEngine } from './engine.ts';
export { type FineTuneOptions, fineTune } from './fine-tune.ts';
export { type Schedule, learningRateSchedule } from './schedule.ts';
export { type StepPart, type Strategy, type StrategyOptions, createStrategy } from './strategy.ts';
export type { StepRecord } from './trainer.ts';
