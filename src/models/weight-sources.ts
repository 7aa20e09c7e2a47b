/**
 * Where a model's weights come from when it is made: fresh random numbers, tensors in memory, or an open checkpoint.
 * Every value is checked to be finite on its way in.
 */

import type { WeightSource } from '../backends/backend.ts';
import type { TensorEntry } from '../checkpoint/index.ts';
import { MatMambaError, nearestWord } from '../errors.ts';
import { bytesOf, toFloat32, viewAs } from '../tensor/dtype.ts';
import { type Shape, type Tensor, formatShape, sizeOf } from '../tensor/tensor.ts';
import { type ParameterDeclaration, initialRows } from './parameters.ts';

export type SourceOf = (parameter: ParameterDeclaration) => WeightSource;

/** Suffix of the float32 scales beside an int8 tensor. */
export const SCALE_SUFFIX = '_scale';

export function randomWeights(seed: number): SourceOf {
  return (parameter) => ({ rows: initialRows(parameter, seed) });
}

/** @throws WEIGHTS, SHAPE as the rows are read */
export function tensorWeights(tensors: Readonly<Record<string, Tensor>>, nameOf: (parameter: string) => string): SourceOf {
  return ({ name, shape }) => {
    const tensor = tensors[nameOf(name)]!;
    const columns = sizeOf(shape.slice(1));
    const floats = tensor.toFloat32();
    return {
      rows(first, count) {
        const rows = floats.subarray(first * columns, (first + count) * columns);
        checkFinite(name, rows, first * columns);
        return rows;
      },
    };
  };
}

/** Reads from an open checkpoint's tensors piece by piece; int8 tensors with scales are taken over as they are. */
export function checkpointWeights(entries: ReadonlyMap<string, TensorEntry>, signal: AbortSignal | undefined): SourceOf {
  return ({ name, shape }) => {
    const entry = entries.get(name)!;
    const columns = sizeOf(shape.slice(1));
    const rowBytes = bytesOf(entry.dtype) * columns;
    const read = async (first: number, count: number): Promise<Float32Array> => {
      const values = viewAs(entry.dtype, await entry.read(first * rowBytes, count * rowBytes, signal));
      const floats = values instanceof Float32Array ? values : new Float32Array(values.length);
      if (floats !== values) toFloat32(entry.dtype, values, floats);
      return floats;
    };
    const scales = entry.dtype === 'i8' ? entries.get(name + SCALE_SUFFIX) : undefined;
    if (entry.dtype === 'i8') return quantisedSource(name, entry, scales, shape, read, signal);
    return {
      async rows(first, count) {
        const floats = await read(first, count);
        checkFinite(name, floats, first * columns);
        return floats;
      },
    };
  };
}

/** An int8 tensor and the float32 scales (rows) or (rows, groups) beside it. */
function quantisedSource(
  name: string,
  entry: TensorEntry,
  scales: TensorEntry | undefined,
  shape: Shape,
  read: (first: number, count: number) => Promise<Float32Array>,
  signal: AbortSignal | undefined,
): WeightSource {
  const [rows, columns] = [shape[0]!, sizeOf(shape.slice(1))];
  const groups = scales?.shape[1] ?? 1;
  if (scales?.dtype !== 'f32' || scales.shape[0] !== rows || groups < 1) {
    throw new MatMambaError(
      'WEIGHTS',
      `${name} is int8 and needs ${name}${SCALE_SUFFIX} (${rows}) or (${rows}, groups) in float32`,
      {
        hint: scales ? `the file has ${scales.dtype} ${formatShape(scales.shape)}` : 'the file has no such tensor',
      },
    );
  }
  const groupSize = Math.ceil(columns / groups);
  const scaleRows = async (first: number, count: number): Promise<Float32Array> => {
    const values = viewAs('f32', await scales.read(4 * first * groups, 4 * count * groups, signal));
    checkFinite(name + SCALE_SUFFIX, values, first * groups);
    return values;
  };
  return {
    async rows(first, count) {
      const [floats, factors] = await Promise.all([read(first, count), scaleRows(first, count)]);
      for (let row = 0, i = 0; row < count; row++) {
        for (let column = 0; column < columns; column++, i++)
          floats[i]! *= factors[row * groups + Math.floor(column / groupSize)]!;
      }
      return floats;
    },
    quantised: {
      groupSize: groups === 1 ? Infinity : groupSize,
      async rows(first, count) {
        const bytes = await entry.read(first * columns, count * columns, signal);
        return { values: viewAs('i8', bytes), scales: await scaleRows(first, count) };
      },
    },
  };
}

/**
 * Compares the names and shapes that a model needs with what is there.
 * @throws WEIGHTS naming what is missing or left over, SHAPE naming the tensor
 */
export function checkTensors(
  found: ReadonlyMap<string, { readonly shape: Shape }>,
  parameters: ReadonlyMap<string, ParameterDeclaration>,
  aliases: ReadonlyMap<string, string>,
  where: string,
): void {
  const isKnown = (name: string): boolean => parameters.has(name) || aliases.has(name);
  const leftOver = [...found.keys()].filter(
    (name) => !isKnown(name) && !(name.endsWith(SCALE_SUFFIX) && isKnown(name.slice(0, -SCALE_SUFFIX.length))),
  );
  const missing = [...parameters.keys()].filter((name) => !found.has(name));
  if (missing.length > 0 || leftOver.length > 0) {
    const list = (names: string[]): string =>
      names.slice(0, 3).join(', ') + (names.length > 3 ? ` and ${names.length - 3} more` : '');
    const parts = [
      missing.length > 0 ? `lacks ${list(missing)}` : '',
      leftOver.length > 0 ? `holds ${list(leftOver)}, which the config has no place for` : '',
    ];
    const near = missing.length > 0 ? nearestWord(missing[0]!, leftOver) : undefined;
    throw new MatMambaError('WEIGHTS', `${where} ${parts.filter(Boolean).join('; it ')}`, {
      hint: near ? `is '${near}' meant to be '${missing[0]!}'?` : 'config and weights must belong to the same model',
    });
  }
  for (const [name, { shape }] of parameters) {
    const got = found.get(name)!.shape;
    if (got.length === shape.length && got.every((n, i) => n === shape[i])) continue;
    throw new MatMambaError('SHAPE', `${where}: ${name} expected ${formatShape(shape)}, got ${formatShape(got)}`, {
      hint: 'config and weights must belong to the same model',
    });
  }
}

/** @throws WEIGHTS naming the tensor and the first bad element */
function checkFinite(name: string, values: Float32Array, offset: number): void {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * 0;
  if (sum === 0) return;
  const at = values.findIndex((value) => !Number.isFinite(value));
  throw new MatMambaError('WEIGHTS', `the weight ${name} holds ${values[at]} at element ${offset + at}`, {
    hint: 'training diverged or the file is damaged: use an earlier checkpoint',
  });
}
