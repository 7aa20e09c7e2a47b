/** AdamW's moments on disk: a safetensors file beside the model, tensors named `PARAMETER#m` and `PARAMETER#v`. */

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type TensorToSave, PIECE_BYTES, openCheckpoint, saveTensors } from '../checkpoint/index.ts';
import { MatMambaError } from '../errors.ts';
import type { ParameterDeclaration } from '../models/parameters.ts';
import { viewAs } from '../tensor/dtype.ts';
import { formatShape, sizeOf } from '../tensor/tensor.ts';
import { MOMENTS, type TrainingEngine } from './engine.ts';

const FOLDER = 'optimizer';

/** @throws FILE */
export async function saveMoments(
  folder: string,
  engine: TrainingEngine,
  parameters: Iterable<ParameterDeclaration>,
): Promise<void> {
  await mkdir(join(folder, FOLDER), { recursive: true });
  const tensors: TensorToSave[] = [];
  for (const { name, shape } of parameters) {
    for (const moment of MOMENTS) {
      const weight = engine.moment(name, moment);
      const rows = shape[0]!;
      const piece = rowsPerPiece(shape);
      tensors.push({
        name: `${name}#${moment}`,
        dtype: 'f32',
        shape,
        *chunks() {
          for (let first = 0; first < rows; first += piece) {
            const part = weight.read(first, Math.min(piece, rows - first));
            yield new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
          }
        },
      });
    }
  }
  await saveTensors(join(folder, FOLDER), 'safetensors', tensors);
}

/** @throws FILE, FORMAT; WEIGHTS, SHAPE when the file belongs to another model */
export async function loadMoments(
  folder: string,
  engine: TrainingEngine,
  parameters: Iterable<ParameterDeclaration>,
): Promise<void> {
  const checkpoint = await openCheckpoint(join(folder, FOLDER));
  try {
    for (const { name, shape } of parameters) {
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
