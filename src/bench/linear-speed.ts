/**
 * The speed of one linear map as a program of a single op: the product of many rows (GFLOP/s, bound by arithmetic) and
 * of one row (GB/s, bound by memory).
 */

import type { WeightStorage } from '../backends/backend.ts';
import { type DeviceOptions, acquireBackend } from '../backends/open.ts';
import { Graph, type ParameterSpec } from '../graph/graph.ts';
import { linear } from '../ops/index.ts';
import { type Repetition, type Timing, measure } from './measure.ts';

export interface LinearShape {
  readonly rows: number;
  /** Columns of the weight. */
  readonly k: number;
  /** Rows of the weight. */
  readonly n: number;
}

export interface LinearSpeed extends LinearShape {
  readonly flops: number;
  /** Bytes of the weight as it is stored, input and output. */
  readonly bytes: number;
  readonly timing: Timing;
}

/** @throws MEMORY, DEVICE, ABORTED */
export async function linearSpeed(
  { rows, k, n }: LinearShape,
  dtype: WeightStorage,
  device: DeviceOptions,
  repetition: Repetition,
  signal: AbortSignal,
): Promise<LinearSpeed> {
  const { backend, release } = await acquireBackend(device);
  try {
    const spec: ParameterSpec = { name: 'weight', shape: [n, k], layout: 'matrix' };
    const weight = await backend.upload(spec, dtype, { rows: (first, count) => ramp(count * k, first) }, signal);
    const arena = backend.createArena();
    try {
      const graph = new Graph();
      const x = graph.input('x', [rows, k], 'f32');
      graph.output('y', linear({ x, weight: graph.parameter(spec) }, { segments: [{ start: 0, count: n }] }).y);
      const program = backend.compile(graph, new Map([['weight', weight]]), arena, dtype);
      const inputs = { x: ramp(rows * k, 1) };
      // The op's own time: copying inputs and results is no part of a product.
      const run = async (): Promise<number> => {
        let ms = 0;
        await program.run(inputs, { signal, profile: ([op]) => void (ms = op!.ms) });
        return ms;
      };
      const timing = await measure(run, repetition, signal);
      program.dispose();
      return { rows, k, n, flops: 2 * rows * k * n, bytes: weight.bytes + 4 * rows * (k + n), timing };
    } finally {
      await backend.settled();
      arena.dispose();
      weight.release();
    }
  } finally {
    await release();
  }
}

/** Numbers in (-1, 1) that are all different in kind, cheaper than random ones. */
function ramp(length: number, seed: number): Float32Array {
  const values = new Float32Array(length);
  let state = (seed * 2654435761 + 12345) | 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    values[i] = state / 2 ** 31;
  }
  return values;
}
