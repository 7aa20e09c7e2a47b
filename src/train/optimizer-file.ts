/**
 * AdamW's moments on disk: a safetensors file beside the model, tensors named `PARAMETER#m` and `PARAMETER#v`. One file,
 * whether they lay on one rank or on several: a run goes on from it with any number of ranks.
 */

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type TensorToSave, PIECE_BYTES, openCheckpoint, saveTensors } from '../checkpoint/index.ts';
import { MatMambaError } from '../errors.ts';
import type { ParameterDeclaration } from '../models/parameters.ts';
import { viewAs } from '../tensor/dtype.ts';
import { type Shape, formatShape, sizeOf } from '../tensor/tensor.ts';
import { MOMENTS, type Moment, type TrainingEngine } from './engine.ts';

const FOLDER = 'optimizer';

/** Moments that lie on other ranks come from them: these must call `sendMoments`. @throws FILE, DEVICE */
export async function saveMoments(
  folder: string,
  engine: TrainingEngine,
  parameters: Iterable<ParameterDeclaration>,
): Promise<void> {
  await mkdir(join(folder, FOLDER), { recursive: true });
  const tensors: TensorToSave[] = [];
  for (const { name, shape } of parameters) {
    for (const moment of MOMENTS) {
      tensors.push({
        name: `${name}#${moment}`,
        dtype: 'f32',
        shape,
        async *chunks() {
          for await (const { buffer, byteOffset, byteLength } of pieces(engine, name, shape, moment)) {
            yield new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
          }
        },
      });
    }
  }
  await saveTensors(join(folder, FOLDER), 'safetensors', tensors);
}

/** The part of the other ranks in `saveMoments`, whose order this is. @throws DEVICE */
export async function sendMoments(engine: TrainingEngine, parameters: Iterable<ParameterDeclaration>): Promise<void> {
  if (!engine.isSharded) return;
  for (const { name, shape } of parameters) {
    for (const moment of MOMENTS) for await (const _ of pieces(engine, name, shape, moment));
  }
}

async function* pieces(engine: TrainingEngine, name: string, shape: Shape, moment: Moment): AsyncGenerator<Float32Array> {
  const [rows, piece] = [shape[0]!, rowsPerPiece(shape)];
  for (let first = 0; first < rows; first += piece) {
    yield await engine.readMoment({ name, shape }, moment, first, Math.min(piece, rows - first));
  }
}

/** Reads the moments that lie on this rank. @throws FILE, FORMAT; WEIGHTS, SHAPE when the file belongs to another model */
export async function loadMoments(
  folder: string,
  engine: TrainingEngine,
  parameters: Iterable<ParameterDeclaration>,
): Promise<void> {
  const checkpoint = await openCheckpoint(join(folder, FOLDER));
  try {
    for (const { name, shape } of parameters) {
      if (!engine.owns(name)) continue;
      for (const moment of MOMENTS) {
        const entry = checkpoint.entries.get(`${name}#${moment}`);
        if (!entry) throw new MatMambaError('WEIGHTS', `${folder} lacks the moment ${name}#${moment}`);
        if (entry.dtype !== 'f32' || formatShape(entry.shape) !== formatShape(shape)) {
          throw new MatMambaError(
            'SHAPE',
            `${folder}: ${entry.name} expected f32 ${formatShape(shape)}, got ${entry.dtype} ${formatShape(entry.shape)}`,
          );
        }
        const rowBytes = 4 * sizeOf(shape.slice(1));
        await engine.moment(name, moment).write({
          rows: async (first, count) => viewAs('f32', await entry.read(first * rowBytes, count * rowBytes)),
        });
      }
    }
  } finally {
    await checkpoint.close();
  }
}

function rowsPerPiece(shape: readonly number[]): number {
  return Math.max(1, Math.floor(PIECE_BYTES / (4 * sizeOf(shape.slice(1)))));
}
