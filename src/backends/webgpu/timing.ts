/** What parts of a replay take: by the device's clock where the adapter has timestamps, else by the host's, one by one. */

import { BUFFER_USAGE, type WebGpuDevice } from './device.ts';

const MOST_QUERIES = 4096;
const TIMESTAMP_BYTES = 8;

/** Begin and end of so many spans on the device's clock. */
class Spans {
  readonly #count: number;
  readonly #sets: readonly GPUQuerySet[];
  readonly #resolved: GPUBuffer;
  readonly #mapped: GPUBuffer;

  constructor({ gpu }: WebGpuDevice, count: number) {
    this.#count = count;
    const sets = Math.ceil((2 * count) / MOST_QUERIES);
    this.#sets = Array.from({ length: sets }, (_, i) =>
      gpu.createQuerySet({ type: 'timestamp', count: Math.min(MOST_QUERIES, 2 * count - i * MOST_QUERIES) }),
    );
    const size = TIMESTAMP_BYTES * MOST_QUERIES * sets;
    this.#resolved = gpu.createBuffer({ size, usage: BUFFER_USAGE.queryResolve | BUFFER_USAGE.copySource });
    this.#mapped = gpu.createBuffer({ size, usage: BUFFER_USAGE.mapRead | BUFFER_USAGE.copyTarget });
  }

  begin(i: number): GPUComputePassTimestampWrites {
    return { querySet: this.#setOf(i), beginningOfPassWriteIndex: (2 * i) % MOST_QUERIES };
  }
  end(i: number): GPUComputePassTimestampWrites {
    return { querySet: this.#setOf(i), endOfPassWriteIndex: ((2 * i) % MOST_QUERIES) + 1 };
  }

  resolve(encoder: GPUCommandEncoder): void {
    for (const [i, set] of this.#sets.entries()) {
      encoder.resolveQuerySet(set, 0, set.count, this.#resolved, TIMESTAMP_BYTES * MOST_QUERIES * i);
    }
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#mapped, 0, this.#mapped.size);
  }

  /** Milliseconds of every span, once what was submitted is done. */
  async read(): Promise<number[]> {
    await this.#mapped.mapAsync(1);
    const times = new BigUint64Array(this.#mapped.getMappedRange());
    const ms = Array.from({ length: this.#count }, (_, i) => Math.max(0, Number(times[2 * i + 1]! - times[2 * i]!)) / 1e6);
    this.#mapped.unmap();
    return ms;
  }

  free(): void {
    for (const set of this.#sets) set.destroy();
    this.#resolved.destroy();
    this.#mapped.destroy();
  }

  #setOf(i: number): GPUQuerySet {
    return this.#sets[Math.floor((2 * i) / MOST_QUERIES)]!;
  }
}

/** A replay in parts; `encode` must not wait. */
export interface TimedReplay {
  readonly device: WebGpuDevice;
  /** Parts, encoded in order. */
  readonly count: number;
  encode(encoder: GPUCommandEncoder, part: number, timestamps?: GPUComputePassTimestampWrites): void;
  /** All parts at once. */
  encodeAll(encoder: GPUCommandEncoder): void;
  /** What comes behind all parts. */
  finish(encoder: GPUCommandEncoder): void;
  /** Runs `work` and throws what WebGPU found wrong in it. */
  checked(work: () => void): Promise<void>;
}

/** Milliseconds of every part. */
export async function timeParts({ device, count, encode, finish, checked }: TimedReplay): Promise<number[]> {
  const { gpu } = device;
  if (device.features.includes('timestamps') && count > 0) {
    const spans = new Spans(device, count);
    try {
      await checked(() => {
        const encoder = gpu.createCommandEncoder();
        for (let i = 0; i < count; i++) encode(encoder, i, { ...spans.begin(i), ...spans.end(i) });
        spans.resolve(encoder);
        finish(encoder);
        gpu.queue.submit([encoder.finish()]);
      });
      return await spans.read();
    } finally {
      spans.free();
    }
  }
  const submit = async (work: (encoder: GPUCommandEncoder) => void): Promise<number> => {
    await checked(() => {
      const encoder = gpu.createCommandEncoder();
      work(encoder);
      gpu.queue.submit([encoder.finish()]);
    });
    const start = performance.now();
    await gpu.queue.onSubmittedWorkDone();
    return performance.now() - start;
  };
  const ms: number[] = [];
  for (let i = 0; i < count; i++) ms.push(await submit((encoder) => encode(encoder, i)));
  await submit(finish);
  return ms;
}

/** Milliseconds from the first part's begin to the last one's end. */
export async function timeWhole({ device, encodeAll, finish, checked }: TimedReplay): Promise<number> {
  const { gpu } = device;
  const withTimestamps = device.features.includes('timestamps');
  const spans = withTimestamps ? new Spans(device, 1) : undefined;
  const start = performance.now();
  try {
    await checked(() => {
      const encoder = gpu.createCommandEncoder();
      // Passes without dispatches, because copies between dispatches may cut a replay into several passes.
      if (spans) encoder.beginComputePass({ timestampWrites: spans.begin(0) }).end();
      encodeAll(encoder);
      if (spans) encoder.beginComputePass({ timestampWrites: spans.end(0) }).end();
      spans?.resolve(encoder);
      finish(encoder);
      gpu.queue.submit([encoder.finish()]);
    });
    if (spans) return (await spans.read())[0]!;
    await gpu.queue.onSubmittedWorkDone();
    return performance.now() - start;
  } finally {
    spans?.free();
  }
}
