/**
 * Mixup (Zhang et al. 2018), cutmix (Yun et al. 2019) and label smoothing of a batch: every picture is blended with, or
 * gets a box of, the picture at the mirrored place of the batch, and the targets are blended alike. One draw serves the
 * whole batch, as in the original recipe.
 */

import type { Random } from '../tensor/random.ts';

export interface MixingOptions {
  /** Beta parameter of mixup; 0: none. */
  readonly mixup: number;
  /** Beta parameter of cutmix; 0: none. With both, each batch takes one of them at even odds. */
  readonly cutmix: number;
  /** Share of the target that is spread over all classes. */
  readonly labelSmoothing: number;
}

/** Smoothed one-hot targets (B, classes) of labels. */
export function smoothedTargets(labels: ArrayLike<number>, classes: number, smoothing: number): Float32Array {
  const targets = new Float32Array(labels.length * classes).fill(smoothing / classes);
  for (let i = 0; i < labels.length; i++) targets[i * classes + labels[i]!]! += 1 - smoothing;
  return targets;
}

/** A draw from Beta(alpha, alpha) as a ratio of two gamma draws. */
export function drawBeta(alpha: number, random: Random): number {
  const a = drawGamma(alpha, random);
  const b = drawGamma(alpha, random);
  return a + b > 0 ? a / (a + b) : 0.5;
}

/** A draw from Gamma(shape, 1) (Marsaglia & Tsang 2000; shapes below 1 through shape + 1). */
function drawGamma(shape: number, random: Random): number {
  if (shape < 1) return drawGamma(shape + 1, random) * (1 - random.uniform()) ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = random.normal();
    const v = (1 + c * x) ** 3;
    if (v > 0 && Math.log(1 - random.uniform()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v;
  }
}

/**
 * Mixes images (B, 3, S, S) in place and returns the soft targets (B, classes).
 * The partner of picture i is picture B - 1 - i.
 */
export function mixBatch(
  images: Float32Array,
  labels: ArrayLike<number>,
  classes: number,
  size: number,
  options: MixingOptions,
  random: Random,
): Float32Array {
  const targets = smoothedTargets(labels, classes, options.labelSmoothing);
  const useCutmix = options.cutmix > 0 && (options.mixup <= 0 || random.uniform() < 0.5);
  const alpha = useCutmix ? options.cutmix : options.mixup;
  if (alpha <= 0) return targets;
  const drawn = drawBeta(alpha, random);
  const keep = useCutmix ? swapBoxes(images, labels.length, size, drawn, random) : blend(images, labels.length, drawn);
  blend(targets, labels.length, keep);
  return targets;
}

/** row = keep * row + (1 - keep) * mirrored row, for all rows at once. */
function blend(rows: Float32Array, count: number, keep: number): number {
  const width = rows.length / count;
  for (let i = 0; i < Math.ceil(count / 2); i++) {
    const [a, b] = [i * width, (count - 1 - i) * width];
    for (let k = 0; k < width; k++) {
      const [x, y] = [rows[a + k]!, rows[b + k]!];
      rows[a + k] = keep * x + (1 - keep) * y;
      rows[b + k] = keep * y + (1 - keep) * x;
    }
  }
  return keep;
}

/** Swaps one box, of about (1 - keep) of the area, between mirrored pictures; returns the exact share that stayed. */
function swapBoxes(images: Float32Array, count: number, size: number, keep: number, random: Random): number {
  const half = (Math.sqrt(1 - keep) * size) / 2;
  const centre = [random.uniform() * size, random.uniform() * size];
  const [top, bottom, left, right] = [centre[0]! - half, centre[0]! + half, centre[1]! - half, centre[1]! + half].map((n) =>
    Math.min(size, Math.max(0, Math.round(n))),
  ) as [number, number, number, number];
  const area = size * size;
  for (let i = 0; i < Math.floor(count / 2); i++) {
    for (let channel = 0; channel < 3; channel++) {
      for (let y = top; y < bottom; y++) {
        const a = (3 * i + channel) * area + y * size;
        const b = (3 * (count - 1 - i) + channel) * area + y * size;
        for (let x = left; x < right; x++) [images[a + x], images[b + x]] = [images[b + x]!, images[a + x]!];
      }
    }
  }
  return 1 - ((bottom - top) * (right - left)) / area;
}
