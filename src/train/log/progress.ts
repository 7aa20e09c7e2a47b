/** What a training run says while it works: one line with losses, rates and the time left. */

export interface ProgressReport {
  /** Steps done, and of the run. */
  readonly step: number;
  readonly totalSteps: number;
  /** Loss of each label (`level 1`), nats. */
  readonly losses: Readonly<Record<string, number>>;
  readonly learningRate: number;
  /** Global norm of the gradients before clipping. */
  readonly gradientNorm: number;
  /** Tokens, or images, a second over all levels. */
  readonly perSecond: number;
  readonly unit?: 'tokens' | 'images';
  /** Until the end, seconds; undefined when not known yet. */
  readonly secondsLeft: number | undefined;
}

/** `step  120/1388   loss L1 4.213  L2 4.260   lr 2.4e-3   norm 0.81   12.3k tokens/s   2 h 05 min left` */
export function formatProgress(report: ProgressReport): string {
  const { step, totalSteps, losses, learningRate, gradientNorm, perSecond, unit = 'tokens', secondsLeft } = report;
  const loss = Object.entries(losses).map(([label, value]) => `${label.replace(/^level /, 'L')} ${formatLoss(value)}`);
  return [
    `step ${String(step).padStart(String(totalSteps).length)}/${totalSteps}`,
    `loss ${loss.join('  ')}`,
    `lr ${formatRate(learningRate)}`,
    `norm ${formatLoss(gradientNorm, 2)}`,
    `${formatAmount(perSecond)} ${unit}/s`,
    secondsLeft === undefined ? '' : `${formatDuration(secondsLeft)} left`,
  ]
    .filter((part) => part !== '')
    .join('   ');
}

function formatLoss(value: number, digits = 3): string {
  if (!Number.isFinite(value)) return String(value);
  return Math.abs(value) < 1e4 ? value.toFixed(digits) : value.toExponential(1);
}

/** `2.4e-3`; a rate of 0 is `0`. */
function formatRate(value: number): string {
  return value === 0 ? '0' : value.toExponential(1);
}

/** Three significant digits with a unit prefix: `12.3k`. */
export function formatAmount(value: number): string {
  if (!Number.isFinite(value)) return '?';
  for (const [size, prefix] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const) {
    // Not 1000k: 999,950 rounds up to the next prefix.
    if (value >= size * 0.9995) return `${(value / size).toPrecision(3)}${prefix}`;
  }
  return value >= 99.95 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1);
}

/** `8 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return '?';
  const s = Math.round(seconds);
  const two = (value: number): string => String(value).padStart(2, '0');
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}
