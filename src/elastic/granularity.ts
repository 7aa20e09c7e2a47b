/**
 * How wide each layer works. `dims` counts a layer's width as a part of D: 2 * dims inner channels, in whole heads of
 * P = D / 32. A granularity is one `dims` per layer.
 */

import { MatMambaError } from '../errors.ts';

/** Levels the published models were trained at: dims = D / level. */
export const TRAINED_LEVELS = [1, 2, 4, 8] as const;

/** How a call chooses its widths. `mixnmatchDims` wins over `mrlLevel`, and both over the layers' own flags. */
export interface WidthOptions {
  /** dims = D / mrlLevel in every layer. */
  readonly mrlLevel?: number | undefined;
  /** dims of every layer, or one per layer. */
  readonly mixnmatchDims?: number | readonly number[] | undefined;
}
export const WIDTH_OPTION_KEYS = ['mrlLevel', 'mixnmatchDims'] as const;

/** The flags of one layer, as in the original: with `mixnmatch` on, the layer uses `mixnmatchDims`. */
export interface LayerFlags {
  mixnmatch: boolean;
  mixnmatchDims: number;
}

/** Smallest dims and the step between valid ones: whole heads, whole dims. */
export function widthStep(dModel: number): number {
  const headdim = dModel / 32;
  return headdim % 2 === 0 ? headdim / 2 : headdim;
}

/** @throws WIDTH unless 2 * dims is a whole number of heads from 1 to 64 */
export function checkDims(dims: number, dModel: number, where: string): void {
  const step = widthStep(dModel);
  if (Number.isInteger(dims) && dims >= step && dims <= dModel && dims % step === 0) return;
  const below = Math.max(step, Math.floor(dims / step) * step);
  const near = Number.isFinite(dims)
    ? [...new Set([below, below + step].map((n) => Math.min(n, dModel)))].join(' or ')
    : `${dModel}`;
  throw new MatMambaError('WIDTH', `${where}: ${dims} dims is no width of a layer with d_model ${dModel}`, {
    hint: `a width is a multiple of ${step} from ${step} to ${dModel}; the nearest are ${near}`,
  });
}

/** dims of a level. @throws WIDTH */
export function dimsOfLevel(level: number, dModel: number): number {
  const dims = dModel / level;
  const step = widthStep(dModel);
  if (Number.isInteger(level) && level >= 1 && Number.isInteger(dims) && dims >= step && dims % step === 0) return dims;
  const valid = Array.from({ length: dModel / step }, (_, i) => i + 1).filter(
    (n) => dModel % n === 0 && (dModel / n) % step === 0,
  );
  throw new MatMambaError('WIDTH', `mrlLevel ${level} does not divide d_model ${dModel} into whole heads`, {
    hint: `levels of this model: ${valid.join(', ')}`,
  });
}

/** The granularity of a call: dims of every layer. @throws WIDTH naming the layer */
export function resolveWidths(
  options: WidthOptions,
  layers: readonly LayerFlags[],
  dModel: number,
  path: (layer: number) => string,
): number[] {
  const { mixnmatchDims, mrlLevel } = options;
  if (mixnmatchDims !== undefined) {
    const dims = typeof mixnmatchDims === 'number' ? layers.map(() => mixnmatchDims) : [...mixnmatchDims];
    if (dims.length !== layers.length) {
      throw new MatMambaError('WIDTH', `mixnmatchDims has ${dims.length} widths for ${layers.length} layers`, {
        hint: 'give one number, or one per layer',
      });
    }
    for (const [i, n] of dims.entries()) checkDims(n, dModel, path(i));
    return dims;
  }
  if (mrlLevel !== undefined) {
    const dims = dimsOfLevel(mrlLevel, dModel);
    return layers.map(() => dims);
  }
  return layers.map((flags, i) => {
    if (!flags.mixnmatch) return dModel;
    checkDims(flags.mixnmatchDims, dModel, path(i));
    return flags.mixnmatchDims;
  });
}
