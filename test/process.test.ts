/** How a process with models lives and ends: it exits by itself, leaves no threads behind, and keeps its memory. */

import { beforeAll, expect, test } from 'vitest';
import { buildPackage, runScript } from './support/built.ts';

let header = '';
beforeAll(() => {
  header = `
    import { MatMamba2, MatMambaLMHeadModel, tensor } from ${JSON.stringify(buildPackage())};
    import { readdirSync, existsSync } from 'node:fs';
    const config = { dModel: 64, nLayer: 2, vocabSize: 40, ssmCfg: { dState: 16 } };
    const ids = tensor(Int32Array.of(1, 2, 3, 4), [1, 4]);
    const threads = () => existsSync('/proc/self/task') ? readdirSync('/proc/self/task').length : 0;
    // The engine starts threads of its own for its first files and modules.
    const threadsWithoutModels = async () => {
      await (await MatMambaLMHeadModel.create(config, { threads: 1 })).dispose();
      return threads();
    };
    // A thread that has ended stays listed until the kernel has cleared it away, which takes a busy machine a while.
    const threadsBeyond = async (before) => {
      const end = Date.now() + 10_000;
      while (threads() > before && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 20));
      return threads() - before;
    };
  `;
});

async function output(script: string, flags?: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await runScript(header + script, 30_000, flags);
  expect(stderr).toBe('');
  expect(code, 'null: the process did not end').toBe(0);
  return stdout;
}

test('a process that forgets to dispose ends by itself', async () => {
  expect(
    await output(
      `const lm = await MatMambaLMHeadModel.create(config); console.log((await lm.forward(ids)).logits.shape.join());`,
    ),
  ).toBe('1,4,40\n');
});

test('a process that never runs its model ends by itself', async () => {
  expect(await output(`await MatMambaLMHeadModel.create(config); console.log('made');`)).toBe('made\n');
});

test('a run that is not awaited is still finished', async () => {
  const script = `
    const lm = await MatMambaLMHeadModel.create(config);
    const state = lm.createState();
    const long = tensor(new Int32Array(9000), [1, 9000]);
    lm.forward(long, { state, numLastTokens: 1 }).then(({ logits }) => console.log(logits.shape.join()));
    state.snapshot().then(() => console.log('snapshot'));
    state.dispose();
  `;
  expect((await output(script)).split('\n').sort()).toEqual(['', '1,1,40', 'snapshot']);
});

test('generation, abort and disposal in one process', async () => {
  const script = `
    const lm = await MatMambaLMHeadModel.create(config, { threads: 2 });
    let n = 0;
    for await (const piece of lm.generate([1, 2], { maxNewTokens: 20, ignoreEnd: true })) n += piece.ids.length;
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 30);
    const code = await lm.forward(tensor(new Int32Array(50000), [1, 50000]), { signal: controller.signal, numLastTokens: 1 }).catch(({ code }) => code);
    await lm.dispose();
    console.log(n, code);
  `;
  expect(await output(script)).toBe('20 ABORTED\n');
});

test('models come and go: no threads stay, memory stays flat', async () => {
  const script = `
    const mib = () => process.memoryUsage().rss / 2 ** 20;
    const before = await threadsWithoutModels();
    let early = 0;
    for (let i = 0; i < 50; i++) {
      const lm = await MatMambaLMHeadModel.create(config, { threads: 2 });
      await lm.forward(ids, { mrlLevel: 2 });
      await lm.dispose();
      if (i === 14) early = mib();
    }
    console.log(JSON.stringify({ threads: await threadsBeyond(before), growth: mib() - early }));
  `;
  const { threads, growth } = JSON.parse(await output(script)) as { threads: number; growth: number };
  expect(threads).toBeLessThanOrEqual(0);
  expect(growth).toBeLessThan(64);
});

test('models share one team, and the last one to go takes it along', async () => {
  const script = `
    const before = await threadsWithoutModels();
    const models = await Promise.all(Array.from({ length: 4 }, (_, seed) => MatMamba2.create({ dModel: 32, dState: 8 }, { threads: 3, seed })));
    const x = tensor(new Float32Array(64).fill(1), [1, 2, 32]);
    await Promise.all(models.map((model) => model.forward(x)));
    const during = threads() - before;
    await Promise.all(models.slice(1).map((model) => model.dispose()));
    const y = await models[0].forward(x);
    await models[0].dispose();
    console.log(JSON.stringify({ during, after: await threadsBeyond(before), size: y.size }));
  `;
  const { during, after, size } = JSON.parse(await output(script)) as Record<string, number>;
  expect(during).toBeLessThanOrEqual(3);
  expect(after).toBeLessThanOrEqual(0);
  expect(size).toBe(64);
});

test('a failure that nobody handles ends the process with its message', async () => {
  const { code, stderr } = await runScript(
    `${header} const lm = await MatMambaLMHeadModel.create(config); lm.forward(ids, { mrlLevel: 3 });`,
  );
  expect(code).toBe(1);
  expect(stderr).toMatch(/mrlLevel 3 does not divide/);
});
