/** Gradients of the standalone block against what the original implementation printed: of the input and of every weight. */

import type { Backend, DeviceWeight, ModelDType } from '../../src/backends/backend.ts';
import { differentiate, gradientSpec } from '../../src/graph/differentiate.ts';
import { Graph } from '../../src/graph/graph.ts';
import { declareBlock } from '../../src/models/block.ts';
import { traceMixer, weightsOf } from '../../src/models/mixer.ts';
import { add } from '../../src/ops/index.ts';
import type { Tensor } from '../../src/tensor/index.ts';
import { type Measured, checkClose } from './close.ts';
import { blockOptionsOf } from './golden-checks.ts';
import { readTensors } from './golden.ts';

const LEVELS = [1, 4];

/** Compares all gradients of a golden file; false when it holds none. */
export async function checkBlockGradients(
  backend: Backend,
  path: string,
  dtype: ModelDType,
  tolerance: number,
  measured?: Measured,
): Promise<boolean> {
  const golden = await readTensors(path);
  if (!golden['gy']) return false;
  for (const level of LEVELS) {
    const gradients = await blockGradients(backend, golden, blockOptionsOf(path), level, dtype);
    const check = (name: string, expected: Tensor): void =>
      checkClose(gradients[name]!, expected.toFloat32(), tolerance, `level ${level}, ${name}`, measured);
    check('dx', golden[`dx.level${level}`]!);
    const prefix = `grad.level${level}.`;
    for (const [name, expected] of Object.entries(golden))
      if (name.startsWith(prefix)) check(name.slice(prefix.length), expected);
  }
  return true;
}

/** Gradients of sum(y * gy) at one level: of x, and of every parameter under its own name. */
async function blockGradients(
  backend: Backend,
  golden: Readonly<Record<string, Tensor>>,
  options: object,
  level: number,
  dtype: ModelDType,
): Promise<Record<string, Float32Array>> {
  const [batch, length, dModel] = golden['x']!.shape as [number, number, number];
  const dState = (golden['param.conv1d.weight']!.shape[0]! - 2 * dModel) / 2;
  const { shape, parameters } = declareBlock({ dModel, dState, ...options });
  const graph = new Graph();
  const x = graph.input('x', [batch, length, dModel], 'f32');
  const y = traceMixer(x, shape, dModel / level, weightsOf(graph, parameters.declared, ''), { batch, length });
  const gy = graph.input('gy', [batch, length, dModel], 'f32');
  const { x: dx } = differentiate(graph, new Map([[y, gy]]), { add: (a, b) => add({ a, b }).y, inputs: ['x'] });
  graph.output('dx', dx!);
  const weights = new Map<string, DeviceWeight>();
  for (const spec of parameters.declared.values()) {
    const columns = spec.shape.slice(1).reduce((a, b) => a * b, 1);
    const values = golden[`param.${spec.name}`]!.toFloat32();
    const zeros = new Float32Array(values.length);
    for (const [one, from] of [
      [spec, values],
      [gradientSpec(spec), zeros],
    ] as const) {
      weights.set(
        one.name,
        await backend.upload(one, dtype, { rows: (first, count) => from.subarray(first * columns, (first + count) * columns) }),
      );
    }
  }
  const arena = backend.createArena();
  const program = backend.compile(graph, weights, arena, dtype);
  try {
    const gradients = await program.run({ x: golden['x']!.toFloat32(), gy: golden['gy']!.toFloat32() });
    for (const { name, shape: full } of parameters.declared.values())
      gradients[name] = await weights.get(`${name}#gradient`)!.read(0, full[0]!);
    return gradients;
  } finally {
    program.dispose();
    await backend.settled();
    arena.dispose();
    for (const weight of weights.values()) weight.release();
  }
}
