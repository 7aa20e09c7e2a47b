/** What happens when something goes wrong on the team: kernels that trap, workers that die, aborts, disposal. */

import { createRequire, syncBuiltinESMExports } from 'node:module';
import type { Worker } from 'node:worker_threads';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { randomIds } from '../../../test/support/reference-model.ts';
import { MatMambaLMHeadModel, tensor } from '../../index.ts';
import { CpuBackend } from './cpu-backend.ts';

// Workers are made by code that imports the class when it needs it; here they are also written down.
const workers: Worker[] = [];
const threads = createRequire(import.meta.url)('node:worker_threads') as { Worker: typeof Worker };
const { Worker: PlainWorker } = threads;
beforeAll(() => {
  threads.Worker = class extends PlainWorker {
    constructor(...args: ConstructorParameters<typeof Worker>) {
      super(...args);
      workers.push(this);
    }
  };
  syncBuiltinESMExports();
});
afterAll(() => {
  threads.Worker = PlainWorker;
  syncBuiltinESMExports();
});

const THREADS = 3;
const code = (name: string): object => expect.objectContaining({ name: 'MatMambaError', code: name });

let backend: CpuBackend | undefined;
afterEach(async () => {
  await backend?.dispose();
  backend = undefined;
  workers.length = 0;
});

/** Runs one call of `last_rows` on 3 rows of 16 floats, one row per thread; `y` says where they go. */
function copyRows(on: CpuBackend, y: number): Promise<Float32Array> {
  const { heap, team } = on;
  return team.exclusive(async () => {
    const x = heap.allocate(4 * 48, 'x');
    heap.floats(x, 48).set(Float32Array.from({ length: 48 }, (_, i) => i));
    const args = [x, 16, y, 16, 0, THREADS, 1, 1, 16];
    const table = heap.allocate(4 * (2 + args.length), 'a program');
    heap.ints(table, 2 + args.length).set([on.kernelIndex('last_rows'), table + 8, ...args]);
    try {
      await team.run(table, 1, 0, undefined);
      return heap.floats(y, 48).slice();
    } finally {
      heap.free(table);
      heap.free(x);
    }
  });
}

describe('traps', () => {
  test('reach the caller as DEVICE, in one thread or in all, and the team goes on', async () => {
    backend = await CpuBackend.open({ threads: THREADS, blas: 'off' });
    const good = backend.heap.allocate(4 * 48, 'y');
    const expected = Float32Array.from({ length: 48 }, (_, i) => i);
    for (let round = 0; round < 20; round++) {
      const end = backend.heap.memory.buffer.byteLength;
      // The whole of y, or only its last row, lies beyond the end of the memory.
      for (const bad of [0xffff_ff00, end - 2 * 64]) {
        const calls = [copyRows(backend, good), copyRows(backend, bad), copyRows(backend, good)] as const;
        await expect(calls[1]).rejects.toMatchObject(code('DEVICE'));
        await expect(calls[1]).rejects.toThrow(/CPU kernel failed: thread \d: .*out of bounds/s);
        expect(await calls[0]).toEqual(expected);
        expect(await calls[2]).toEqual(expected);
      }
    }
  });

  test('a task that throws does not stop the queue', async () => {
    backend = await CpuBackend.open({ threads: 1, blas: 'off' });
    const order: number[] = [];
    const { team } = backend;
    const calls = [1, 2, 3, 4].map((n) =>
      team.exclusive(async () => {
        await new Promise((resolve) => setTimeout(resolve, 5 - n));
        order.push(n);
        if (n % 2 === 0) throw new Error(`task ${n}`);
        return n;
      }),
    );
    expect((await Promise.allSettled(calls)).map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'fulfilled',
      'rejected',
    ]);
    expect(order).toEqual([1, 2, 3, 4]);
  });
});

describe('workers that die', () => {
  const CONFIG = { dModel: 64, nLayer: 2, vocabSize: 40, ssmCfg: { dState: 16 } };
  const OPTIONS = { threads: THREADS, blas: 'off' } as const;
  const prompt = (length: number) => tensor(randomIds(length, 40, 1), [1, length]);

  test('in the middle of a run: DEVICE at once, also later; a new model runs on new workers', async () => {
    const lm = await MatMambaLMHeadModel.create(CONFIG, OPTIONS);
    const expected = (await lm.forward(prompt(20))).logits.toFloat32();
    expect(workers).toHaveLength(THREADS);
    const run = lm.forward(prompt(60_000), { numLastTokens: 1 });
    const behind = lm.forward(prompt(20));
    await new Promise((resolve) => setTimeout(resolve, 50));
    const start = performance.now();
    void workers[1]!.terminate();
    await expect(run).rejects.toMatchObject(code('DEVICE'));
    await expect(run).rejects.toThrow(/worker thread ended/);
    await expect(behind).rejects.toMatchObject(code('DEVICE'));
    expect(performance.now() - start).toBeLessThan(5000);
    await expect(lm.forward(prompt(20))).rejects.toMatchObject(code('DEVICE'));
    const again = await MatMambaLMHeadModel.create(CONFIG, OPTIONS);
    expect((await again.forward(prompt(20))).logits.toFloat32()).toEqual(expected);
    await again.dispose();
    await lm.dispose();
  });

  test('before they are ready', async () => {
    backend = await CpuBackend.open({ threads: THREADS, blas: 'off' });
    const y = backend.heap.allocate(4 * 48, 'y');
    const run = copyRows(backend, y);
    await vi.waitFor(() => expect(workers).toHaveLength(THREADS));
    void workers[2]!.terminate();
    await expect(run).rejects.toMatchObject(code('DEVICE'));
  });

  test('while nothing runs', async () => {
    let lost = 0;
    backend = await CpuBackend.open({ threads: THREADS, blas: 'off' }, { onLost: () => lost++ });
    const y = backend.heap.allocate(4 * 48, 'y');
    await copyRows(backend, y);
    await workers[0]!.terminate();
    expect(lost).toBe(1);
    await expect(copyRows(backend, y)).rejects.toMatchObject(code('DEVICE'));
  });
});

describe('abort and dispose', () => {
  test('aborts at any moment leave a team that computes', async () => {
    backend = await CpuBackend.open({ threads: THREADS, blas: 'off' });
    const { heap, team } = backend;
    const y = heap.allocate(4 * 48, 'y');
    const calls = 4000;
    const x = heap.allocate(4 * 48, 'x');
    const args = [x, 16, y, 16, 0, THREADS, 1, 1, 16];
    const table = heap.allocate(4 * (2 * calls + args.length), 'a program');
    const words = heap.ints(table, 2 * calls + args.length);
    for (let i = 0; i < calls; i++) words.set([backend.kernelIndex('last_rows'), table + 8 * calls], 2 * i);
    words.set(args, 2 * calls);
    let aborted = 0;
    for (let round = 0; round < 30; round++) {
      const controller = new AbortController();
      setTimeout(() => controller.abort(), round % 6);
      const outcome = await team
        .exclusive(() => team.run(table, calls, 0, controller.signal))
        .then(
          () => 'done',
          (error: { code: string }) => error.code,
        );
      expect(['done', 'ABORTED']).toContain(outcome);
      if (outcome === 'ABORTED') aborted++;
      heap.floats(y, 48).fill(-1);
      expect([...(await copyRows(backend, y))].every((value, i) => value === i)).toBe(true);
    }
    expect(aborted).toBeGreaterThan(0);
  });

  test('dispose waits for what was asked for', async () => {
    backend = await CpuBackend.open({ threads: THREADS, blas: 'off' });
    const y = backend.heap.allocate(4 * 48, 'y');
    const calls = Array.from({ length: 5 }, () => copyRows(backend!, y));
    const disposal = backend.dispose();
    for (const call of calls) expect(await call).toHaveLength(48);
    await disposal;
    await expect(copyRows(backend, y)).rejects.toMatchObject(code('DEVICE'));
  });
});
