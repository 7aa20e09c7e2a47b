/**
 * One decoded step of a layer in three launches, against the float64 references of its six ops put together, on an
 * emulated device.
 */

import { afterAll, expect } from 'vitest';
import { type Segment, segmentColumns } from '../src/graph/graph.ts';
import { addNormReference } from '../src/ops/add-norm/reference.ts';
import { type Fill, type HostValue, fillOperand } from '../src/ops/cases.ts';
import { chunkScanReference } from '../src/ops/chunk-scan/reference.ts';
import { conv1dSiluReference } from '../src/ops/conv1d-silu/reference.ts';
import type { CudaBuffer, CudaNode, CudaWeight } from '../src/ops/cuda-kernel.ts';
import { decodeLayerFuses, decodeLayerLaunches } from '../src/ops/decode/cuda-layer.ts';
import type { DecodeLayer } from '../src/ops/decode/layer.ts';
import { gatedNormReference } from '../src/ops/gated-norm/reference.ts';
import { gateRows } from '../src/ops/gated-silu/reference.ts';
import { linearReference, linearRows } from '../src/ops/linear/reference.ts';
import { dequantiseLaunch, fewRowsLaunches } from '../src/ops/linear/cuda-few-rows.ts';
import { normReference } from '../src/ops/norm/reference.ts';
import { emulatedDriver, testEmulated } from './support/emulated.ts';
import { bytesOf, columnsOf, deviceValues, rounded, withoutPadding } from './support/cuda-values.ts';
import { relativeError } from './support/run-case.ts';

interface Setting {
  readonly batch: number;
  readonly dModel: number;
  readonly heads: number;
  readonly headdim: number;
  readonly dState: number;
  readonly activation?: 'f32' | 'bf16' | 'f16';
  readonly weights?: CudaWeight['element'];
  readonly groupSize?: number;
  readonly fullHeads?: number;
  readonly taps?: number;
  readonly slots: readonly number[];
  readonly lengths?: readonly number[];
  readonly residual?: boolean;
  readonly center?: boolean;
  readonly projBias?: boolean;
  readonly convBias?: boolean;
  readonly dHasHdim?: boolean;
  readonly dtLimit?: readonly [number, number];
  readonly normBeforeGate?: boolean;
  readonly rmsnorm?: boolean;
  readonly multiprocessors?: number;
}

const driver = await emulatedDriver();
afterAll(() => driver.dispose());

const { upload, download, deviceBuffer, readRows, vector, matrix } = deviceValues(driver);
const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

function testNode(
  setting: Setting,
  attributes: CudaNode['attributes'],
  operands: Readonly<Record<string, CudaBuffer | CudaWeight | { slotTable: bigint; offset: number; shape: readonly number[] }>>,
): CudaNode {
  const get = (name: string): never => (operands[name] ?? expect.fail(`no operand ${name}`)) as never;
  return {
    attributes,
    buffer: get,
    weight: get,
    state: get,
    runs: get,
    has: (name) => name in operands,
    segments: (name) => attributes[name] as readonly Segment[],
    number: (name) => attributes[name] as number,
    flag: (name) => attributes[name] as boolean,
    activation: setting.activation ?? 'f32',
    multiprocessors: setting.multiprocessors ?? 4,
    scratch: 0n,
  };
}

/** Columns `column .. column + width` of a reference value as (batch, 1, width). */
function slice({ shape, data }: HostValue, column: number, width: number): HostValue {
  const all = shape.at(-1)!;
  const rows = data.length / all;
  const picked = Array.from({ length: rows }, (_, row) => [...data.subarray(row * all + column, row * all + column + width)]);
  return { shape: [rows, 1, width], data: Float64Array.from(picked.flat()) };
}

async function compare(name: string, setting: Setting): Promise<void> {
  const { batch, dModel, heads, headdim, dState, slots, activation = 'f32', weights = 'f32', groupSize = 0, taps = 4 } = setting;
  const { fullHeads = heads, residual = true, center = false, projBias = false, convBias = true, dHasHdim = false } = setting;
  const { dtLimit = [0, Infinity], normBeforeGate = false, rmsnorm = true, lengths } = setting;
  const inner = heads * headdim;
  const fullInner = fullHeads * headdim;
  const fill = (operand: string, shape: readonly number[], how?: Fill): HostValue => {
    const data = fillOperand(name, operand, { shape, ...(how ? { fill: how } : {}) });
    return { shape, data };
  };
  const starts = [0, fullInner, 2 * fullInner, 2 * fullInner + dState, 2 * fullInner + 2 * dState];
  const counts = [inner, inner, dState, dState, heads];
  const projected: Segment[] = counts.map((count, i) => ({ start: starts[i]!, count }));
  const convolved: Segment[] = [
    { start: 0, count: inner },
    { start: fullInner, count: dState },
    { start: fullInner + dState, count: dState },
  ];
  const channels = fullInner + 2 * dState;
  const [zAt, xAt, , , dtAt] = segmentColumns(projected).columns as [number, number, number, number, number];
  const [, bAt, cAt] = segmentColumns(convolved).columns as [number, number, number];
  const total = segmentColumns(projected).total;

  // Host operands, as the device stores them.
  const x = rounded(fill('x', [batch, dModel], { kind: 'normal', scale: 2, shift: 0.5 }), activation);
  const stream = fill('residual', [batch, dModel], { kind: 'normal', scale: 2 });
  const normWeight = fill('norm', [dModel], { kind: 'normal', shift: 1, scale: 0.2 });
  const normBias = center ? fill('norm bias', [dModel]) : undefined;
  const inWeight = matrix(
    fill('in_proj', [2 * fullInner + 2 * dState + fullHeads, dModel], { kind: 'normal', scale: dModel ** -0.5 }),
    weights,
    groupSize,
  );
  const inBias = projBias ? fill('in bias', [inWeight.host.shape[0]!]) : undefined;
  const convWeight = fill('taps', [channels, 1, taps], { kind: 'uniform', low: -0.5, high: 0.5 });
  const convBiasValue = convBias ? fill('conv bias', [channels], { kind: 'uniform', low: -0.5, high: 0.5 }) : undefined;
  const dtBias = fill('dt bias', [fullHeads], { kind: 'uniform', low: -6, high: -2 });
  const aLog = fill('a', [fullHeads], { kind: 'uniform', low: 0, high: Math.log(16) });
  const d = fill('d', [dHasHdim ? fullInner : fullHeads]);
  const gateWeight = fill('gate', [fullInner], { kind: 'normal', shift: 1, scale: 0.2 });
  const outWeight = matrix(fill('out_proj', [dModel, fullInner], { kind: 'normal', scale: inner ** -0.5 }), weights, groupSize);
  const outBias = projBias ? fill('out bias', [dModel]) : undefined;
  const slotCount = Math.max(...slots) + 2;
  const windows = fill('windows', [slotCount, taps - 1, channels]);
  const states = fill('states', [slotCount, fullHeads, headdim, dState]);
  const indices = { shape: [batch], data: Float64Array.from(slots) };
  const real = lengths && { shape: [batch], data: Float64Array.from(lengths) };

  // The references, one after the other.
  const norm = { eps: 1e-5, center };
  const normed = residual
    ? addNormReference({ x, residual: stream, weight: normWeight, ...(normBias ? { bias: normBias } : {}) }, norm)
    : normReference({ x, weight: normWeight, ...(normBias ? { bias: normBias } : {}) }, norm);
  const rows = linearRows(normed['y']!, inWeight.host, inBias, projected);
  const carried = { slots: indices, ...(real ? { lengths: real } : {}) };
  const convAttributes = { segments: convolved, batch, length: 1 };
  const conv = conv1dSiluReference(
    {
      x: slice(rows, xAt, dtAt - xAt),
      weight: convWeight,
      ...(convBiasValue ? { bias: convBiasValue } : {}),
      state: windows,
      ...carried,
    },
    convAttributes,
  );
  const scanAttributes = { batch, length: 1, headdim, dtMin: dtLimit[0], dtMax: dtLimit[1], dHasHdim };
  const scan = chunkScanReference(
    {
      x: slice(conv['y']!, 0, inner),
      b: slice(conv['y']!, bAt, dState),
      c: slice(conv['y']!, cAt, dState),
      dt: slice(rows, dtAt, heads),
      dtBias,
      aLog,
      d,
      state: states,
      ...carried,
    },
    scanAttributes,
  );
  const z = slice(rows, zAt, inner);
  const gateAttributes = { eps: 1e-5, normBeforeGate };
  const gated = rmsnorm
    ? gatedNormReference({ x: scan['y']!, z, weight: gateWeight }, gateAttributes)['y']!
    : gateRows(scan['y']!, z);
  const outSegments = [{ start: 0, count: dModel }];
  const out = linearReference(
    { x: gated, weight: outWeight.host, ...(outBias ? { bias: outBias } : {}) },
    { segments: outSegments },
  )['y']!;

  // The same on the device. A slot holds the window, then the state.
  const windowBytes = 64 * Math.ceil((4 * sizeOf(windows.shape.slice(1))) / 64);
  const slotBytes = windowBytes + 4 * sizeOf(states.shape.slice(1));
  const slotPointers = Array.from({ length: slotCount }, (_, slot) => {
    const floats = new Float32Array(slotBytes / 4);
    const part = (value: HostValue): Float64Array => {
      const size = sizeOf(value.shape.slice(1));
      return value.data.subarray(slot * size, (slot + 1) * size);
    };
    floats.set(part(windows));
    floats.set(part(states), windowBytes / 4);
    return upload(bytesOf(floats));
  });
  const slotTable = upload(bytesOf(BigUint64Array.from(slotPointers)));
  const whole = (data: readonly number[]): CudaBuffer => {
    const pointer = upload(bytesOf(Int32Array.from(data)));
    return { pointer, element: 'i32', stride: batch, rows: 1, width: batch, shape: [batch] };
  };
  const empty = (width: number, element: 'f32' | 'bf16' | 'f16'): CudaBuffer =>
    deviceBuffer({ shape: [batch, width], data: new Float64Array(batch * width).fill(NaN) }, element);
  const xBuffer = deviceBuffer(x, activation);
  const rowsBuffer = empty(total, activation);
  const scanned = empty(inner, activation);
  const sum = empty(dModel, 'f32');
  const y = empty(dModel, activation);
  const unwritten = empty(Math.max(total, inner), activation);
  const carriedBuffers = { slots: whole(slots), ...(lengths ? { lengths: whole(lengths) } : {}) };
  const layer: DecodeLayer<CudaNode> = {
    norm: testNode(setting, norm, {
      x: xBuffer,
      ...(residual ? { residual: deviceBuffer(stream, 'f32'), sum } : {}),
      weight: vector(normWeight),
      ...(normBias ? { bias: vector(normBias) } : {}),
      y: unwritten,
    }),
    inProj: testNode(
      setting,
      { segments: projected },
      {
        x: unwritten,
        weight: inWeight.weight,
        ...(inBias ? { bias: vector(inBias) } : {}),
        y: rowsBuffer,
      },
    ),
    conv: testNode(setting, convAttributes, {
      x: columnsOf(rowsBuffer, xAt, dtAt - xAt),
      weight: vector(convWeight, 'taps'),
      ...(convBiasValue ? { bias: vector(convBiasValue) } : {}),
      state: { slotTable, offset: 0, shape: windows.shape.slice(1) },
      ...carriedBuffers,
      y: unwritten,
    }),
    scan: testNode(setting, scanAttributes, {
      x: columnsOf(unwritten, 0, inner),
      b: columnsOf(unwritten, bAt, dState),
      c: columnsOf(unwritten, cAt, dState),
      dt: columnsOf(rowsBuffer, dtAt, heads),
      dtBias: vector(dtBias),
      aLog: vector(aLog),
      d: vector(d),
      state: { slotTable, offset: windowBytes, shape: states.shape.slice(1) },
      ...carriedBuffers,
      y: scanned,
    }),
    gate: testNode(setting, gateAttributes, {
      x: scanned,
      z: columnsOf(rowsBuffer, zAt, inner),
      ...(rmsnorm ? { weight: vector(gateWeight) } : {}),
      y: unwritten,
    }),
    outProj: testNode(
      setting,
      { segments: outSegments },
      {
        x: unwritten,
        weight: outWeight.weight,
        ...(outBias ? { bias: vector(outBias) } : {}),
        y,
      },
    ),
  };
  expect(decodeLayerFuses(layer)).toBe(true);
  const recording = await driver.record(decodeLayerLaunches(layer));
  recording.replay();
  await driver.done();
  recording.free();

  const tolerance = activation === 'f32' ? 3e-6 : 1.5e-2;
  const close = (what: string, got: ArrayLike<number>, expected: Float64Array): void =>
    expect(relativeError(got, expected), what).toBeLessThanOrEqual(tolerance);
  close('y', withoutPadding(y, readRows(y)), out.data);
  close('in_proj', readRows(rowsBuffer), rows.data);
  if (residual) expect(relativeError(withoutPadding(sum, readRows(sum)), normed['sum']!.data)).toBeLessThan(1e-7);
  for (const buffer of [y, scanned, ...(residual ? [sum] : [])]) {
    const padded = readRows(buffer);
    for (let i = 0; i < padded.length; i++) {
      if (i % buffer.stride >= buffer.width) expect(padded[i], `padding at ${i}`).toBe(0);
    }
  }
  for (const [slot, pointer] of slotPointers.entries()) {
    const floats = new Float32Array(download(pointer, slotBytes).buffer);
    const check = (what: string, got: Float32Array, before: HostValue, after: HostValue): void => {
      const size = sizeOf(before.shape.slice(1));
      const expected = after.data.subarray(slot * size, (slot + 1) * size);
      const at = slots.indexOf(slot);
      if (at < 0 || (lengths && lengths[at] === 0)) expect([...got.subarray(0, size)], what).toEqual([...expected]);
      else close(`${what} of slot ${slot}`, got.subarray(0, size), expected);
    };
    check('window', floats, windows, conv['state']!);
    check('state', floats.subarray(windowBytes / 4), states, scan['state']!);
  }
}

const SMALL = { batch: 1, dModel: 96, heads: 8, headdim: 12, dState: 16, slots: [1] } as const;

testEmulated.each<[string, Setting]>([
  ['float32', SMALL],
  ['a submodel', { ...SMALL, heads: 3, fullHeads: 8, batch: 2, slots: [2, 0] }],
  [
    'heads of 24, state of 128',
    { batch: 2, dModel: 768, heads: 5, headdim: 24, dState: 128, slots: [0, 3], multiprocessors: 30 },
  ],
  ['odd sizes', { batch: 3, dModel: 50, heads: 7, headdim: 3, dState: 15, slots: [2, 0, 1], taps: 3 }],
  ['two taps, a state of 1', { batch: 1, dModel: 32, heads: 5, headdim: 1, dState: 1, slots: [0], taps: 2 }],
  ['a state of 260', { batch: 1, dModel: 48, heads: 2, headdim: 40, dState: 260, slots: [0], multiprocessors: 20 }],
  ['a sequence that stands still', { ...SMALL, batch: 3, slots: [2, 0, 1], lengths: [1, 0, 1] }],
  ['five sequences', { ...SMALL, batch: 5, slots: [2, 0, 1, 4, 3], multiprocessors: 1 }],
  ['eight sequences', { ...SMALL, batch: 8, slots: [7, 6, 5, 4, 3, 2, 1, 0], multiprocessors: 20 }],
  ['eleven sequences', { ...SMALL, batch: 11, slots: [7, 6, 5, 4, 3, 2, 1, 0, 8, 9, 10] }],
  ['no residual', { ...SMALL, residual: false }],
  ['layer norm', { ...SMALL, batch: 2, slots: [0, 1], center: true }],
  ['biases', { ...SMALL, projBias: true }],
  ['no bias', { ...SMALL, convBias: false }],
  ['d per channel, limits of dt', { ...SMALL, dHasHdim: true, dtLimit: [0.02, 0.1] }],
  ['norm before gate', { ...SMALL, normBeforeGate: true }],
  ['no norm', { ...SMALL, rmsnorm: false }],
  ['bf16', { ...SMALL, activation: 'bf16', weights: 'bf16', batch: 2, slots: [1, 0] }],
  ['f16', { ...SMALL, activation: 'f16', weights: 'f16', normBeforeGate: true }],
  ['bf16 with float32 weights', { ...SMALL, activation: 'bf16', batch: 8, slots: [7, 6, 5, 4, 3, 2, 1, 0] }],
  ['float32 with bf16 weights', { ...SMALL, weights: 'bf16', batch: 3, slots: [1, 0, 2] }],
  ['int8', { ...SMALL, activation: 'bf16', weights: 'i8', batch: 2, slots: [1, 0] }],
  ['int8 in groups', { ...SMALL, weights: 'i8', groupSize: 32 }],
  ['int8 in groups, many sequences', { ...SMALL, weights: 'i8', groupSize: 16, batch: 7, slots: [7, 6, 5, 4, 3, 2, 1] }],
])('a decoded layer: %s', compare);

testEmulated.each(['f32', 'bf16', 'f16'] as const)('int8 rows as %s', async (element) => {
  const segments = [
    { start: 8, count: 5 },
    { start: 16, count: 16 },
    { start: 48, count: 3 },
  ];
  const shape = [51, 90];
  const { weight, host } = matrix({ shape, data: fillOperand(element, 'weight', { shape }) }, 'i8', 32);
  const to: CudaBuffer = {
    pointer: upload(new Uint8Array(4 * 48 * 96).fill(255)),
    element,
    stride: 96,
    rows: 48,
    width: 96,
    shape,
  };
  const recording = await driver.record([dequantiseLaunch(weight, segments, to.pointer, element)]);
  recording.replay();
  await driver.done();
  recording.free();
  const expected = new Float64Array(48 * 96);
  const { columns } = segmentColumns(segments);
  for (const [s, { start, count }] of segments.entries()) {
    for (let i = 0; i < count; i++) {
      expected.set(host.data.subarray((start + i) * 90, (start + i + 1) * 90), (columns[s]! + i) * 96);
    }
  }
  expect(relativeError(readRows(to), expected)).toBeLessThan(element === 'f32' ? 1e-7 : 4e-3);
});

testEmulated.each([
  [12, 1],
  [50, 40],
])('int8 in groups on tensor cores, %d rows, %d multiprocessors', async (rows, multiprocessors) => {
  const segments = [
    { start: 8, count: 37 },
    { start: 48, count: 3 },
  ];
  const element = 'bf16';
  const shape = [51, 90];
  const { weight, host } = matrix({ shape, data: fillOperand('groups', 'weight', { shape }) }, 'i8', 16);
  const x = rounded({ shape: [rows, 85], data: fillOperand('groups', 'x', { shape: [rows, 85] }) }, element);
  const expected = linearRows(x, host, undefined, segments);
  const y = deviceBuffer({ shape: expected.shape, data: expected.data.map(() => NaN) }, 'f32');
  const setting = { ...SMALL, activation: element, multiprocessors } as const;
  const linear = testNode(setting, { segments }, { x: deviceBuffer(x, element), weight, y });
  const recording = await driver.record(fewRowsLaunches(linear));
  recording.replay();
  await driver.done();
  recording.free();
  expect(relativeError(readRows(y), expected.data)).toBeLessThan(4e-3);
});
