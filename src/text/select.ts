/** Order statistics without a sort: the k-th largest of many numbers, and the fewest that hold a given mass. */

/** Up to this k a heap of k elements wins over partitioning: nearly every element fails its first comparison. */
const HEAP_LIMIT = 1024;

/**
 * The k-th largest of the first n values, 1 <= k <= n, none of them NaN. `scratch` holds at least n elements and is
 * overwritten; the values are not.
 */
export function kthLargest(values: Float32Array, n: number, k: number, scratch: Float32Array): number {
  return k <= HEAP_LIMIT ? kthByHeap(values, n, k, scratch) : kthByPartition(values, n, k, scratch);
}

/** Keeps the k largest so far in a heap with the least of them on top. */
function kthByHeap(values: Float32Array, n: number, k: number, heap: Float32Array): number {
  for (let i = 0; i < k; i++) heap[i] = values[i]!;
  for (let i = (k >> 1) - 1; i >= 0; i--) sink(heap, k, i, heap[i]!);
  let least = heap[0]!;
  for (let i = k; i < n; i++) {
    const value = values[i]!;
    if (value > least) {
      sink(heap, k, 0, value);
      least = heap[0]!;
    }
  }
  return least;
}

/** Puts a value into the hole and lets it sink below smaller ones. */
function sink(heap: Float32Array, size: number, start: number, value: number): void {
  let hole = start;
  for (;;) {
    let child = 2 * hole + 1;
    if (child >= size) break;
    if (child + 1 < size && heap[child + 1]! < heap[child]!) child++;
    if (heap[child]! >= value) break;
    heap[hole] = heap[child]!;
    hole = child;
  }
  heap[hole] = value;
}

/** Quickselect with Hoare's partition, which stays balanced on equal values. */
function kthByPartition(values: Float32Array, n: number, k: number, scratch: Float32Array): number {
  scratch.set(n === values.length ? values : values.subarray(0, n));
  const target = k - 1;
  let low = 0;
  let high = n - 1;
  while (low < high) {
    const pivot = median(scratch[low]!, scratch[(low + high) >> 1]!, scratch[high]!);
    let i = low;
    let j = high;
    while (i <= j) {
      while (scratch[i]! > pivot) i++;
      while (scratch[j]! < pivot) j--;
      if (i > j) break;
      const swapped = scratch[i]!;
      scratch[i++] = scratch[j]!;
      scratch[j--] = swapped;
    }
    if (target <= j) high = j;
    else if (target >= i) low = i;
    else break;
  }
  return scratch[target]!;
}

function median(a: number, b: number, c: number): number {
  return Math.max(Math.min(a, b), Math.min(Math.max(a, b), c));
}

/** Buffers of `massCut`, reused from call to call. */
export class MassScratch {
  weights = new Float64Array(0);
  ids = new Int32Array(0);

  reserve(n: number): void {
    if (this.weights.length >= n) return;
    this.weights = new Float64Array(n);
    this.ids = new Int32Array(n);
  }
}

/** The last element that is kept: larger weights come first, and of equal ones the lower index. */
export interface Cut {
  readonly weight: number;
  readonly index: number;
}

/**
 * The smallest set of the largest of n weights (>= 0) that holds at least `share` of their total, given by its last
 * element. At least one element is kept.
 */
export function massCut(weights: Float64Array, n: number, total: number, share: number, scratch: MassScratch): Cut {
  scratch.reserve(n);
  const { weights: w, ids } = scratch;
  // All weights below this together miss the mass that may be left out, so none of them can be needed.
  const floor = ((1 - share) * total) / n;
  let count = 0;
  for (let i = 0; i < n; i++) {
    if (weights[i]! < floor) continue;
    w[count] = weights[i]!;
    ids[count++] = i;
  }
  let low = 0;
  let high = count;
  let need = share * total;
  let cut = 0;
  while (low < high) {
    cut = partition(w, ids, low, high);
    let mass = 0;
    for (let i = low; i < cut; i++) mass += w[i]!;
    if (cut > low && mass >= need) {
      high = cut;
    } else if (mass + w[cut]! >= need) {
      break;
    } else {
      need -= mass + w[cut]!;
      low = cut + 1;
    }
  }
  // Rounding may ask for more than there is: then the last element of all is the cut, which the loop ended on.
  return { weight: w[cut]!, index: ids[cut]! };
}

/** Whether element a comes before b: a larger weight, or the same at a lower index. */
export function comesBefore(weightA: number, indexA: number, weightB: number, indexB: number): boolean {
  return weightA > weightB || (weightA === weightB && indexA < indexB);
}

/** Moves the elements before a pivot to the front of [low, high) and returns the place of the pivot. */
function partition(w: Float64Array, ids: Int32Array, low: number, high: number): number {
  const last = high - 1;
  swap(w, ids, middleOf(w, ids, low, (low + last) >> 1, last), last);
  const weight = w[last]!;
  const id = ids[last]!;
  let place = low;
  for (let i = low; i < last; i++) if (comesBefore(w[i]!, ids[i]!, weight, id)) swap(w, ids, i, place++);
  swap(w, ids, place, last);
  return place;
}

/** Which of three places holds the middle element. */
function middleOf(w: Float64Array, ids: Int32Array, a: number, b: number, c: number): number {
  const before = (x: number, y: number): boolean => comesBefore(w[x]!, ids[x]!, w[y]!, ids[y]!);
  if (before(a, b)) return before(b, c) ? b : before(a, c) ? c : a;
  return before(a, c) ? a : before(b, c) ? c : b;
}

function swap(w: Float64Array, ids: Int32Array, i: number, j: number): void {
  const weight = w[i]!;
  w[i] = w[j]!;
  w[j] = weight;
  const id = ids[i]!;
  ids[i] = ids[j]!;
  ids[j] = id;
}
