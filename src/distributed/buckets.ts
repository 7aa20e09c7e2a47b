/**
 * Gradients summed over ranks in buckets, each as soon as its gradients are ready, while the backward pass goes on with
 * earlier layers (Li et al. 2020, section 3.2.3).
 *
 * Invariants: buckets start in one fixed order on every rank, whatever the order in which gradients become ready, and
 * their borders depend only on the parts and `bucketBytes`: sums repeat bit for bit. Parts that lie next to each other
 * in memory are reduced in place; others are gathered into a buffer of the bucket and scattered back.
 */

import { MatMambaError } from '../errors.ts';
import type { Communicator } from './communicator.ts';

/** Bytes of a bucket: large enough for the bandwidth, small enough to start early and to stay in the cache. */
export const BUCKET_BYTES = 4 * 2 ** 20;

/** One gradient, flat. */
export interface GradientPart {
  readonly name: string;
  readonly values: Float32Array;
}

interface Bucket {
  /** Views of one piece of memory each. */
  readonly views: Float32Array[];
  /** Names of the parts that must be ready first. */
  readonly parts: Set<string>;
  /** Where several views meet; undefined when there is one, which is reduced in place. */
  readonly gathered: Float32Array | undefined;
}

export class Buckets {
  readonly #communicator: Communicator;
  readonly #buckets: readonly Bucket[];
  readonly #names: ReadonlySet<string>;
  readonly #ready = new Set<string>();
  #started: Promise<void>[] = [];

  /**
   * @param parts gradients in the order in which they become ready: for a backward pass, the last layer first; the same
   *   names, lengths and order on every rank
   * @throws OPTION
   */
  constructor(communicator: Communicator, parts: readonly GradientPart[], options: { bucketBytes?: number } = {}) {
    const { bucketBytes = BUCKET_BYTES } = options;
    if (!(bucketBytes >= 4)) throw new MatMambaError('OPTION', `bucketBytes must be at least 4, got ${bucketBytes}`);
    this.#communicator = communicator;
    this.#names = new Set(parts.map((part) => part.name));
    if (this.#names.size !== parts.length) throw new MatMambaError('OPTION', 'two gradients have the same name');
    this.#buckets = fill(parts, Math.floor(bucketBytes / 4));
  }

  /** Number of reductions a step takes. */
  get count(): number {
    return this.#buckets.length;
  }

  /**
   * A gradient is complete: its bucket starts once the others in it are. Its values must not be touched until `finish`.
   * @throws OPTION for a name that is none of the parts, or that was ready before
   */
  ready(name: string): void {
    if (!this.#names.has(name)) throw new MatMambaError('OPTION', `no gradient is called '${name}'`);
    if (this.#ready.has(name)) throw new MatMambaError('OPTION', `gradient '${name}' was ready already`);
    this.#ready.add(name);
    this.#start();
  }

  /** Marks what is left as ready, waits for all sums, and is then ready for the next step. @throws DEVICE, DISPOSED */
  async finish(): Promise<void> {
    for (const name of this.#names) this.#ready.add(name);
    this.#start();
    const started = this.#started;
    this.#started = [];
    this.#ready.clear();
    const outcomes = await Promise.allSettled(started);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  #start(): void {
    for (let next = this.#buckets[this.#started.length]; next; next = this.#buckets[this.#started.length]) {
      if (![...next.parts].every((name) => this.#ready.has(name))) return;
      const sum = this.#reduce(next);
      // `finish` reports it; until then it must not count as unhandled.
      sum.catch(() => undefined);
      this.#started.push(sum);
    }
  }

  async #reduce({ views, gathered }: Bucket): Promise<void> {
    if (this.#communicator.size === 1) return;
    if (!gathered) return this.#communicator.allReduceSum(views[0]!);
    let offset = 0;
    for (const view of views) {
      gathered.set(view, offset);
      offset += view.length;
    }
    await this.#communicator.allReduceSum(gathered);
    offset = 0;
    for (const view of views) {
      view.set(gathered.subarray(offset, offset + view.length));
      offset += view.length;
    }
  }
}

/** Whether `b` begins where `a` ends. */
function touches(a: Float32Array, b: Float32Array): boolean {
  return a.buffer === b.buffer && a.byteOffset + a.byteLength === b.byteOffset;
}

/** Cuts the parts, in order, into buckets of at most `capacity` numbers. */
function fill(parts: readonly GradientPart[], capacity: number): Bucket[] {
  const buckets: { views: Float32Array[]; parts: Set<string>; length: number }[] = [];
  for (const { name, values } of parts) {
    for (let start = 0; start < values.length;) {
      let bucket = buckets.at(-1);
      if (!bucket || bucket.length === capacity) {
        bucket = { views: [], parts: new Set(), length: 0 };
        buckets.push(bucket);
      }
      const end = Math.min(values.length, start + capacity - bucket.length);
      const view = values.subarray(start, end);
      const last = bucket.views.at(-1);
      if (last && touches(last, view)) {
        bucket.views[bucket.views.length - 1] = new Float32Array(last.buffer, last.byteOffset, last.length + view.length);
      } else bucket.views.push(view);
      bucket.parts.add(name);
      bucket.length += view.length;
      start = end;
    }
  }
  return buckets.map(({ views, parts, length }) => ({
    views,
    parts,
    gathered: views.length > 1 ? new Float32Array(length) : undefined,
  }));
}
