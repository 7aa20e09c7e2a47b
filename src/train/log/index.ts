/** Logs of a training run: TensorBoard event files, JSON lines, curves and progress lines. */
export type { Point } from './chart-scale.ts';
export { JsonLinesLog, type LogEntry, readJsonLines } from './json-lines.ts';
export { type LossCurvesOptions, type LossSeries, lossCurvesSvg } from './loss-curves.ts';
export { type ProgressReport, formatAmount, formatDuration, formatProgress } from './progress.ts';
export { RateMeter, type RateMeterOptions } from './rate-meter.ts';
export { type TensorBoardOptions, TensorBoardWriter } from './tensor-board.ts';
