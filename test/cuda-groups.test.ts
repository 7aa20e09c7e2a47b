/** Ops with a node for every parameter, run as groups on the emulated device: the clipping norm and AdamW. */

import { afterAll, expect } from 'vitest';
import type { DeviceWeight } from '../src/backends/backend.ts';
import { Graph, type ParameterSpec, type Sym } from '../src/graph/graph.ts';
import { adamwReference } from '../src/ops/adamw/reference.ts';
import { type HostValue, fillOperand } from '../src/ops/cases.ts';
import { adamw, clipFactor, squareSum } from '../src/ops/index.ts';
import { emulatedBackend, testEmulated } from './support/emulated.ts';
import { relativeError } from './support/run-case.ts';

const SETTINGS = [1e-2, 0.9, 0.95, 1e-8, 0.1, 0.19, 0.0975];
const SHAPES: readonly (readonly number[])[] = [[5], [70, 300], [64], [9001], [3, 20]];
const NAMES = ['weight', 'gradient', 'dM', 'dV'] as const;

const backend = await emulatedBackend();
afterAll(() => backend?.dispose());

testEmulated.each([1, Infinity])('norm and AdamW of several parameters, a gradient that holds %d', async (value) => {
  const graph = new Graph();
  const weights = new Map<string, DeviceWeight>();
  const hosts: Record<string, HostValue>[] = [];
  const symbols: Record<string, Sym>[] = [];
  for (const [i, shape] of SHAPES.entries()) {
    hosts.push({});
    symbols.push({});
    for (const name of NAMES) {
      const fill = name === 'dV' ? ({ kind: 'uniform', low: 0.1, high: 1 } as const) : undefined;
      const data = fillOperand(`parameter ${i}`, name, { shape, ...(fill ? { fill } : {}) });
      if (name === 'gradient' && i === 1) data[400] = value;
      const spec: ParameterSpec = { name: `${name} ${i}`, shape, layout: shape.length > 1 ? 'matrix' : 'vector' };
      const columns = data.length / shape[0]!;
      const source = Float32Array.from(data);
      const rows = (first: number, count: number): Float32Array => source.subarray(first * columns, (first + count) * columns);
      weights.set(spec.name, await backend.upload({ ...spec, precise: true }, 'f32', { rows }));
      hosts[i]![name] = { shape, data };
      symbols[i]![name] = graph.parameter(spec);
    }
  }
  const settings = graph.input('settings', [7], 'f32');
  let squares: Sym | undefined;
  for (const { gradient } of symbols) squares = squareSum({ x: gradient, before: squares }).y;
  const { factor, norm } = clipFactor({ squares, settings: graph.input('maxNorm', [1], 'f32') });
  graph.output('norm', norm);
  graph.output('factor', factor);
  for (const [i, operands] of symbols.entries()) adamw({ ...operands, factor, settings }, { decay: i % 2 === 0 });

  const arena = backend.createArena();
  const program = backend.compile(graph, weights, arena, 'f32');
  const got = await program.run({ settings: Float32Array.from(SETTINGS), maxNorm: Float32Array.of(10) });
  const expectedNorm = Math.sqrt(hosts.flatMap(({ gradient }) => [...gradient!.data]).reduce((sum, x) => sum + x * x, 0));
  const expectedFactor = Number.isFinite(expectedNorm) ? 10 / (expectedNorm + 1e-6) : 0;
  if (Number.isFinite(expectedNorm)) expect(relativeError(got['norm']!, [expectedNorm])).toBeLessThan(3e-7);
  else expect(got['norm']![0]).toBe(Infinity);
  expect(Math.abs(got['factor']![0]! - expectedFactor)).toBeLessThan(1e-7);
  for (const [i, host] of hosts.entries()) {
    const scalars = {
      factor: { shape: [1], data: Float64Array.of(expectedFactor) },
      settings: { shape: [7], data: Float64Array.from(SETTINGS) },
    };
    // A factor of 0 changes nothing.
    const expected = expectedFactor === 0 ? host : adamwReference({ ...host, ...scalars }, { decay: i % 2 === 0 });
    for (const name of NAMES) {
      const values = await weights.get(`${name} ${i}`)!.read(0, SHAPES[i]![0]!);
      if (expectedFactor === 0) expect([...values], `${name} ${i}`).toEqual([...expected[name]!.data]);
      else expect(relativeError(values, expected[name]!.data), `${name} ${i}`).toBeLessThan(1e-6);
    }
  }
  program.dispose();
  arena.dispose();
  for (const weight of weights.values()) weight.release();
});
