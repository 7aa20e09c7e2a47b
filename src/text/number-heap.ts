/** The queue of byte-pair merging: candidates wait in it as numbers that begin with their rank. */

/** A binary heap of numbers, the lowest first. */
export class NumberHeap {
  readonly #entries: number[] = [];

  get size(): number {
    return this.#entries.length;
  }

  push(entry: number): void {
    const heap = this.#entries;
    let hole = heap.length;
    heap.push(entry);
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (heap[parent]! <= entry) break;
      heap[hole] = heap[parent]!;
      hole = parent;
    }
    heap[hole] = entry;
  }

  /** The lowest; the heap must not be empty. */
  pop(): number {
    const heap = this.#entries;
    const lowest = heap[0]!;
    const last = heap.pop()!;
    const { length } = heap;
    if (length === 0) return lowest;
    let hole = 0;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= length) break;
      if (child + 1 < length && heap[child + 1]! < heap[child]!) child++;
      if (heap[child]! >= last) break;
      heap[hole] = heap[child]!;
      hole = child;
    }
    heap[hole] = last;
    return lowest;
  }
}
