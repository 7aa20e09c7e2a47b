/** The WebGPU backend beside its kernels: weights in parts, the pool of states, profiles, and what goes wrong. */

import { afterAll, describe, expect, test } from 'vitest';
import { openTestWebGpu } from '../../../test/support/webgpu-device.ts';
import { Graph, type ParameterSpec } from '../../graph/graph.ts';
import { embedding } from '../../ops/embedding/op.ts';
import { linear } from '../../ops/linear/op.ts';
import { norm } from '../../ops/norm/op.ts';
import type { WebGpuDispatch } from '../../ops/webgpu-kernel.ts';
import { INT4_GROUP, dequantise, quantiseInt4 } from '../../tensor/int4.ts';
import type { DeviceWeight, ModelDType, OpProfile, ProgramInputs } from '../backend.ts';
import type { WebGpuBackend } from './webgpu-backend.ts';

/** Holds what 10 rows of the tests need, and a fifth of the float32 table. */
const SMALL_BUFFER_BYTES = 14 * 1024;
const { backend: whole, reason } = await openTestWebGpu();
const { backend: small } = await openTestWebGpu({ bufferLimitBytes: SMALL_BUFFER_BYTES });
afterAll(() => Promise.all([whole?.dispose(), small?.dispose()]));

const VOCABULARY = 300;
const WIDTH = 40;
const TABLE: ParameterSpec = { name: 'table', shape: [VOCABULARY, WIDTH], layout: 'matrix' };
const VALUES = Float32Array.from({ length: VOCABULARY * WIDTH }, (_, i) => Math.sin(i) / 3);

function upload(backend: WebGpuBackend, spec: ParameterSpec, dtype: ModelDType, values = VALUES): Promise<DeviceWeight> {
  const columns = spec.shape.slice(1).reduce((a, b) => a * b, 1);
  return backend.upload(spec, dtype, { rows: (first, count) => values.subarray(first * columns, (first + count) * columns) });
}

/** Runs a graph once. */
async function run(
  backend: WebGpuBackend,
  graph: Graph,
  weights: readonly DeviceWeight[],
  inputs: ProgramInputs,
  options = {},
): Promise<Record<string, Float32Array>> {
  const arena = backend.createArena();
  const program = backend.compile(graph, new Map(weights.map((weight) => [weight.spec.name, weight])), arena, 'f32');
  try {
    return await program.run(inputs, options);
  } finally {
    program.dispose();
    await backend.settled();
    arena.dispose();
  }
}

/** Looks ids up and multiplies the rows with the same table, by segments that cross its parts. */
function lookUp(rows: number): { graph: Graph; inputs: ProgramInputs } {
  const graph = new Graph();
  const ids = graph.input('ids', [rows], 'i32');
  const { y: x } = embedding({ ids, weight: graph.parameter(TABLE) });
  const segments = [
    { start: 0, count: 5 },
    { start: 30, count: 270 },
  ];
  graph.output('x', x);
  graph.output('y', linear({ x, weight: graph.parameter(TABLE) }, { segments }).y);
  return { graph, inputs: { ids: Int32Array.from({ length: rows }, (_, i) => (i * 97) % (VOCABULARY + 3)) } };
}

/** A root-mean-square norm of one row. */
function normGraph(width: number): { graph: Graph; inputs: ProgramInputs; spec: ParameterSpec } {
  const graph = new Graph();
  const spec: ParameterSpec = { name: 'weight', shape: [width], layout: 'vector' };
  graph.output('y', norm({ x: graph.input('x', [1, width], 'f32'), weight: graph.parameter(spec) }).y);
  return { graph, spec, inputs: { x: new Float32Array(width).fill(2) } };
}

describe.skipIf(!whole || !small)(whole ? 'the WebGPU backend' : `the WebGPU backend: ${reason}`, () => {
  test.each(['f32', 'int8'] as const)('%s weights in parts compute what whole ones do', async (dtype) => {
    for (const rows of [3, 10]) {
      const { graph, inputs } = lookUp(rows);
      const results = [];
      for (const backend of [whole!, small!]) {
        const weight = await upload(backend, TABLE, dtype);
        results.push({ ...(await run(backend, graph, [weight], inputs)), read: await weight.read(2, 290) });
        if (backend === small && dtype === 'f32') expect((weight as unknown as { parts: unknown[] }).parts).toHaveLength(5);
        weight.release();
      }
      expect(results[1]).toEqual(results[0]);
      if (dtype === 'f32') expect(results[0]!.read).toEqual(VALUES.subarray(2 * WIDTH, 292 * WIDTH));
    }
  });

  test('int8 rows come back with their scales, float32 rows can be written', async () => {
    const weight = await upload(whole!, TABLE, 'int8');
    const { values, scales } = await weight.readInt8(7, 2);
    const row = await weight.read(8, 1);
    expect(scales).toHaveLength(2);
    expect(row[5]).toBe(Math.fround(values[WIDTH + 5]! * scales[1]!));
    weight.release();
    const other = await upload(whole!, TABLE, 'f32');
    await other.write({ rows: (_, count) => new Float32Array(count * WIDTH).fill(3) });
    expect([...new Set(await other.read(0, VOCABULARY))]).toEqual([3]);
    other.release();
  });

  test('int4 rows in parts come back as they were quantised, and as whole numbers with their scales', async () => {
    const rows = 2000;
    const spec: ParameterSpec = { name: 'packed', shape: [rows, WIDTH], layout: 'matrix' };
    const floats = Float32Array.from({ length: rows * WIDTH }, (_, i) => Math.cos(i * i));
    const { values, scales } = quantiseInt4(floats, WIDTH);
    const weight = await upload(small!, spec, 'int4', floats);
    expect((weight as unknown as { parts: unknown[] }).parts).toHaveLength(4);
    expect(await weight.readInt8(500, 900)).toEqual({
      values: values.subarray(500 * WIDTH, 1400 * WIDTH),
      scales: scales.subarray(1000, 2800),
    });
    expect(await weight.read(0, rows)).toEqual(dequantise(values, scales, WIDTH, INT4_GROUP, 2));
    weight.release();
  });

  test('states keep what they hold while the pool grows; new ones are zero', async () => {
    const bytes = 1000;
    const before = whole!.device.usedBytes;
    const first = whole!.createSlot(bytes);
    await first.write(new Uint8Array(bytes).fill(7));
    const more = Array.from({ length: 40 }, () => whole!.createSlot(bytes));
    expect(whole!.device.usedBytes).toBeGreaterThan(before);
    expect(new Set([first, ...more].map(({ index }) => index)).size).toBe(41);
    expect(new Set(await first.read())).toEqual(new Set([7]));
    first.release();
    await whole!.settled();
    const again = whole!.createSlot(bytes);
    expect(again.index).toBe(first.index);
    expect(new Set(await again.read())).toEqual(new Set([0]));
    await expect(first.read()).rejects.toMatchObject({ code: 'DISPOSED' });
    for (const slot of [again, ...more]) slot.release();
    await whole!.settled();
  });

  test('tells what each op took', async () => {
    const { graph, inputs } = lookUp(20);
    const weight = await upload(whole!, TABLE, 'f32');
    let profile: readonly OpProfile[] = [];
    let ms = 0;
    await run(whole!, graph, [weight], inputs, { profile: (ops: readonly OpProfile[]) => void (profile = ops) });
    await run(whole!, graph, [weight], inputs, { onDeviceMs: (time: number) => void (ms = time) });
    weight.release();
    expect(profile.map(({ op }) => op)).toEqual(['embedding', 'linear']);
    expect(profile[1]!.flops).toBe(2 * 20 * WIDTH * 275);
    expect(profile[1]!.ms).toBeGreaterThan(0);
    expect(ms).toBeGreaterThan(0);
  });

  test('everything is given back', async () => {
    const start = whole!.device.usedBytes;
    for (let round = 0; round < 5; round++) {
      const { graph, inputs } = lookUp(2);
      const weight = await upload(whole!, TABLE, 'f16');
      await run(whole!, graph, [weight], inputs);
      weight.release();
    }
    expect(whole!.device.usedBytes).toBe(start);
  });

  test('what does not fit names sizes and the limit', async () => {
    const { graph, spec, inputs } = normGraph(8192);
    const weight = await upload(whole!, spec, 'f32', new Float32Array(8192));
    await expect(run(small!, graph, [weight], inputs)).rejects.toMatchObject({ code: 'MEMORY' });
    await expect(run(small!, graph, [weight], inputs)).rejects.toThrow(
      /activations: 0\.1 MiB are needed in one buffer, this adapter allows 0\.0 MiB \(bufferLimitBytes\)/,
    );
    weight.release();
    expect(() => small!.createSlot(SMALL_BUFFER_BYTES + 1)).toThrow(/states: .* are needed/);
    expect(() => small!.createSlot(SMALL_BUFFER_BYTES + 1)).toThrow(expect.objectContaining({ code: 'MEMORY' }));
  });

  test('a kernel that does not compile is named with the line', async () => {
    const dispatch: WebGpuDispatch = {
      kind: 'dispatch',
      source: '@compute @workgroup_size(1)\nfn wrong() {\n  let a: f32 = 1u;\n}\n',
      entry: 'wrong',
      workgroups: [1],
      bindings: [],
      constants: {},
    };
    await expect(whole!.device.kernel(dispatch, 'wrong of a test').ready).rejects.toThrow(
      /the WebGPU kernel wrong of a test does not compile: .*let a: f32 = 1u/,
    );
  });

  test('a lost device fails what runs and what comes, and tells who opened it', async () => {
    let lost = 0;
    const { backend } = await openTestWebGpu({}, { onLost: () => void lost++ });
    const { graph, spec, inputs } = normGraph(64);
    const weight = await upload(backend!, spec, 'f32', new Float32Array(64).fill(1));
    expect((await run(backend!, graph, [weight], inputs))['y']![5]).toBeCloseTo(1, 4);
    const arena = backend!.createArena();
    const program = backend!.compile(graph, new Map([['weight', weight]]), arena, 'f32');
    const running = program.run(inputs);
    backend!.device.gpu.destroy();
    await expect(running).rejects.toMatchObject({ code: 'DEVICE' });
    await expect(program.run(inputs)).rejects.toMatchObject({ code: 'DEVICE' });
    await expect(program.run(inputs)).rejects.toThrow(/the GPU was lost/);
    await expect(upload(backend!, spec, 'f32')).rejects.toMatchObject({ code: 'DEVICE' });
    expect(lost).toBe(1);
    await backend!.dispose();
    await expect(program.run(inputs)).rejects.toMatchObject({ code: 'DISPOSED' });
  });
});
