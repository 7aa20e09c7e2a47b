/** What the tests of this folder share: temporary folders, sample tensors, a pickle assembler, small zip files. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DTYPES, type DType, Random, bytesOf, sizeOf } from '../tensor/index.ts';
import type { TensorToSave } from './types.ts';
import { crc32 } from './zip.ts';

/** Runs `body` with a folder that is removed afterwards. */
export async function withFolder<T>(body: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'matmamba-checkpoint-'));
  try {
    return await body(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A tensor of repeatable random bytes, handed out in uneven pieces. */
export function sample(name: string, dtype: DType, shape: readonly number[]): TensorToSave & { bytes: Uint8Array } {
  const random = new Random(1, name);
  const bytes = Uint8Array.from({ length: sizeOf(shape) * bytesOf(dtype) }, () => random.uint32() & 255);
  return {
    name,
    dtype,
    shape,
    bytes,
    async *chunks() {
      for (let at = 0; at < bytes.length; at += 1001) yield bytes.subarray(at, at + 1001);
    },
  };
}

/** One tensor of every dtype, shapes odd on purpose. */
export function samples(): Array<TensorToSave & { bytes: Uint8Array }> {
  return [
    ...DTYPES.map((dtype, i) => sample(`layer.${dtype}`, dtype, [3, 5 + i])),
    sample('scalar', 'f32', []),
    sample('empty', 'f32', [0, 4]),
  ];
}

type Part = string | number | Uint8Array | readonly number[];

/** Joins opcodes (numbers), text and bytes into a pickle. */
export function assemble(...parts: readonly Part[]): Uint8Array {
  const bytes: number[] = [];
  for (const part of parts) {
    if (typeof part === 'number') bytes.push(part);
    else for (const byte of typeof part === 'string' ? new TextEncoder().encode(part) : part) bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/** BINUNICODE. */
export function text(value: string): Uint8Array {
  const bytes = new TextEncoder().encode(value);
  return assemble('X', [bytes.length, 0, 0, 0], bytes);
}

/** A tuple of small whole numbers. */
export function whole(...values: number[]): Uint8Array {
  return assemble('(', ...values.map((value) => assemble('K', value)), 't');
}

/** `_rebuild_tensor_v2` of a FloatStorage of `count` elements. */
export function pickledTensor(key: string, count: number, offset: number, shape: number[], strides: number[]): Uint8Array {
  return assemble(
    'ctorch._utils\n_rebuild_tensor_v2\n((',
    text('storage'),
    'ctorch\nFloatStorage\n',
    text(key),
    text('cpu'),
    'K',
    count,
    'tQK',
    offset,
    whole(...shape),
    whole(...strides),
    0x89,
    'ccollections\nOrderedDict\n)RtR',
  );
}

/** A plain zip (no zip64, unaligned), as other tools write them; torch reads such files too. */
export function plainZip(files: Readonly<Record<string, Uint8Array>>): Uint8Array {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let offset = 0;
  for (const [name, bytes] of Object.entries(files)) {
    const nameBytes = new TextEncoder().encode(name);
    const common = new DataView(new ArrayBuffer(26));
    common.setUint32(10, crc32(bytes), true);
    common.setUint32(14, bytes.length, true);
    common.setUint32(18, bytes.length, true);
    common.setUint16(22, nameBytes.length, true);
    const fields = new Uint8Array(common.buffer);
    const local = assemble('PK', [3, 4], fields, nameBytes, bytes);
    const where = new DataView(new ArrayBuffer(4));
    where.setUint32(0, offset, true);
    directory.push(assemble('PK', [1, 2], [20, 0], fields, new Uint8Array(10), new Uint8Array(where.buffer), nameBytes));
    parts.push(local);
    offset += local.length;
  }
  const size = directory.reduce((sum, entry) => sum + entry.length, 0);
  const end = new DataView(new ArrayBuffer(18));
  end.setUint16(4, directory.length, true);
  end.setUint16(6, directory.length, true);
  end.setUint32(8, size, true);
  end.setUint32(12, offset, true);
  return assemble(...parts, ...directory, 'PK', [5, 6], new Uint8Array(end.buffer));
}
