import { describe, expect, test } from 'vitest';
import type { ParameterSpec } from '../../graph/graph.ts';
import { bf16ToFloat, f16ToFloat, floatToBf16, floatToF16 } from '../../tensor/dtype.ts';
import { Random } from '../../tensor/random.ts';
import { type WeightMemory, type WeightStorage, packInt8Rows, packRows, readInt8Rows, storageOf, unpackRows } from './weights.ts';

const spec = (shape: readonly number[], layout: ParameterSpec['layout'] = 'matrix'): ParameterSpec => ({
  name: 'w',
  shape,
  layout,
});

function normals(count: number): Float32Array {
  const random = new Random(3, 'weights');
  return Float32Array.from({ length: count }, () => random.normal());
}

/** Memory full of garbage, as freed memory is. */
function memoryOf(storage: WeightStorage): WeightMemory {
  return { values: new Uint8Array(storage.bytes).fill(0xff), scales: new Float32Array(storage.scaleBytes / 4).fill(NaN) };
}

/** Packs in pieces of 3 rows and reads everything back. */
function roundTrip(storage: WeightStorage, source: Float32Array): { back: Float32Array; memory: WeightMemory } {
  const memory = memoryOf(storage);
  const piece = 3 * storage.columns;
  for (let at = 0; at < source.length; at += piece)
    packRows(storage, memory, at / storage.columns, source.subarray(at, at + piece));
  const back = new Float32Array(source.length);
  unpackRows(storage, memory, 0, back);
  return { back, memory };
}

describe.each([
  [1, 1],
  [7, 5],
  [8, 16],
  [19, 40],
])('%i x %i', (rows, columns) => {
  const source = normals(rows * columns);

  test('float32 is exact', () => {
    expect(roundTrip(storageOf(spec([rows, columns]), 'f32'), source).back).toEqual(source);
  });

  test('bfloat16 and half are the nearest of their kind', () => {
    const bf16 = roundTrip(storageOf(spec([rows, columns]), 'bf16'), source).back;
    expect(bf16).toEqual(source.map((x) => bf16ToFloat(floatToBf16(x))));
    const f16 = roundTrip(storageOf(spec([rows, columns]), 'f16'), source).back;
    expect(f16).toEqual(source.map((x) => f16ToFloat(floatToF16(x))));
  });

  test.each([undefined, 16])('int8 is within half a step, groups of %s', (groupSize) => {
    const storage = storageOf(spec([rows, columns]), 'i8', groupSize ? { groupSize } : {});
    const { back, memory } = roundTrip(storage, source);
    const { values, scales } = readInt8Rows(storage, memory, 0, rows);
    for (const [i, x] of source.entries()) {
      const scale =
        scales.at(Math.floor(i / columns) * storage.scaleGroups + Math.floor((i % columns) / storage.groupSize)) ?? NaN;
      expect(back.at(i)).toBe(Math.fround((values.at(i) ?? NaN) * scale));
      expect(Math.abs((back.at(i) ?? NaN) - x)).toBeLessThanOrEqual(scale * 0.5001);
    }
  });

  test('int8 from disk comes back bit for bit', () => {
    const storage = storageOf(spec([rows, columns]), 'i8', { groupSize: 16 });
    const values = Int8Array.from(source, (x) => x * 40);
    const scales = normals(rows * storage.scaleGroups);
    const memory = memoryOf(storage);
    packInt8Rows(storage, memory, 0, values, scales);
    expect(readInt8Rows(storage, memory, 0, rows)).toEqual({ values, scales });
  });
});

test('columns are padded with zeros', () => {
  for (const dtype of ['f32', 'bf16', 'f16', 'i8'] as const) {
    const narrow = storageOf(spec([8, 20]), dtype);
    const { memory } = roundTrip(narrow, normals(160));
    // The same bytes read as a matrix without padding show what lies behind each row.
    const wide = { ...narrow, columns: narrow.stride };
    const all = new Float32Array(8 * narrow.stride);
    unpackRows(wide, memory, 0, all);
    for (let row = 0; row < 8; row++) expect([...all.subarray(row * 32 + 20, row * 32 + 32)]).toEqual(Array(12).fill(0));
  }
});

test('taps are transposed, vectors have slack', () => {
  const taps = storageOf(spec([20, 1, 4], 'taps'), 'bf16');
  const source = normals(80);
  const { back, memory } = roundTrip(taps, source);
  expect(back).toEqual(source);
  expect(new Float32Array(memory.values.buffer)[32 + 7]).toBe(source[7 * 4 + 1]);
  const vector = storageOf(spec([5], 'vector'), 'i8');
  expect(vector).toMatchObject({ dtype: 'f32', bytes: 4 * 21 });
  expect(roundTrip(vector, normals(5)).back).toEqual(normals(5));
});

test('values at the edges', () => {
  const storage = storageOf(spec([1, 8]), 'f16');
  const edges = Float32Array.of(0, -0, 1e-8, 6e-8, -6.1e-5, 65504, 1e6, -1e6);
  expect([...roundTrip(storage, edges).back]).toEqual([
    0,
    -0,
    0,
    2 ** -24,
    f16ToFloat(floatToF16(-6.1e-5)),
    65504,
    65504,
    -65504,
  ]);
  expect(() =>
    roundTrip(
      storage,
      edges.map(() => NaN),
    ),
  ).toThrowError(expect.objectContaining({ code: 'WEIGHTS' }));
  const int8 = storageOf(spec([2, 8]), 'i8');
  const { back } = roundTrip(
    int8,
    Float32Array.from({ length: 16 }, (_, i) => (i === 3 ? NaN : i < 8 ? 1 : 0)),
  );
  expect([...back.subarray(0, 8)]).toEqual(Array(8).fill(NaN));
  expect([...back.subarray(8)]).toEqual(Array(8).fill(0));
});

test('refuses rows that do not fit', () => {
  const storage = storageOf(spec([4, 8]), 'f32');
  expect(() => packRows(storage, memoryOf(storage), 2, normals(24))).toThrowError(expect.objectContaining({ code: 'SHAPE' }));
  expect(() => packRows(storage, memoryOf(storage), 0, normals(7))).toThrowError(expect.objectContaining({ code: 'SHAPE' }));
  expect(() => storageOf(spec([4, 64]), 'i8', { groupSize: 24 })).toThrowError(expect.objectContaining({ code: 'OPTION' }));
});
