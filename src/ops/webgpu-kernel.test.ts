/** What stands in front of a WebGPU kernel: bindings, constants, specialisations, and how work is dealt out. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { columnRows } from './linear/webgpu.ts';
import {
  type WebGpuDispatch,
  arena,
  f32,
  fold,
  i32,
  moduleText,
  packConstants,
  reads,
  specialise,
  table,
} from './webgpu-kernel.ts';

describe('a WebGPU kernel', () => {
  test('gets its bindings and constants declared in order', () => {
    const dispatch: WebGpuDispatch = {
      kind: 'dispatch',
      source: 'fn nothing() {}\n',
      entry: 'nothing',
      workgroups: [1],
      enable: ['subgroups'],
      bindings: [arena('vec4<f32>'), reads('weight', { label: 'w' }), table('rows', Uint32Array.of(1))],
      constants: { x: 3, eps: f32(0.5), shift: i32(-1) },
    };
    expect(moduleText(dispatch).split('\n')).toEqual([
      'enable subgroups;',
      '@group(0) @binding(0) var<storage, read_write> arena: array<vec4<f32>>;',
      '@group(0) @binding(1) var<storage, read> weight: array<f32>;',
      '@group(0) @binding(2) var<storage, read> rows: array<u32>;',
      'struct Constants {',
      '  x: u32,',
      '  eps: f32,',
      '  shift: i32,',
      '}',
      '@group(0) @binding(3) var<uniform> c: Constants;',
      expect.stringContaining('fn folded'),
      'fn nothing() {}',
      '',
    ]);
    expect([...new Int32Array(packConstants(dispatch.constants).buffer)]).toEqual([3, 0x3f000000, -1]);
    expect(moduleText({ ...dispatch, constants: {} })).not.toContain('uniform');
  });

  test('is specialised by lines of constants', () => {
    expect(specialise({ ROWS: 4, CENTER: true, EPS: { f32: 1e-7 } })).toBe(
      'const ROWS = 4u;\nconst CENTER = true;\nconst EPS = f32(1e-7);\n',
    );
  });

  test('has its workgroups folded into two dimensions that hold them all', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 31 }), (count) => {
        const [x, y = 1] = fold(count);
        expect(x * y).toBeGreaterThanOrEqual(count);
        expect(x * y - count).toBeLessThanOrEqual(Math.max(1, y));
        expect(Math.max(x, y)).toBeLessThanOrEqual(65535);
      }),
    );
  });
});

test('every column of a product is computed, or zeroed, by one part of the weight', () => {
  const segments = [
    { start: 2, count: 20 },
    { start: 40, count: 3 },
  ];
  const parts = [0, 15, 30].map((firstRow) => ({ firstRow, rows: 15, values: { label: '' }, scales: undefined }));
  const [ELSEWHERE, PADDING] = [0xffffffff, 0xfffffffe];
  const maps = parts.map((part) => columnRows(segments, part));
  expect(maps[0]).toHaveLength(48);
  for (let column = 0; column < 48; column++) {
    const mine = maps.map((map) => map[column]!);
    expect(mine.filter((row) => row !== ELSEWHERE)).toHaveLength(1);
    const part = mine.findIndex((row) => row !== ELSEWHERE);
    const expected = column < 20 ? 2 + column : column >= 32 && column < 35 ? 40 + column - 32 : PADDING;
    expect(mine[part] === PADDING ? PADDING : mine[part]! + parts[part]!.firstRow).toBe(expected);
  }
});
