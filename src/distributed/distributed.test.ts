/** What needs no MPI: recognising launchers, shares of work, buckets on a group of one and on a recorded one. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  Buckets,
  type Communicator,
  SingleProcess,
  batchRows,
  connect,
  detectLaunch,
  fileIndices,
  localRank,
  rankName,
  shareOf,
} from './index.ts';

describe('detectLaunch', () => {
  it('finds no launcher in a plain environment, nor in a job of one', () => {
    expect(detectLaunch({ PATH: '/bin' })).toBeUndefined();
    expect(detectLaunch({ OMPI_COMM_WORLD_SIZE: '1', OMPI_COMM_WORLD_RANK: '0', PMIX_RANK: '0' })).toBeUndefined();
    expect(detectLaunch({ PMI_SIZE: 'many' })).toBeUndefined();
    // A Slurm batch script runs once, whatever the job's number of tasks.
    expect(detectLaunch({ SLURM_NTASKS: '8', SLURM_PROCID: '0' })).toBeUndefined();
  });

  it.each([
    [{ OMPI_COMM_WORLD_SIZE: '4', OMPI_COMM_WORLD_RANK: '2', PMIX_RANK: '2' }, 'openmpi', 4, 2],
    [{ PMI_SIZE: '3', PMI_RANK: '0' }, 'mpich', 3, 0],
    [{ MV2_COMM_WORLD_SIZE: '2', MV2_COMM_WORLD_RANK: '1', PMI_SIZE: '2' }, 'mpich', 2, 1],
    [{ SLURM_STEP_NUM_TASKS: '8', SLURM_PROCID: '5', PMI_SIZE: '8', PMI_RANK: '5' }, undefined, 8, 5],
    [{ PMIX_RANK: '1' }, undefined, undefined, 1],
  ])('recognises %j', (env, family, size, rank) => {
    expect(detectLaunch(env)).toMatchObject({ family, size, rank });
  });
});

describe("torchrun's variables", () => {
  const place = { RANK: '1', WORLD_SIZE: '2', MASTER_ADDR: 'node7', MASTER_PORT: '29500' };

  it('place a process, before those of other launchers', () => {
    const rendezvous = { address: 'node7', port: 29_500 };
    expect(detectLaunch(place)).toEqual({ launcher: 'torchrun', family: undefined, size: 2, rank: 1, rendezvous });
    expect(detectLaunch({ ...place, SLURM_STEP_NUM_TASKS: '1', SLURM_PROCID: '0' })).toMatchObject({ rendezvous });
    expect(detectLaunch({ ...place, RANK: '0', WORLD_SIZE: '1' })).toMatchObject({ size: 1, rank: 0 });
    // torchrun's own store listens at the port.
    expect(detectLaunch({ ...place, TORCHELASTIC_USE_AGENT_STORE: 'True' })?.rendezvous?.port).toBe(29_501);
  });

  it('count only together', () => {
    for (const name of Object.keys(place)) expect(detectLaunch({ ...place, [name]: undefined })).toBeUndefined();
  });

  it.each([
    ['RANK', '2'],
    ['RANK', '-1'],
    ['WORLD_SIZE', '0'],
    ['MASTER_PORT', 'http'],
    ['MASTER_PORT', '70000'],
  ])('that are odd are refused: %s=%s', (name, value) => {
    expect(() => detectLaunch({ ...place, [name]: value })).toThrow(`${name}=${value}`);
  });

  it('and those of other launchers tell the number on this machine', () => {
    expect(localRank({})).toBeUndefined();
    for (const name of ['LOCAL_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'MPI_LOCALRANKID', 'SLURM_LOCALID'])
      expect(localRank({ [name]: '3' })).toBe(3);
    expect(localRank({ LOCAL_RANK: '1', SLURM_LOCALID: '0' })).toBe(1);
  });
});

describe('a group of one', () => {
  it('is what connect gives without a launcher', async () => {
    const group = await connect({ env: {} });
    expect(group).toBeInstanceOf(SingleProcess);
    const values = Float32Array.of(1, 2);
    await group.allReduceSum(values);
    await group.broadcast(values, 0);
    await group.barrier();
    expect([...values]).toEqual([1, 2]);
    await expect(group.broadcast(values, 1)).rejects.toMatchObject({ code: 'OPTION' });
    expect(() => group.abort('NaN in the loss')).toThrow(/NaN in the loss/);
    expect(rankName(group)).toMatch(/^rank 0 of 1 on host ./);
    await group.finalize();
  });

  it('refuses options that do not exist', async () => {
    await expect(connect({ env: {}, librari: 'x' } as never)).rejects.toMatchObject({ code: 'OPTION' });
    await expect(connect({ env: {}, timeoutMs: 0 })).rejects.toMatchObject({ code: 'OPTION' });
  });
});

describe('shares', () => {
  it('are disjoint, balanced and together the whole', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 5000 }), fc.integer({ min: 1, max: 64 }), (count, size) => {
        let next = 0;
        for (let rank = 0; rank < size; rank++) {
          const { start, end } = shareOf(count, { rank, size });
          expect(start).toBe(next);
          expect(end - start - Math.floor(count / size)).toBeOneOf([0, 1]);
          next = end;
        }
        expect(next).toBe(count);
      }),
    );
  });

  it('of files are disjoint, complete and near in bytes', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 1000 }), { maxLength: 60 }),
        fc.integer({ min: 1, max: 9 }),
        (sizes, size) => {
          const perRank = Array.from({ length: size }, (_, rank) => fileIndices(sizes, { rank, size }));
          expect(perRank.flat().sort((a, b) => a - b)).toEqual(sizes.map((_, i) => i));
          const loads = perRank.map((indices) => indices.reduce((sum, i) => sum + Math.max(1, sizes[i] ?? 0), 0));
          expect(Math.max(...loads) - Math.min(...loads)).toBeLessThanOrEqual(Math.max(1, ...sizes));
        },
      ),
    );
  });

  it('of a batch are equal, or refused with the next batch that divides', () => {
    expect(batchRows(8, { rank: 1, size: 4 })).toEqual({ start: 2, end: 4 });
    expect(() => batchRows(10, { rank: 0, size: 4 })).toThrow(
      /batch of 10 does not divide among 4 processes[^]*batch of 8 or 12/,
    );
    expect(() => shareOf(3, { rank: 2, size: 2 })).toThrow(/rank 2 is none of 2/);
  });
});

/** A group of two whose other rank holds the same values: sums double. Records the lengths of the sums. */
function doubling(lengths: number[], fail = false): Communicator {
  return Object.assign(new SingleProcess(), {
    size: 2,
    async allReduceSum(buffer: Float32Array | Float64Array) {
      lengths.push(buffer.length);
      await new Promise((resolve) => setImmediate(resolve));
      if (fail) throw new Error('the network is gone');
      buffer.set(buffer.map((value) => value * 2));
    },
  });
}

describe('Buckets', () => {
  it('reduce every number exactly once, start early and keep their order', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 50 }), { minLength: 1, maxLength: 12 }),
        fc.integer({ min: 1, max: 40 }),
        fc.boolean(),
        async (sizes, capacity, adjacent) => {
          const memory = new Float32Array(2000).fill(7);
          let offset = 10;
          const parts = sizes.map((length, i) => {
            const values = memory.subarray(offset, offset + length);
            offset += length + (adjacent ? 0 : 3);
            return { name: `p${i}`, values };
          });
          const lengths: number[] = [];
          const buckets = new Buckets(doubling(lengths), parts, { bucketBytes: capacity * 4 });
          const total = sizes.reduce((a, b) => a + b, 0);
          expect(buckets.count).toBe(Math.ceil(total / capacity));
          for (let step = 1; step <= 2; step++) {
            for (const { name } of step === 1 ? parts : [...parts].reverse()) buckets.ready(name);
            await buckets.finish();
            expect(parts.every(({ values }) => values.every((value) => value === 7 * 2 ** step))).toBe(true);
          }
          expect(lengths.reduce((a, b) => a + b, 0)).toBe(2 * total);
          expect(memory.filter((value) => value === 7).length).toBe(memory.length - total);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('start as soon as their parts are ready, not before', () => {
    const lengths: number[] = [];
    const part = (name: string, length: number) => ({ name, values: new Float32Array(length) });
    const buckets = new Buckets(doubling(lengths), [part('last', 6), part('middle', 4), part('first', 10)], { bucketBytes: 40 });
    buckets.ready('middle');
    expect(lengths).toEqual([]);
    buckets.ready('last');
    expect(lengths).toEqual([10]);
    buckets.ready('first');
    expect(lengths).toEqual([10, 10]);
  });

  it('refuse unknown and repeated names, and report a failed sum', async () => {
    const parts = [{ name: 'a', values: new Float32Array(4) }];
    const buckets = new Buckets(doubling([], true), parts);
    expect(() => buckets.ready('b')).toThrow(/no gradient is called 'b'/);
    buckets.ready('a');
    expect(() => buckets.ready('a')).toThrow(/ready already/);
    await expect(buckets.finish()).rejects.toThrow('the network is gone');
    expect(() => new Buckets(new SingleProcess(), [...parts, ...parts])).toThrow(/the same name/);
  });
});
