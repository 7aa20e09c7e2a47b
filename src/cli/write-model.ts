/**
 * Writes a model's weights from any source straight to a folder, a piece at a time: no device, no second copy, and so
 * no limit by memory. What it writes is what `savePretrained` writes.
 */

import { readdir } from 'node:fs/promises';
import { packInt8Rows, packRows, readInt8Rows, storageOf } from '../backends/cpu/weights.ts';
import { type WeightSource, type WeightStorage, quantisedAs, storageFor, tensorDType } from '../backends/backend.ts';
import {
  type CheckpointFormat,
  PIECE_BYTES,
  type TensorToSave,
  formatPythonJson,
  saveTensors,
  writeFileAtomic,
} from '../checkpoint/index.ts';
import { MatMambaError } from '../errors.ts';
import type { ModelDescription } from '../models/description.ts';
import type { ParameterDeclaration } from '../models/parameters.ts';
import { QUANTISATION, SCALE_SUFFIX } from '../models/weight-sources.ts';
import { fromFloat32 } from '../tensor/dtype.ts';
import { INT4_GROUP, int4RowBytes, packInt4, quantiseInt4 } from '../tensor/int4.ts';
import { sizeOf } from '../tensor/tensor.ts';
import { UsageError } from './arguments.ts';
import type { Progress } from './progress.ts';

/** Largest finite half; larger weights are held to it, as on the device. */
const HALF_MAX = 65504;

export interface WriteModelOptions {
  readonly folder: string;
  readonly format: CheckpointFormat;
  readonly dtype: WeightStorage;
  /** The source of each parameter; its rows are asked for in order. */
  readonly sourceOf: (parameter: ParameterDeclaration) => WeightSource;
  readonly signal: AbortSignal;
  readonly progress: Progress;
}

/** @throws UsageError for int8 and int4 in the pytorch format, which has no place for scales */
export function checkFormat(format: CheckpointFormat, dtype: WeightStorage): void {
  if (format === 'pytorch' && (dtype === 'int8' || dtype === 'int4')) {
    throw new UsageError(
      `--dtype ${dtype} does not go with --format pytorch`,
      `that format is for the original implementation, which reads no ${dtype}: use bf16`,
    );
  }
}

/** Refuses a folder that holds a model already. @throws FILE */
export async function checkFolderIsFree(folder: string, force: boolean): Promise<void> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOTDIR') throw new MatMambaError('FILE', `${folder} is a file, not a folder`);
    return [];
  });
  const held = names.find((name) => name === 'config.json' || /\.(safetensors|bin)$/.test(name));
  if (held && !force)
    throw new MatMambaError('FILE', `${folder} holds ${held} already`, {
      hint: 'name another folder, or replace it with --force',
    });
}

/** Weights, then `config.json`. @throws FILE, WEIGHTS, ABORTED; a failure leaves earlier weights as they were */
export async function writeModel({ parameters, json }: ModelDescription, options: WriteModelOptions): Promise<void> {
  const { folder, format, dtype, sourceOf, signal, progress } = options;
  const declared = [...parameters.declared.values()];
  const total = declared.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  let done = 0;
  const onRows = (elements: number): void => progress.update((done += elements), total);
  const tensors = declared.flatMap((parameter) => {
    const stored = storageFor(parameter, dtype);
    if (stored === 'int8' || stored === 'int4') return quantisedTensors(parameter, stored, sourceOf, onRows);
    return [floatTensor(parameter, stored, sourceOf, onRows)];
  });
  for (const [alias, name] of parameters.aliases) {
    const { dtype: tied, shape } = tensors.find((tensor) => tensor.name === name)!;
    tensors.push({ name: alias, dtype: tied, shape, aliasOf: name, chunks: () => [] });
  }
  const metadata = { format: 'pt', ...(dtype === 'int8' || dtype === 'int4' ? { quantisation: QUANTISATION[dtype] } : {}) };
  await saveTensors(folder, format, tensors, { metadata, signal });
  await writeFileAtomic(`${folder}/config.json`, `${formatPythonJson(json, 4)}\n`);
}

/** Row ranges of at most a piece, in float32. */
function* pieces({ shape }: ParameterDeclaration): Generator<{ first: number; count: number }> {
  const rows = shape[0]!;
  const step = Math.max(1, Math.floor(PIECE_BYTES / (4 * sizeOf(shape.slice(1)))));
  for (let first = 0; first < rows; first += step) yield { first, count: Math.min(step, rows - first) };
}

function floatTensor(
  parameter: ParameterDeclaration,
  stored: Exclude<WeightStorage, Quantised>,
  sourceOf: WriteModelOptions['sourceOf'],
  onRows: (elements: number) => void,
): TensorToSave {
  const dtype = tensorDType(stored);
  return {
    name: parameter.name,
    dtype,
    shape: parameter.shape,
    async *chunks() {
      const source = sourceOf(parameter);
      for (const { first, count } of pieces(parameter)) {
        const rows = await source.rows(first, count);
        if (stored === 'f16') for (let i = 0; i < rows.length; i++) rows[i] = Math.max(-HALF_MAX, Math.min(HALF_MAX, rows[i]!));
        const part = fromFloat32(dtype, rows);
        yield new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
        onRows(rows.length);
      }
    },
  };
}

type Quantised = 'int8' | 'int4';

/** A quantised matrix as its file has it. */
interface QuantisedMatrix {
  readonly values: Int8Array | Uint8Array;
  readonly scales: Float32Array;
}

/** A matrix as whole numbers and its scales; quantised when the first of the two is written, let go after the second. */
function quantisedTensors(
  parameter: ParameterDeclaration,
  stored: Quantised,
  sourceOf: WriteModelOptions['sourceOf'],
  onRows: (elements: number) => void,
): TensorToSave[] {
  const { name, shape } = parameter;
  const rows = shape[0]!;
  const columns = sizeOf(shape.slice(1));
  const groupSize = quantisedAs('int4', sourceOf(parameter))?.groupSize ?? INT4_GROUP;
  let quantised: Promise<QuantisedMatrix> | undefined;
  const quantise = (): Promise<QuantisedMatrix> => {
    const source = sourceOf(parameter);
    return stored === 'int8'
      ? quantiseInt8Rows(parameter, source, onRows)
      : quantiseInt4Rows(parameter, source, groupSize, onRows);
  };
  const once = async (part: 'values' | 'scales'): Promise<Uint8Array> => {
    const held = quantised;
    quantised = held ? undefined : quantise();
    const { buffer, byteOffset, byteLength } = (await (held ?? quantised!))[part];
    return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
  };
  const chunks = (part: 'values' | 'scales') =>
    async function* (): AsyncGenerator<Uint8Array> {
      yield await once(part);
    };
  const [values, groups]: [Pick<TensorToSave, 'dtype' | 'shape'>, number] =
    stored === 'int8'
      ? [{ dtype: 'i8', shape }, 1]
      : [{ dtype: 'u8', shape: [rows, int4RowBytes(columns)] }, Math.ceil(columns / groupSize)];
  return [
    { name, ...values, chunks: chunks('values') },
    { name: name + SCALE_SUFFIX, dtype: 'f32', shape: [rows, groups], chunks: chunks('scales') },
  ];
}

async function quantiseInt8Rows(
  parameter: ParameterDeclaration,
  source: WeightSource,
  onRows: (elements: number) => void,
): Promise<QuantisedMatrix> {
  const placed = storageOf(parameter, 'i8');
  const memory = { values: new Uint8Array(placed.bytes), scales: new Float32Array(placed.scaleBytes / 4) };
  // Other groupings than one scale a row are quantised anew.
  const held = quantisedAs('int8', source);
  const ready = held?.groupSize === Infinity ? held : undefined;
  for (const { first, count } of pieces(parameter)) {
    if (ready) {
      const { values, scales } = await ready.rows(first, count);
      packInt8Rows(placed, memory, first, values, scales);
    } else packRows(placed, memory, first, await source.rows(first, count));
    onRows(count * placed.columns);
  }
  return readInt8Rows(placed, memory, 0, placed.rows);
}

async function quantiseInt4Rows(
  parameter: ParameterDeclaration,
  source: WeightSource,
  groupSize: number,
  onRows: (elements: number) => void,
): Promise<QuantisedMatrix> {
  const rows = parameter.shape[0]!;
  const columns = sizeOf(parameter.shape.slice(1));
  const groups = Math.ceil(columns / groupSize);
  const rowBytes = int4RowBytes(columns);
  const matrix = { values: new Uint8Array(rows * rowBytes), scales: new Float32Array(rows * groups) };
  const ready = quantisedAs('int4', source);
  for (const { first, count } of pieces(parameter)) {
    const { values, scales } = ready
      ? await ready.rows(first, count)
      : quantiseInt4(await source.rows(first, count), columns, groupSize);
    matrix.values.set(packInt4(values, columns), first * rowBytes);
    matrix.scales.set(scales, first * groups);
    onRows(count * columns);
  }
  return matrix;
}
