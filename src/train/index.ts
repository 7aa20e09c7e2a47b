/** Training: the engine, the loop, runs in folders, schedules, strategies and recipes; in browsers what portable.ts gives. */
export * from './portable.ts';
export { type LanguageRunOptions, trainLanguageModel } from './language-run.ts';
export { type LanguagePreset, TRAIN_PRESETS, TRAIN_PRESET_NAMES, type TrainPreset, type VisionPreset } from './presets.ts';
export { type RecipeOptions, type RunLog, type RunOptions, type RunSummary, findResume, runTraining } from './run.ts';
export { RunStore, type StoredCheckpoint } from './run-store.ts';
export { type TrainerOptions, type TrainingData, train } from './trainer.ts';
