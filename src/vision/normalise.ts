/** Pixels as the vision model takes them: channels normalised by mean and deviation, laid out (3, S, S). */

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
