/**
 * Matryoshka strategies: which widths a step trains, and how much each counts. A step is a list of micro-batches, each
 * at one granularity.
 *
 * - `joint` (the original's language recipe): every level in every step, each on fresh micro-batches of its own.
 * - `sample` (its vision recipe): one level a micro-batch, in turn or at random, a step every few micro-batches.
 *
 * Invariants: pure functions of (options, seed, step), so ranks agree and a run that resumes repeats; every step has
 * equally many micro-batches, numbered from 0, and their weights sum up to 1.
 */

import { TRAINED_LEVELS, dimsOfLevel, widthStep } from '../elastic/granularity.ts';
import { MatMambaError, refuseUnknownKeys } from '../errors.ts';
import { philox, streamOf } from '../tensor/random.ts';

export interface StrategyOptions {
  readonly strategy: 'joint' | 'sample';
  /** D and layers of the model. */
  readonly dModel: number;
  readonly nLayer: number;
  /** Levels to train, 1, 2, 4, 8 by default. */
  readonly levels?: readonly number[];
  /** How much each level counts, in any unit; all the same by default. */
  readonly weights?: readonly number[];
  /** Micro-batches: `joint`, for every level in a step (1 by default); `sample`, in a step (by default one per level). */
  readonly microBatches?: number;
  /** `sample`: levels in turn (default) or drawn by their weights. */
  readonly order?: 'cycle' | 'random';
  /** Granularities drawn anew in every step that count as so many more levels; 0 by default. */
  readonly mixes?: number;
  /** How much each mix counts, in the unit of `weights`; by default as much as an average level. */
  readonly mixWeight?: number;
  /** What a mix draws the width of a layer from: the trained levels (default), or every width a layer can have. */
  readonly mixFrom?: 'levels' | 'any';
  /** Mixes are drawn from so many that are drawn once, whose programs are kept; 0 (default): anew in every step. */
  readonly mixPool?: number;
  /** Whether parts below full width learn from the full model's logits. */
  readonly distill?: boolean;
  readonly seed?: number;
}

/** One micro-batch of a step. */
export interface StepPart {
  /** `level 4` or `mix`: what logs group losses by. */
  readonly label: string;
  /** dims of every layer. */
  readonly widths: readonly number[];
  /** Share in the step's loss. */
  readonly weight: number;
  /** Place in the step, counted from 0: another place, another batch. */
  readonly index: number;
  /** Whether it learns from the full model's logits. */
  readonly distill: boolean;
}

export interface Strategy {
  /** Labels of all parts that occur, widest level first, mixes last. */
  readonly labels: readonly string[];
  /** Micro-batches of every step. */
  readonly microBatches: number;
  /** The parts of a step, counted from 0. */
  parts(step: number): StepPart[];
}

const OPTION_KEYS = [
  'strategy',
  'dModel',
  'nLayer',
  'levels',
  'weights',
  'microBatches',
  'order',
  'mixes',
  'mixWeight',
  'mixFrom',
  'mixPool',
  'distill',
  'seed',
];

/** What a micro-batch can be: a fixed level, or a mix to be drawn. */
interface Choice {
  readonly label: string;
  readonly weight: number;
  /** dims of every layer; undefined for a mix. */
  readonly widths: readonly number[] | undefined;
}

/**
 * Four random numbers for a place in the run, whatever was drawn before: mixes and levels have streams of their own.
 * @param place step or micro-batch, counted over the run
 */
function draw(seed: number, stream: string, place: number, block: number, out: Uint32Array): Uint32Array {
  philox(place >>> 0, Math.floor(place / 2 ** 32), streamOf(stream), block, seed >>> 0, Math.floor(seed / 2 ** 32), out);
  return out;
}

/** Widths of one mix: each layer drawn for itself. */
function drawMix(seed: number, place: number, widths: readonly number[], nLayer: number): number[] {
  const numbers = new Uint32Array(4);
  return Array.from({ length: nLayer }, (_, layer) => {
    if (layer % 4 === 0) draw(seed, 'mix', place, layer / 4, numbers);
    return widths[Math.floor((numbers[layer % 4]! / 2 ** 32) * widths.length)]!;
  });
}

/** Index drawn with a probability in proportion to its weight. */
function pick(weights: readonly number[], uniform: number): number {
  const total = weights.reduce((a, b) => a + b, 0);
  let left = uniform * total;
  for (const [i, weight] of weights.entries()) {
    left -= weight;
    if (left < 0) return i;
  }
  return weights.findLastIndex((weight) => weight > 0);
}

/** @throws OPTION unless `value` is a whole number of at least `least` */
function checkCount(value: number, least: number, what: string): void {
  if (Number.isInteger(value) && value >= least) return;
  throw new MatMambaError('OPTION', `${what} must be a whole number of at least ${least}, got ${value}`);
}

/** Levels and mixes with their weights. @throws OPTION, WIDTH */
function choicesOf(options: StrategyOptions): Choice[] {
  const { dModel, nLayer, levels = TRAINED_LEVELS, weights, mixes = 0 } = options;
  checkCount(nLayer, 1, 'nLayer');
  checkCount(mixes, 0, 'mixes');
  if (levels.length === 0) throw new MatMambaError('OPTION', 'there is no level to train');
  if (new Set(levels).size !== levels.length) {
    throw new MatMambaError('OPTION', `a level occurs twice in ${levels.join(', ')}`, {
      hint: 'give it a larger weight instead',
    });
  }
  if (weights && weights.length !== levels.length) {
    throw new MatMambaError('OPTION', `${weights.length} weights for ${levels.length} levels`, {
      hint: 'give one weight per level',
    });
  }
  const levelWeights = levels.map((_, i) => weights?.[i] ?? 1);
  const { mixWeight = levelWeights.reduce((a, b) => a + b, 0) / levels.length } = options;
  for (const weight of [...levelWeights, mixWeight]) {
    if (!(weight > 0 && weight < Infinity)) {
      throw new MatMambaError('OPTION', `weights must be above 0, got ${weight}`, {
        hint: 'leave a level out that is not to be trained',
      });
    }
  }
  const choices: Choice[] = levels.map((level, i) => ({
    label: `level ${level}`,
    weight: levelWeights[i]!,
    widths: Array.from({ length: nLayer }, () => dimsOfLevel(level, dModel)),
  }));
  for (let i = 0; i < mixes; i++) choices.push({ label: 'mix', weight: mixWeight, widths: undefined });
  return choices;
}

/** Widths that a mix draws from. */
function mixWidths({ dModel, levels = TRAINED_LEVELS, mixFrom = 'levels' }: StrategyOptions): number[] {
  if (mixFrom === 'levels') return levels.map((level) => dimsOfLevel(level, dModel));
  const step = widthStep(dModel);
  return Array.from({ length: dModel / step }, (_, i) => (i + 1) * step);
}

/** The strategy that the options describe. @throws OPTION; WIDTH for a level that the model cannot be cut to */
export function createStrategy(options: StrategyOptions): Strategy {
  refuseUnknownKeys(options, OPTION_KEYS, 'strategy');
  const { strategy, dModel, nLayer, order = 'cycle', distill = false, mixPool = 0, seed = 0 } = options;
  checkCount(mixPool, 0, 'mixPool');
  const choices = choicesOf(options);
  const widthsOfMix = mixWidths(options);
  const { microBatches = strategy === 'joint' ? 1 : choices.length } = options;
  checkCount(microBatches, 1, 'microBatches');
  const perStep = strategy === 'joint' ? choices.length * microBatches : microBatches;
  const numbers = new Uint32Array(4);

  /** Which choice a micro-batch trains. */
  const choiceAt = (step: number, index: number): number => {
    if (strategy === 'joint') return Math.floor(index / microBatches);
    const place = step * perStep + index;
    if (order === 'cycle') return place % choices.length;
    const uniform = draw(seed, 'level', place, 0, numbers)[0]! / 2 ** 32;
    return pick(
      choices.map(({ weight }) => weight),
      uniform,
    );
  };

  /** Widths of a mix that is drawn at a place in the run. */
  const mixAt = (place: number): number[] => {
    const drawn = mixPool > 0 ? Math.floor((draw(seed, 'pool', place, 0, numbers)[0]! / 2 ** 32) * mixPool) : place;
    return drawMix(seed, drawn, widthsOfMix, nLayer);
  };

  return {
    labels: [...new Set(choices.map(({ label }) => label))],
    microBatches: perStep,
    parts(step) {
      const chosen = Array.from({ length: perStep }, (_, index) => choiceAt(step, index));
      // Drawn by weight, each counts the same; otherwise the weights are those of the loss.
      const shares = chosen.map((i) => (strategy === 'sample' && order === 'random' ? 1 : choices[i]!.weight));
      const total = shares.reduce((a, b) => a + b, 0);
      return chosen.map((i, index) => {
        const { label, widths: fixed } = choices[i]!;
        // One draw per mix and step: all its micro-batches run the same program.
        const widths = fixed ?? mixAt(step * choices.length + i);
        const full = widths.every((dims) => dims === dModel);
        return { label, widths, weight: shares[index]! / total, index, distill: distill && !full };
      });
    },
  };
}
