/** Training: the engine, the loop, runs in folders, schedules, strategies and recipes. Node only. */
export { ADAMW_DEFAULTS, type AdamWOptions, TrainingEngine } from './engine.ts';
export { type LanguageRunOptions, trainLanguageModel } from './language-run.ts';
export { type LanguagePreset, TRAIN_PRESETS, TRAIN_PRESET_NAMES, type TrainPreset, type VisionPreset } from './presets.ts';
export { type RecipeOptions, type RunLog, type RunOptions, type RunSummary, findResume, runTraining } from './run.ts';
export { RunStore, type StoredCheckpoint } from './run-store.ts';
export { type Schedule, learningRateSchedule } from './schedule.ts';
export { type StepPart, type Strategy, type StrategyOptions, createStrategy } from './strategy.ts';
export { type StepRecord, type TrainerOptions, type TrainingData, train } from './trainer.ts';
