/** Conversions of weights on their way to a device, and what of a file's quantised weights devices take. */

import { MatMambaError } from '../errors.ts';
import { formatShape } from '../tensor/tensor.ts';
import { fromFloat32 } from '../tensor/dtype.ts';

const INT8_MAX = 127;
/** value + this - this rounds a float64 of moderate size to the nearest whole number, ties to even. */
const ROUND = 1.5 * 2 ** 52;
const LARGEST_HALF = 0x7bff;

/** @throws OPTION for groups that kernels cannot read in whole vectors */
export function checkGroupSize(groupSize: number): void {
  if (groupSize >= 1 && groupSize % 16 === 0) return;
  throw new MatMambaError('OPTION', `int8 groups of ${groupSize} columns: not a multiple of 16`);
}

/** @throws SHAPE unless there is a scale for every group of every row */
export function checkScales(name: string, scales: Float32Array, rows: number, groups: number): void {
  if (scales.length === rows * groups) return;
  throw new MatMambaError('SHAPE', `${name}: scales expected ${formatShape([rows, groups])}, got ${scales.length} in all`);
}

/** One symmetric scale for every group of columns: the largest magnitude becomes 127. Groups that are not finite become NaN. */
export function quantise(values: Float32Array, columns: number, groupSize: number, groups: number) {
  const rows = values.length / columns;
  const quantised = new Int8Array(values.length);
  const scales = new Float32Array(rows * groups);
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      const start = row * columns + group * groupSize;
      const end = Math.min(start + groupSize, (row + 1) * columns);
      let largest = 0;
      let sum = 0;
      for (let i = start; i < end; i++) {
        const magnitude = Math.abs(values[i]!);
        sum += magnitude;
        largest = Math.max(largest, magnitude);
      }
      const scale = sum < Infinity ? Math.fround(largest / INT8_MAX) : NaN;
      scales[row * groups + group] = scale;
      const inverse = scale > 0 ? 1 / scale : 0;
      for (let i = start; i < end; i++) quantised[i] = values[i]! * inverse + ROUND - ROUND;
    }
  }
  return { quantised, scales };
}

/** Halves held to the largest finite one. @throws WEIGHTS for a weight that is not finite */
export function finiteHalves(name: string, values: Float32Array): Uint16Array {
  const halves = fromFloat32('f16', values);
  for (const [i, bits] of halves.entries()) {
    if ((bits & 0x7fff) < 0x7c00) continue;
    if (!Number.isFinite(values[i]!)) throw new MatMambaError('WEIGHTS', `${name} is not finite; f16 holds up to 65504`);
    halves[i] = (bits & 0x8000) | LARGEST_HALF;
  }
  return halves;
}
