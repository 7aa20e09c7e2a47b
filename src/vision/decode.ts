/** Image files to pixels in Node, by sharp, an optional dependency that is loaded when an image is first decoded. */

import { readFile } from 'node:fs/promises';
import { MatMambaError, messageOf } from '../errors.ts';
import { type Tensor, tensor } from '../tensor/tensor.ts';
import { type ImageTransform, normalisePixels } from './preprocess.ts';

type Sharp = (typeof import('sharp'))['default'];

let loading: Promise<Sharp> | undefined;

/** @throws DEVICE when sharp is not installed or does not start here */
async function loadSharp(): Promise<Sharp> {
  loading ??= import('sharp').then(({ default: sharp }) => sharp);
  try {
    return await loading;
  } catch (cause) {
    loading = undefined;
    throw new MatMambaError('DEVICE', 'images are decoded by the package sharp, which is not installed or does not run here', {
      hint: 'npm install sharp',
      cause,
    });
  }
}

/** A part of an image, in pixels from its upper left corner. */
export interface ImagePart {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/**
 * An image file as the model's input (1, 3, S, S): turned upright, in sRGB without its alpha, scaled and cut.
 * @throws FILE when it cannot be read, FORMAT when it is damaged or no image, DEVICE without sharp
 */
export async function readImage(path: string, transform: ImageTransform): Promise<Tensor> {
  const { size } = transform;
  const values = new Float32Array(3 * size * size);
  normalisePixels(await readPixels(path, transform), transform, values);
  return tensor(values, [1, 3, size, size]);
}

/**
 * An image file as interleaved 8-bit RGB (S, S, 3). The centre is cut out, or the part that `choose` picks from the
 * upright image's width and height.
 * @throws FILE when it cannot be read, FORMAT when it is damaged or no image, DEVICE without sharp
 */
export async function readPixels(
  path: string,
  { size, resize }: Pick<ImageTransform, 'size' | 'resize'>,
  choose?: (width: number, height: number) => ImagePart,
): Promise<Uint8Array> {
  const sharp = await loadSharp();
  const content = await readFile(path).catch((cause: NodeJS.ErrnoException) => {
    throw new MatMambaError(
      'FILE',
      cause.code === 'ENOENT' ? `there is no file ${path}` : `cannot read ${path}: ${cause.message}`,
      {
        cause,
      },
    );
  });
  let pixels: Uint8Array;
  try {
    const upright = sharp(content).autoOrient().toColourspace('srgb').removeAlpha();
    const options = { kernel: 'cubic', fastShrinkOnLoad: false } as const;
    if (choose) {
      const { autoOrient } = await sharp(content).metadata();
      upright.extract(choose(autoOrient.width, autoOrient.height)).resize({ ...options, width: size, height: size, fit: 'fill' });
    } else {
      const margin = Math.round((resize - size) / 2);
      upright
        .resize({ ...options, width: resize, height: resize, fit: 'cover', position: 'centre' })
        .extract({ left: margin, top: margin, width: size, height: size });
    }
    pixels = await upright.raw({ depth: 'uchar' }).toBuffer();
  } catch (cause) {
    throw new MatMambaError('FORMAT', `${path} cannot be decoded: ${messageOf(cause).split('\n')[0]}`, {
      hint: 'it is damaged or no image; JPEG, PNG, WebP, GIF, AVIF and TIFF are read',
      cause,
    });
  }
  const channels = pixels.length / (size * size);
  return channels === 3 ? pixels : threeChannels(pixels, channels);
}

/** Grey pixels, should a decoder leave them grey, as RGB. */
function threeChannels(pixels: Uint8Array, channels: number): Uint8Array {
  const count = pixels.length / channels;
  return Uint8Array.from({ length: 3 * count }, (_, i) => pixels[Math.floor(i / 3) * channels]!);
}
