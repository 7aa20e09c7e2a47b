/** Runs one conformance case on a backend and compares every result with the float64 reference. */

import type { Backend, DeviceWeight, ModelDType, StateSlot } from '../../src/backends/backend.ts';
import { Graph, type ParameterSpec, type Sym } from '../../src/graph/graph.ts';
import { CONFORMANCE } from '../../src/ops/all-cases.ts';
import { type HostValue, type OpCase, type OperandCase, fillOperand } from '../../src/ops/cases.ts';
import { OPS, type OpName } from '../../src/ops/index.ts';
import type { Op } from '../../src/ops/op.ts';

export interface CaseResult {
  /** Result name to relative L2 error and the largest difference, with its place. */
  readonly errors: Readonly<Record<string, { relative: number; largest: number; at: number; got: number; expected: number }>>;
  /** Results whose padding columns were not zero cannot be seen from outside; non-finite values can. */
  readonly finite: boolean;
}

const PARAMETER_LAYOUTS = ['matrix', 'vector', 'taps'] as const;

export function layoutOf(axes: string): (typeof PARAMETER_LAYOUTS)[number] | undefined {
  return PARAMETER_LAYOUTS.find((layout) => axes.startsWith(layout));
}

function parameterSpec(name: string, layout: ParameterSpec['layout'], { shape }: OperandCase): ParameterSpec {
  return { name, shape, layout };
}

/** Relative L2 error of `got` against `expected`. */
export function relativeError(got: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (got[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
}

/** Runs `testCase` in a dtype; the reference sees the weights as they were stored. */
export async function runCase(backend: Backend, opName: OpName, testCase: OpCase, dtype: ModelDType): Promise<CaseResult> {
  const op = OPS[opName] as unknown as Op;
  const graph = new Graph();
  const weights = new Map<string, DeviceWeight>();
  const inputs: Record<string, Float32Array | Int32Array> = {};
  const host: Record<string, HostValue> = {};
  const operands: Record<string, Sym> = {};
  const slots: { name: string; slots: StateSlot[]; size: number }[] = [];
  for (const [name, operand] of Object.entries(testCase.operands)) {
    const axes = op.inputAxes[name]!;
    const data = fillOperand(testCase.name, name, operand);
    const layout = layoutOf(axes);
    if (layout) {
      const spec = { ...parameterSpec(name, layout, operand), precise: /^d[A-Z]/.test(name) };
      const columns = data.length / operand.shape[0]!;
      const source = Float32Array.from(data);
      const weight = await backend.upload(spec, dtype, {
        rows: (first, count) => source.subarray(first * columns, (first + count) * columns),
      });
      weights.set(name, weight);
      operands[name] = graph.parameter(spec);
      host[name] = { shape: operand.shape, data: Float64Array.from(await weight.read(0, operand.shape[0]!)) };
    } else if (axes.startsWith('state')) {
      // State operands are (slots, ...): one slot of the rest for each.
      const [count, ...shape] = operand.shape as [number, ...number[]];
      const size = shape.reduce((a, b) => a * b, 1);
      const made: StateSlot[] = [];
      for (let i = 0; i < count; i++) {
        const slot = backend.createSlot(4 * size);
        await slot.write(new Uint8Array(Float32Array.from(data.subarray(i * size, (i + 1) * size)).buffer));
        made.push(slot);
      }
      slots.push({ name, slots: made, size });
      operands[name] = graph.state({ name, shape, offset: 0 });
      host[name] = { shape: operand.shape, data };
    } else {
      const element = operand.dtype ?? 'f32';
      operands[name] = graph.input(name, operand.shape, element);
      inputs[name] = element === 'i32' ? Int32Array.from(data) : Float32Array.from(data);
      host[name] = { shape: operand.shape, data };
    }
  }
  // Cases number slots from 0; the backend hands out its own.
  const first = slots[0];
  if (first && inputs['slots']) inputs['slots'] = inputs['slots'].map((slot) => first.slots[slot]!.index) as Int32Array;
  const outputs = op(operands, testCase.attributes ?? {});
  for (const [name, sym] of Object.entries(outputs)) graph.output(name, sym);
  const arena = backend.createArena();
  const program = backend.compile(graph, weights, arena, dtype);
  /** A first run whose traces in the state are undone: results must not depend on what ran before. */
  const replayOnce = async (): Promise<void> => {
    await program.run(inputs);
    for (const { slots: made, size, name } of slots) {
      for (const [i, slot] of made.entries()) {
        await slot.write(new Uint8Array(Float32Array.from(host[name]!.data.subarray(i * size, (i + 1) * size)).buffer));
      }
    }
  };
  try {
    const expected = CONFORMANCE[opName].reference(host, { ...op.defaults, ...testCase.attributes });
    const accumulated = Object.keys(expected).filter((name) => weights.has(name));
    if (accumulated.length === 0) await replayOnce();
    const got: Record<string, ArrayLike<number>> = await program.run(inputs);
    for (const { name, slots: made, size } of slots) {
      const all = new Float32Array(made.length * size);
      for (const [i, slot] of made.entries()) all.set(new Float32Array((await slot.read()).buffer), i * size);
      got[name] = all;
    }
    for (const name of accumulated) got[name] = await weights.get(name)!.read(0, testCase.operands[name]!.shape[0]!);
    return compare(got, expected);
  } finally {
    program.dispose();
    arena.dispose();
    for (const weight of weights.values()) weight.release();
    for (const { slots: made } of slots) for (const slot of made) slot.release();
  }
}

function compare(got: Record<string, ArrayLike<number>>, expected: Record<string, HostValue>): CaseResult {
  let finite = true;
  const errors = Object.entries(expected).map(([name, { data }]) => {
    const mine = got[name]!;
    const worst = { largest: 0, at: 0, got: mine[0]!, expected: data[0]! };
    for (let i = 0; i < data.length; i++) {
      if (!Number.isFinite(mine[i]!)) finite = false;
      const largest = Math.abs(mine[i]! - data[i]!);
      if (!(largest <= worst.largest)) Object.assign(worst, { largest, at: i, got: mine[i]!, expected: data[i]! });
    }
    return [name, { relative: relativeError(mine, data), ...worst }] as const;
  });
  return { errors: Object.fromEntries(errors), finite };
}
