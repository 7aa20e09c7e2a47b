/**
 * Every op's gradient rule against finite differences: the gradient that the kernels compute, along random directions,
 * must be the slope of the float64 reference along them.
 */

import { afterAll, describe, expect, test } from 'vitest';
import type { Backend, DeviceWeight } from '../src/backends/backend.ts';
import { CpuBackend } from '../src/backends/cpu/cpu-backend.ts';
import { differentiate, gradientSpec } from '../src/graph/differentiate.ts';
import { Graph, type Sym } from '../src/graph/graph.ts';
import { CONFORMANCE } from '../src/ops/all-cases.ts';
import { type HostValue, type OpCase, fillOperand } from '../src/ops/cases.ts';
import { OPS, type OpName, add } from '../src/ops/index.ts';
import type { Op } from '../src/ops/op.ts';
import { Random } from '../src/tensor/index.ts';
import { layoutOf } from './support/run-case.ts';

const DIRECTIONS = 3;
/** Step of the central difference, relative to unit normal directions. */
const STEP = 1e-4;
/** Largest difference of slopes, in units of |gradient| * |direction| / sqrt(size): what an unrelated gradient gives is about 1. */
const TOLERANCE = 2e-3;
/** Smaller slopes drown in the rounding of the objective: 1e-16 of some 1e3, over the step. */
const SMALLEST_SLOPE = 1e-5;
/** Larger cases only repeat what smaller ones show, at the cost of minutes in float64. */
const MAX_ELEMENTS = 60_000;

const backend = await CpuBackend.open({ threads: 2, blas: 'auto' });
afterAll(() => backend.dispose());

interface Gradients {
  readonly host: Record<string, HostValue>;
  readonly seeds: Record<string, Float64Array>;
  readonly gradients: Record<string, ArrayLike<number>>;
}

async function kernelGradients(op: Op, testCase: OpCase): Promise<Gradients> {
  const graph = new Graph();
  const weights = new Map<string, DeviceWeight>();
  const inputs: Record<string, Float32Array | Int32Array> = {};
  const host: Record<string, HostValue> = {};
  const operands: Record<string, Sym> = {};
  const wanted: string[] = [];
  for (const [name, operand] of Object.entries(testCase.operands)) {
    const data = fillOperand(testCase.name, name, operand);
    host[name] = { shape: operand.shape, data };
    const layout = layoutOf(op.inputAxes[name]!);
    if (layout) {
      const spec = { name, shape: operand.shape, layout };
      await upload(backend, weights, spec.name, spec, Float32Array.from(data));
      await upload(backend, weights, gradientSpec(spec).name, gradientSpec(spec), new Float32Array(data.length));
      operands[name] = graph.parameter(spec);
    } else {
      const dtype = operand.dtype ?? 'f32';
      operands[name] = graph.input(name, operand.shape, dtype);
      inputs[name] = dtype === 'i32' ? Int32Array.from(data) : Float32Array.from(data);
      if (dtype === 'f32') wanted.push(name);
    }
  }
  const outputs = op(operands, testCase.attributes ?? {});
  const seeds: Record<string, Float64Array> = {};
  const seedSyms = new Map<Sym, Sym>();
  for (const [name, sym] of Object.entries(outputs)) {
    const random = new Random(2, `${testCase.name}/${name}`);
    const data = Float64Array.from({ length: sym.shape.reduce((a, b) => a * b, 1) }, () => Math.fround(random.normal()));
    seeds[name] = data;
    inputs[`seed.${name}`] = Float32Array.from(data);
    seedSyms.set(sym, graph.input(`seed.${name}`, sym.shape, 'f32'));
  }
  const inputGradients = differentiate(graph, seedSyms, { add: (a, b) => add({ a, b }).y, inputs: wanted });
  for (const [name, sym] of Object.entries(inputGradients)) graph.output(name, sym);
  const arena = backend.createArena();
  const program = backend.compile(graph, weights, arena);
  try {
    const gradients: Record<string, ArrayLike<number>> = await program.run(inputs);
    for (const [name, { shape }] of Object.entries(host)) {
      const weight = weights.get(`${name}#gradient`);
      if (weight) gradients[name] = await weight.read(0, shape[0]!);
    }
    return { host, seeds, gradients };
  } finally {
    program.dispose();
    await backend.settled();
    arena.dispose();
    for (const weight of weights.values()) weight.release();
  }
}

async function upload(
  device: Backend,
  weights: Map<string, DeviceWeight>,
  name: string,
  spec: DeviceWeight['spec'],
  values: Float32Array,
): Promise<void> {
  const columns = values.length / spec.shape[0]!;
  weights.set(
    name,
    await device.upload(spec, 'f32', { rows: (first, count) => values.subarray(first * columns, (first + count) * columns) }),
  );
}

/** Sum of outputs times their seeds. */
function objective(
  opName: OpName,
  host: Record<string, HostValue>,
  seeds: Record<string, Float64Array>,
  attributes: OpCase['attributes'],
): number {
  const results = CONFORMANCE[opName].reference(host, { ...OPS[opName].defaults, ...attributes });
  let sum = 0;
  for (const [name, seed] of Object.entries(seeds))
    for (const [i, value] of seed.entries()) sum += value * results[name]!.data[i]!;
  return sum;
}

function isChecked(testCase: OpCase): boolean {
  const elements = Object.values(testCase.operands).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  return !('state' in testCase.operands) && elements <= MAX_ELEMENTS;
}

describe('gradients by finite differences', () => {
  for (const opName of Object.keys(OPS) as OpName[]) {
    const op = OPS[opName] as unknown as Op;
    if (!op.gradient) continue;
    test(opName, async () => {
      const cases = CONFORMANCE[opName].cases.filter(isChecked);
      expect(cases.length).toBeGreaterThan(0);
      for (const testCase of cases) {
        const { host, seeds, gradients } = await kernelGradients(op, testCase);
        for (const [name, gradient] of Object.entries(gradients)) {
          const size = gradient.length;
          const norm = Math.hypot(...Array.from(gradient));
          for (let direction = 0; direction < DIRECTIONS; direction++) {
            const random = new Random(3 + direction, `${testCase.name}/${name}`);
            const along = Float64Array.from({ length: size }, () => random.normal());
            const moved = (step: number): Record<string, HostValue> => ({
              ...host,
              [name]: { shape: host[name]!.shape, data: host[name]!.data.map((value, i) => value + step * along[i]!) },
            });
            const rise =
              objective(opName, moved(STEP), seeds, testCase.attributes) -
              objective(opName, moved(-STEP), seeds, testCase.attributes);
            let slope = 0;
            for (let i = 0; i < size; i++) slope += gradient[i]! * along[i]!;
            const error =
              Math.abs(slope - rise / (2 * STEP)) / Math.max(SMALLEST_SLOPE, (norm * Math.hypot(...along)) / Math.sqrt(size));
            expect(error, `${testCase.name}: ${name}, slope ${slope}, finite difference ${rise / (2 * STEP)}`).toBeLessThan(
              TOLERANCE,
            );
          }
        }
      }
    });
  }
});
