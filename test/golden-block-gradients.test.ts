/** Gradients of the standalone block against what the original implementation printed: of the input and of every weight. */

import { readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import type { DeviceWeight } from '../src/backends/backend.ts';
import { CpuBackend } from '../src/backends/cpu/cpu-backend.ts';
import { differentiate, gradientSpec } from '../src/graph/differentiate.ts';
import { Graph } from '../src/graph/graph.ts';
import { declareBlock } from '../src/models/block.ts';
import { traceMixer, weightsOf } from '../src/models/mixer.ts';
import { add } from '../src/ops/index.ts';
import type { Tensor } from '../src/tensor/index.ts';
import { GOLDEN_FOLDERS, readTensors } from './support/golden.ts';
import { relativeError } from './support/run-case.ts';

/** Section 5 of the design: gradients. */
const TOLERANCE = 1e-4;

/** What each block was made with, beyond its shapes. */
const BLOCK_OPTIONS: Record<string, object> = {
  'block-dt-limit': { dtLimit: [0.01, 0.05] },
  'block-no-norm': { rmsnorm: false },
  'block-norm-before-gate': { normBeforeGate: true },
};

const backends = await Promise.all([CpuBackend.open({ threads: 2, blas: 'off' }), CpuBackend.open({ threads: 2, blas: 'auto' })]);
afterAll(() => Promise.all(backends.map((backend) => backend.dispose())));

/** Gradients of sum(y * gy) at one level: of x, and of every parameter under its own name. */
async function blockGradients(
  backend: CpuBackend,
  golden: Readonly<Record<string, Tensor>>,
  options: object,
  level: number,
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
        await backend.upload(one, 'f32', { rows: (first, count) => from.subarray(first * columns, (first + count) * columns) }),
      );
    }
  }
  const arena = backend.createArena();
  const program = backend.compile(graph, weights, arena);
  try {
    const gradients = await program.run({ x: golden['x']!.toFloat32(), gy: golden['gy']!.toFloat32() });
    for (const { name, shape: full } of parameters.declared.values())
      gradients[name] = weights.get(`${name}#gradient`)!.read(0, full[0]!);
    return gradients;
  } finally {
    program.dispose();
    await backend.settled();
    arena.dispose();
    for (const weight of weights.values()) weight.release();
  }
}

for (const backend of backends) {
  const { BLAS: blas } = backend.capabilities().facts;
  for (const folder of GOLDEN_FOLDERS) {
    describe(`block gradients of ${basename(folder)}, BLAS ${blas}`, () => {
      for (const file of readdirSync(folder).filter((name) => name.startsWith('block'))) {
        test(file, async (context) => {
          const golden = await readTensors(`${folder}/${file}`);
          if (!golden['gy']) return context.skip('holds no gradients');
          const options = BLOCK_OPTIONS[basename(file, '.safetensors')] ?? {};
          for (const level of [1, 4]) {
            const gradients = await blockGradients(backend, golden, options, level);
            const check = (name: string, expected: Tensor): void => {
              expect(relativeError(gradients[name]!, expected.toFloat32()), `level ${level}, ${name}`).toBeLessThan(TOLERANCE);
            };
            check('dx', golden[`dx.level${level}`]!);
            const prefix = `grad.level${level}.`;
            for (const [name, expected] of Object.entries(golden))
              if (name.startsWith(prefix)) check(name.slice(prefix.length), expected);
          }
        });
      }
    });
  }
}
