/**
 * Where a model's weights come from when it is made: fresh random numbers, tensors in memory, or an open checkpoint.
 * Every value is checked to be finite on its way in.
 */

import type { WeightSource } from '../backends/backend.ts';
import type { TensorEntry } from '../checkpoint/index.ts';
import { MatMambaError, nearestWord } from '../errors.ts';
import { type DType, bytesOf, toFloat32, viewAs } from '../tensor/dtype.ts';
import { INT4_GROUPS, dequantise, int4RowBytes, unpackInt4 } from '../tensor/int4.ts';
import { type Shape, type Tensor, formatShape, sizeOf } from '../tensor/tensor.ts';
import { type ParameterDeclaration, initialRows } from './parameters.ts';

export type SourceOf = (parameter: ParameterDeclaration) => WeightSource;

/** Suffix of the float32 scales beside an int8 or int4 tensor. */
export const SCALE_SUFFIX = '_scale';

/** What files say in their metadata of how their weights were quantised. */
export const QUANTISATION = {
  int8: 'int8 symmetric, one scale per row',
  int4: "int4 symmetric, one scale per group of columns: two's complement, two to a byte, the first in the low half",
} as const;

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

/** Reads from an open checkpoint's tensors piece by piece; quantised tensors with scales are taken over as they are. */
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
    const scales = entries.get(name + SCALE_SUFFIX);
    if (entry.dtype === 'i8') return quantisedSource({ name, storage: 'int8', entry, scales, shape, signal });
    if (entry.dtype === 'u8' && scales) return quantisedSource({ name, storage: 'int4', entry, scales, shape, signal });
    return {
      async rows(first, count) {
        const floats = await read(first, count);
        checkFinite(name, floats, first * columns);
        return floats;
      },
    };
  };
}

interface QuantisedTensor {
  readonly name: string;
  readonly storage: 'int8' | 'int4';
  readonly entry: TensorEntry;
  readonly scales: TensorEntry | undefined;
  /** Of the parameter. */
  readonly shape: Shape;
  readonly signal: AbortSignal | undefined;
}

/** An int8 or packed int4 tensor and the float32 scales (rows) or (rows, groups) beside it. */
function quantisedSource({ name, storage, entry, scales, shape, signal }: QuantisedTensor): WeightSource {
  const [rows, columns] = [shape[0]!, sizeOf(shape.slice(1))];
  const groups = scales?.shape[1] ?? 1;
  const groupSize = storage === 'int8' ? Math.ceil(columns / groups) : INT4_GROUPS.find((g) => Math.ceil(columns / g) === groups);
  if (scales?.dtype !== 'f32' || scales.shape[0] !== rows || groups < 1 || groupSize === undefined) {
    const wanted = storage === 'int8' ? 'groups' : `groups of ${INT4_GROUPS.join(' or ')} columns`;
    throw new MatMambaError(
      'WEIGHTS',
      `${name} is ${storage} and needs ${name}${SCALE_SUFFIX} (${rows}) or (${rows}, ${wanted}) in float32`,
      {
        hint: scales ? `the file has ${scales.dtype} ${formatShape(scales.shape)}` : 'the file has no such tensor',
      },
    );
  }
  const rowBytes = storage === 'int8' ? columns : int4RowBytes(columns);
  const read = async (first: number, count: number): Promise<{ values: Int8Array; scales: Float32Array }> => {
    const [bytes, factors] = await Promise.all([
      entry.read(first * rowBytes, count * rowBytes, signal),
      scales.read(4 * first * groups, 4 * count * groups, signal),
    ]);
    const floats = viewAs('f32', factors);
    checkFinite(name + SCALE_SUFFIX, floats, first * groups);
    return { values: storage === 'int8' ? viewAs('i8', bytes) : unpackInt4(bytes, columns), scales: floats };
  };
  return {
    async rows(first, count) {
      const { values, scales: factors } = await read(first, count);
      return dequantise(values, factors, columns, groupSize, groups);
    },
    quantised: { storage, groupSize: storage === 'int8' && groups === 1 ? Infinity : groupSize, rows: read },
  };
}

/**
 * Compares the names and shapes that a model needs with what is there.
 * In files int4 tensors are packed: (rows, bytes).
 * @throws WEIGHTS naming what is missing or left over, SHAPE naming the tensor
 */
export function checkTensors(
  found: ReadonlyMap<string, { readonly shape: Shape; readonly dtype: DType }>,
  parameters: ReadonlyMap<string, ParameterDeclaration>,
  aliases: ReadonlyMap<string, string>,
  where: string,
  packed = false,
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
    const { shape: got, dtype } = found.get(name)!;
    const isPacked = packed && dtype === 'u8' && found.has(name + SCALE_SUFFIX);
    const expected = isPacked ? [shape[0]!, int4RowBytes(sizeOf(shape.slice(1)))] : shape;
    if (got.length === expected.length && got.every((n, i) => n === expected[i])) continue;
    throw new MatMambaError('SHAPE', `${where}: ${name} expected ${formatShape(expected)}, got ${formatShape(got)}`, {
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
