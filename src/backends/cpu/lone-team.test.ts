/** One thread without shared memory, as in a page that is not isolated: the same numbers, with breaths and aborts. */

import { afterAll, describe, expect, test } from 'vitest';
import { OP_NAMES, checkCases, hasMatrix } from '../../../test/support/check-cases.ts';
import { CpuBackend } from './cpu-backend.ts';
import { nodePlatform } from './platform-node.ts';
import { withUnsharedMemory } from './unshared.ts';

const backend = await CpuBackend.open({ threads: 4 }, {}, { ...nodePlatform, alone: 'a test' });
afterAll(() => backend.dispose());
const { unsupported } = backend.capabilities();

describe('one thread without shared memory', () => {
  test('says why', () => {
    const { threads, facts } = backend.capabilities();
    expect(threads).toBe(1);
    expect(facts['one thread']).toBe('a test');
    expect(backend.heap.memory.buffer).toBeInstanceOf(ArrayBuffer);
  });

  for (const opName of OP_NAMES) {
    test.skipIf(opName in unsupported)(opName, async () => {
      await checkCases(backend, opName, 'f32', ({ tolerance }) => tolerance);
      if (hasMatrix(opName)) await checkCases(backend, opName, 'int8', ({ tolerance }) => Math.max(2e-3, tolerance));
    });
  }

  /** Many calls that copy nothing. */
  async function idleTable(calls: number): Promise<number> {
    const args = [0, 16, 0, 16, 0, 0, 0, 1, 16];
    const table = backend.heap.allocate(4 * (2 * calls + args.length), 'a program');
    const cells = backend.heap.ints(table, 2 * calls + args.length);
    for (let i = 0; i < calls; i++) cells.set([backend.kernelIndex('last_rows'), table + 8 * calls], 2 * i);
    cells.set(args, 2 * calls);
    return table;
  }

  test('a long program leaves room for timers, and stops when it is told to', async () => {
    const { team, heap } = backend;
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), 20);
    const table = await team.exclusive(() => idleTable(3_000_000));
    await expect(team.exclusive(() => team.run(table, 3_000_000, 0, controller.signal))).rejects.toMatchObject({
      code: 'ABORTED',
    });
    clearTimeout(timer);
    heap.free(table);
  });

  test('a module without a memory is refused', () => {
    expect(() => withUnsharedMemory(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0))).toThrow(/imports no memory/);
  });
});
