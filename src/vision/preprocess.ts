/**
 * From pixels to what the vision model takes: the evaluation transform of ImageNet. The short side is scaled to
 * S * 256 / 224 (S alone for models below 128 pixels, which see whole small pictures), the centre S x S is cut out,
 * channels are normalised by ImageNet's mean and deviation and laid out (3, S, S). A `preprocessor_config.json` beside
 * the weights may name another mean, deviation and share of the picture that is kept.
 */

import { z } from 'zod';
import { MatMambaError } from '../errors.ts';

export interface ImageTransform {
  /** S: height and width of the model's input. */
  readonly size: number;
  /** The short side is scaled to this before the centre is cut out. */
  readonly resize: number;
  readonly mean: readonly [number, number, number];
  readonly deviation: readonly [number, number, number];
}

export const IMAGENET_MEAN = [0.485, 0.456, 0.406] as const;
export const IMAGENET_DEVIATION = [0.229, 0.224, 0.225] as const;
const IMAGENET_CROP = 224 / 256;
/** Below this, models are trained on whole small pictures. */
const LEAST_CROPPED_SIZE = 128;

const triple = z.tuple([z.number(), z.number(), z.number()]);
const SETTINGS = z.object({
  image_mean: triple.optional(),
  image_std: triple.refine((values) => values.every((n) => n > 0), 'a deviation is above 0').optional(),
  crop_pct: z.number().gt(0).max(1).optional(),
});

/** The transform of a model with inputs of `size` pixels; `settings` is a parsed `preprocessor_config.json`. @throws CONFIG */
export function imageTransform(size: number, settings: unknown = {}): ImageTransform {
  const parsed = SETTINGS.safeParse(settings);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0]!;
    throw new MatMambaError('CONFIG', `preprocessor_config.json: ${path.join('.') || 'the file'}: ${message}`);
  }
  const { image_mean: mean = [...IMAGENET_MEAN], image_std: deviation = [...IMAGENET_DEVIATION], crop_pct: given } = parsed.data;
  const crop = given ?? (size < LEAST_CROPPED_SIZE ? 1 : IMAGENET_CROP);
  return { size, resize: Math.max(size, Math.round(size / crop)), mean, deviation };
}

/** Interleaved 8-bit RGB (S, S, 3) -> normalised float32 (3, S, S), written to `target`. */
export function normalisePixels(pixels: Uint8Array, { size, mean, deviation }: ImageTransform, target: Float32Array): void {
  const area = size * size;
  if (pixels.length !== 3 * area || target.length !== 3 * area) {
    throw new MatMambaError('SHAPE', `pixels: expected (${size}, ${size}, 3), got ${pixels.length} values for ${target.length}`);
  }
  for (let channel = 0; channel < 3; channel++) {
    const scale = 1 / (255 * deviation[channel]!);
    const shift = mean[channel]! / deviation[channel]!;
    for (let i = 0; i < area; i++) target[channel * area + i] = pixels[3 * i + channel]! * scale - shift;
  }
}
