/**
 * From pixels to what the vision model takes: the evaluation transform of ImageNet. The short side is scaled to
 * S * 256 / 224 (S alone for models below 128 pixels, which see whole small pictures), the centre S x S is cut out,
 * channels are normalised by ImageNet's mean and deviation and laid out (3, S, S). A `preprocessor_config.json` beside
 * the weights may name another mean, deviation and share of the picture that is kept.
 */

import { z } from 'zod';
import { MatMambaError } from '../errors.ts';
import { IMAGENET_DEVIATION, IMAGENET_MEAN, type ImageTransform } from './normalise.ts';

export { IMAGENET_DEVIATION, IMAGENET_MEAN, type ImageTransform, normalisePixels } from './normalise.ts';

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
