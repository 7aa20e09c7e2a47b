/**
 * Products with few rows on emulated devices of several sizes, which change how they are cut, and int8 products on
 * tensor cores; the sampled tokens against those of the host's sampler.
 */

import { afterAll, expect } from 'vitest';
import { CudaBackend } from '../src/backends/cuda/cuda-backend.ts';
import { Graph } from '../src/graph/graph.ts';
import type { OpCase } from '../src/ops/cases.ts';
import { sample } from '../src/ops/index.ts';
import { linearCases } from '../src/ops/linear/cases.ts';
import { Random } from '../src/tensor/random.ts';
import { Sampler, type SamplerOptions } from '../src/text/sampler.ts';
import { emulatedBackend, testEmulated } from './support/emulated.ts';
import { runCase } from './support/run-case.ts';

const SIZES = [1, 3, 40];
const backends = await Promise.all(SIZES.map(async (multiprocessors) => await emulatedBackend({ multiprocessors })));
afterAll(() => Promise.all(backends.map((backend) => backend?.dispose())));

/** The cases of `linear` with other numbers of rows. */
function casesOf(rows: number): OpCase[] {
  return linearCases
    .filter(({ operands }) => operands['x']!.shape[0] === 7)
    .map((one) => ({
      ...one,
      operands: { ...one.operands, x: { ...one.operands['x']!, shape: [rows, one.operands['x']!.shape[1]!] } },
    }));
}

for (const [i, backend] of backends.entries()) {
  testEmulated.each([
    ['f32', 1],
    ['f32', 4],
    ['bf16', 2],
    ['f16', 6],
    ['int8', 3],
    ['int8', 9],
    ['int8', 40],
    ['int8', 64],
  ] as const)(`linear in %s, %d rows, ${SIZES[i]} multiprocessors`, async (dtype, rows) => {
    for (const one of casesOf(rows)) {
      const { errors, finite } = await runCase(backend, 'linear', one, dtype);
      expect(finite, one.name).toBe(true);
      expect(errors['y']!.relative, one.name).toBeLessThanOrEqual(dtype === 'f32' ? one.tolerance : 1e-2);
    }
  });
}

testEmulated.each<SamplerOptions>([
  { temperature: 1 },
  { temperature: 0.7, topK: 40, topP: 0.9 },
  { temperature: 1.3, topP: 0.8, minP: 0.01 },
])('draws what the sampler draws: %o', async (options) => {
  const [backend] = backends as [CudaBackend];
  const vocabulary = 1500;
  const graph = new Graph();
  const { ids } = sample({
    logits: graph.input('logits', [1, vocabulary], 'f32'),
    settings: graph.input('settings', [5], 'f32'),
    random: graph.input('random', [2], 'i32'),
  });
  graph.output('ids', ids);
  const arena = backend.createArena();
  const program = backend.compile(graph, new Map(), arena, 'f32');
  const normal = new Random(3);
  const sampler = new Sampler({ ...options, seed: 77 }, vocabulary - 3);
  const { temperature = 1, topK = 0, topP = 1, minP = 0 } = options;
  const settings = Float32Array.of(temperature, topK, topP, minP, vocabulary - 3);
  const expected: number[] = [];
  const got: number[] = [];
  for (let draw = 0; draw < 12; draw++) {
    const logits = Float32Array.from({ length: vocabulary }, () => 2 * normal.normal());
    expected.push(sampler.sample(logits));
    got.push((await program.run({ logits, settings, random: Int32Array.of(77, draw) }))['ids']![0]!);
  }
  expect(got).toEqual(expected);
  program.dispose();
  arena.dispose();
});
