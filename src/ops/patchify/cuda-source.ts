/**
 * `patchify` and its gradient: images of (B, C, H, W), a row of W for each (b, c, i), against patches of
 * (B, H/p * W/p, C*p*p). Both directions go through their output in vectors that lie inside a row of a patch; where no
 * vector width divides the patch size, VECTOR is 1.
 */

import { type CudaBuffer, type KernelLaunch, i32 } from '../cuda-kernel.ts';
import { rowArguments, rowsLaunch, typeDefines, vectorWidth } from '../cuda-vectors.ts';

const SOURCE = String.raw`
extern "C" __global__ void patchify(const IMAGES_TYPE *images, int imagesStride, PATCHES_TYPE *patches, int patchesStride,
                                    int channels, int height, int across, int size, int rows, int width, int columns) {
  int row, column;
  if (!place(rows, columns, row, column)) return;
  float values[VECTOR] = {};
  if (column < width) {
    int line = row / across, down = height / size;
    int image = line / down;
    int channel = column / (size * size), inside = column - channel * size * size;
    int i = inside / size, j = inside - i * size;
    i64 from = ((i64)image * channels + channel) * height + (line - image * down) * size + i;
    load_row<VECTOR>(values, images + from * imagesStride + (row - line * across) * size + j);
  }
  store_row<VECTOR>(patches + (i64)row * patchesStride + column, values);
}

extern "C" __global__ void patchify_backward(const PATCHES_TYPE *patches, int patchesStride, IMAGES_TYPE *images,
                                             int imagesStride, int channels, int height, int across, int size,
                                             int rows, int width, int columns) {
  int row, column;
  if (!place(rows, columns, row, column)) return;
  float values[VECTOR] = {};
  if (column < width) {
    int plane = row / height, y = row - plane * height;
    int image = plane / channels, channel = plane - image * channels;
    int line = y / size, i = y - line * size;
    int along = column / size, j = column - along * size;
    i64 patch = ((i64)image * (height / size) + line) * across + along;
    load_row<VECTOR>(values, patches + patch * patchesStride + (channel * size + i) * size + j);
  }
  store_row<VECTOR>(images + (i64)row * imagesStride + column, values);
}
`;

/** Images to patches, or back. */
export function patchifyLaunch(images: CudaBuffer, patches: CudaBuffer, size: number, backward: boolean): KernelLaunch {
  const [, channels, height, width] = images.shape as [number, number, number, number];
  const widest = vectorWidth(images, patches);
  return rowsLaunch({
    entry: backward ? 'patchify_backward' : 'patchify',
    source: SOURCE,
    specialise: typeDefines({ images, patches }),
    vector: [widest, 4].find((vector) => size % vector === 0) ?? 1,
    y: backward ? images : patches,
    args: [
      ...(backward ? rowArguments(patches, images) : rowArguments(images, patches)),
      i32(channels),
      i32(height),
      i32(width / size),
      i32(size),
    ],
  });
}
