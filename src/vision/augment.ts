/**
 * Random cuts of single pictures for training. Large models see a random part of a picture, 8% to 100% of its area and
 * 3:4 to 4:3 in shape, scaled to S x S (the "inception crop", Szegedy et al. 2015); models below 128 pixels see the whole
 * picture, moved by up to 4 pixels (He et al. 2016, section 4.2). Both mirror every other one.
 */

import type { Random } from '../tensor/random.ts';
import type { ImagePart } from './decode.ts';

/** `full`: cut and mirrored; `crop`: cut, for pictures that mean something else in the mirror; `none`: the centre. */
export const AUGMENTATIONS = ['full', 'crop', 'none'] as const;
export type Augmentation = (typeof AUGMENTATIONS)[number];

const LEAST_AREA = 0.08;
const WIDEST = 4 / 3;
const TRIES = 10;
/** Pixels of black border that a small picture is moved into. */
export const PADDING = 4;

/** A random part of a picture; the largest of a fitting shape in its centre should ten draws not fit. */
export function randomPart(width: number, height: number, random: Random): ImagePart {
  for (let i = 0; i < TRIES; i++) {
    const area = width * height * (LEAST_AREA + (1 - LEAST_AREA) * random.uniform());
    const aspect = Math.exp(Math.log(WIDEST) * (2 * random.uniform() - 1));
    const w = Math.max(1, Math.round(Math.sqrt(area * aspect)));
    const h = Math.max(1, Math.round(Math.sqrt(area / aspect)));
    if (w > width || h > height) continue;
    return { left: below(width - w + 1, random), top: below(height - h + 1, random), width: w, height: h };
  }
  const w = Math.min(width, Math.max(1, Math.round(height * WIDEST)));
  const h = Math.min(height, Math.max(1, Math.round(width * WIDEST)));
  return { left: Math.floor((width - w) / 2), top: Math.floor((height - h) / 2), width: w, height: h };
}

/** A whole number below `count`. */
export function below(count: number, random: Random): number {
  return Math.floor(random.uniform() * count);
}

/** Pixels (S, S, 3) moved to the right and down, black where nothing was, then mirrored; a copy. */
export function moveAndMirror(pixels: Uint8Array, size: number, right: number, down: number, mirrored: boolean): Uint8Array {
  const moved = new Uint8Array(pixels.length);
  const [first, last] = [Math.max(0, right), Math.min(size, size + right)];
  for (let y = Math.max(0, down); y < Math.min(size, size + down); y++) {
    const source = 3 * ((y - down) * size - right);
    for (let x = first; x < last; x++) {
      const to = 3 * (y * size + (mirrored ? size - 1 - x : x));
      const from = source + 3 * x;
      moved[to] = pixels[from]!;
      moved[to + 1] = pixels[from + 1]!;
      moved[to + 2] = pixels[from + 2]!;
    }
  }
  return moved;
}
