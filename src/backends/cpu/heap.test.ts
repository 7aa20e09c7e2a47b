/** The allocator on random sequences of calls: no overlap, no leak, free neighbours are joined. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Heap, WASM_PAGE_BYTES } from './heap.ts';

const ALIGN = 256;

describe('heap', () => {
  test('random allocations and frees', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            size: fc.oneof(fc.integer({ min: 0, max: 4000 }), fc.integer({ min: 0, max: 2 ** 20 })),
            free: fc.nat(100),
          }),
          { maxLength: 150 },
        ),
        (steps) => {
          const heap = new Heap();
          const live: { pointer: number; size: number; mark: number }[] = [];
          let used = 0;
          const whole = (size: number): number => Math.max(ALIGN, Math.ceil(size / ALIGN) * ALIGN);
          for (const [mark, { size, free }] of steps.entries()) {
            if (free > 55 && live.length > 0) {
              const [gone] = live.splice(free % live.length, 1);
              const values = heap.bytes(gone!.pointer, gone!.size);
              if (!values.every((value) => value === gone!.mark % 251)) throw new Error('a block was overwritten');
              heap.free(gone!.pointer);
              used -= whole(gone!.size);
            } else {
              const pointer = heap.allocate(size, 'test');
              if (pointer % ALIGN !== 0) throw new Error(`${pointer} is not aligned`);
              heap.bytes(pointer, size).fill(mark % 251);
              live.push({ pointer, size, mark });
              used += whole(size);
            }
            expect(heap.usedBytes).toBe(used);
            const sorted = live.toSorted((a, b) => a.pointer - b.pointer);
            for (const [i, block] of sorted.entries()) {
              if (i > 0 && sorted[i - 1]!.pointer + whole(sorted[i - 1]!.size) > block.pointer) throw new Error('blocks overlap');
            }
          }
          for (const { pointer } of live) heap.free(pointer);
          expect(heap.usedBytes).toBe(0);
          // Everything is one free block again: a block as large as the memory fits without growing it.
          const { byteLength } = heap.memory.buffer;
          const all = heap.allocate(byteLength - (1 << 20), 'test');
          expect(all).toBe(1 << 20);
          expect(heap.memory.buffer.byteLength).toBe(byteLength);
        },
      ),
      { numRuns: 40, seed: 1 },
    );
  });

  test('grows by what is missing, and keeps what was written', () => {
    const heap = new Heap();
    const first = heap.allocate(100, 'test');
    heap.bytes(first, 100).fill(7);
    const before = heap.memory.buffer.byteLength;
    const large = heap.allocate(before, 'test');
    expect(heap.memory.buffer.byteLength).toBeLessThanOrEqual(2 * before + WASM_PAGE_BYTES);
    expect(heap.bytes(large, before)).toHaveLength(before);
    expect(heap.bytes(first, 100).every((value) => value === 7)).toBe(true);
  });

  test('more than the address space is refused, and the heap goes on', () => {
    const heap = new Heap();
    expect(() => heap.allocate(heap.limitBytes + 2 * WASM_PAGE_BYTES, 'a test')).toThrow(
      expect.objectContaining({ code: 'MEMORY', hint: expect.stringContaining('4 GiB') }),
    );
    expect(heap.usedBytes).toBe(0);
    const pointer = heap.allocate(1000, 'test');
    heap.free(pointer);
    expect(() => heap.free(pointer)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
    expect(() => heap.free(12345)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  });

  test('addresses above 2 GiB work', () => {
    const heap = new Heap();
    const low = heap.allocate(2 ** 31, 'test');
    const high = heap.allocate(2 ** 20, 'test');
    expect(high).toBeGreaterThan(2 ** 31);
    heap.floats(high, 4).set([1, 2, 3, 4]);
    expect([...heap.ints(high, 1)]).toEqual([0x3f800000]);
    heap.free(low);
    heap.free(high);
    expect(heap.usedBytes).toBe(0);
  });
});
