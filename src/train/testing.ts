/** What the tests of training share: a tiny model, its batches, and ranks that live in one process. */

import type { ProgramInputs } from '../backends/backend.ts';
import { type Communicator, type Summable, SingleProcess } from '../distributed/communicator.ts';
import type { Share } from '../distributed/shares.ts';
import { MatMambaLMHeadModel } from '../models/language-model.ts';
import type { TrainingShape } from '../models/training.ts';
import { Random } from '../tensor/random.ts';
import type { TrainingData } from './trainer.ts';

export const LENGTH = 12;
export const VOCABULARY = 40;
export const CONFIG = { dModel: 32, nLayer: 3, vocabSize: VOCABULARY, ssmCfg: { dState: 8 } };

export const tinyModel = (): Promise<MatMambaLMHeadModel> =>
  MatMambaLMHeadModel.create(CONFIG, { threads: 1, blas: 'off', seed: 3 });

export const shapeOf = (batch: number, change: Partial<TrainingShape> = {}): TrainingShape => ({
  batch,
  length: LENGTH,
  dims: [32, 16, 32],
  recompute: false,
  projDropRate: 0,
  dropPathRate: 0,
  distill: 0,
  ...change,
});

/** Row `row` of a step, whatever batch it is in. */
function rowOf(step: number, row: number): Int32Array {
  const random = new Random(step * 1000 + row, 'rows');
  return Int32Array.from({ length: LENGTH + 1 }, () => random.uint32() % VOCABULARY);
}

/** Rows [first, first + count) of a step. */
export function batchOf(step: number, first: number, count: number): { ids: Int32Array; targets: Int32Array } {
  const [ids, targets] = [new Int32Array(count * LENGTH), new Int32Array(count * LENGTH)];
  for (let i = 0; i < count; i++) {
    const tokens = rowOf(step, first + i);
    ids.set(tokens.subarray(0, LENGTH), i * LENGTH);
    targets.set(tokens.subarray(1), i * LENGTH);
  }
  return { ids, targets };
}

/** Data whose rows are numbered through a step; `batch` rows a global micro-batch. */
export function numberedRows(batch: number): TrainingData {
  return {
    async inputs(step, index, { start, end }: Share): Promise<ProgramInputs> {
      return batchOf(step, index * batch + start, end - start);
    },
  };
}

/** Ranks of one process: calls meet, sums add up in the order of the ranks. */
export function ranksInProcess(size: number): Communicator[] {
  interface Call {
    readonly buffers: (Summable | ArrayBufferView)[];
    readonly done: Promise<void>;
    readonly finish: () => void;
  }
  const calls: Call[] = [];
  const counts = Array.from({ length: size }, () => 0);
  const meet = (rank: number, buffer: ArrayBufferView, act: (buffers: ArrayBufferView[]) => void): Promise<void> => {
    const number = counts[rank]!++;
    if (!calls[number]) {
      let finish = (): void => {};
      const done = new Promise<void>((resolve) => (finish = resolve));
      calls[number] = { buffers: [], done, finish };
    }
    const call = calls[number];
    call.buffers[rank] = buffer;
    if (call.buffers.filter(Boolean).length === size) {
      act(call.buffers);
      call.finish();
    }
    return call.done;
  };
  const sum = (buffers: ArrayBufferView[]): void => {
    const all = buffers as Summable[];
    for (let i = 0; i < all[0]!.length; i++) {
      const total = all.reduce((before, one) => before + one[i]!, 0);
      for (const one of all) one[i] = total;
    }
  };
  const copyFrom =
    (root: number) =>
    (buffers: ArrayBufferView[]): void => {
      const bytes = (view: ArrayBufferView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
      for (const one of buffers) if (one !== buffers[root]) bytes(one).set(bytes(buffers[root]!));
    };
  return Array.from({ length: size }, (_, rank): Communicator => {
    if (size === 1) return new SingleProcess();
    return {
      rank,
      size,
      host: 'here',
      allReduceSum: (buffer) => meet(rank, buffer, sum),
      broadcast: (buffer, root) => meet(rank, buffer, copyFrom(root)),
      barrier: () => meet(rank, new Uint8Array(0), () => {}),
      abort: (reason) => {
        throw new Error(reason);
      },
      finalize: async () => {},
    };
  });
}
