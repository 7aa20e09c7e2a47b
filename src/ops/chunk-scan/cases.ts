/** Cases of the chunk scan: head sizes and counts, lengths around a chunk, states, limits of dt, strong decays. */

import type { Fill, OpCase, OperandCase } from '../cases.ts';

interface Setting {
  readonly batch?: number;
  readonly length: number;
  readonly heads: number;
  readonly headdim: number;
  readonly dState: number;
  /** Heads of the parameters and the state; `heads` unless given. */
  readonly fullHeads?: number;
  readonly slots?: readonly number[];
  readonly lengths?: readonly number[];
  readonly dHasHdim?: boolean;
  readonly dtLimit?: readonly [number, number];
  readonly dt?: Fill;
  readonly aLog?: Fill;
  readonly tolerance?: number;
}

function scanCase(name: string, setting: Setting): OpCase {
  const { batch = 1, length, heads, headdim, dState, slots, lengths, dHasHdim = false, dtLimit } = setting;
  const fullHeads = setting.fullHeads ?? heads;
  const rows = (columns: number, fill?: Fill): OperandCase => ({ shape: [batch, length, columns], ...(fill ? { fill } : {}) });
  const operands: Record<string, OperandCase> = {
    x: rows(heads * headdim),
    b: rows(dState),
    c: rows(dState),
    dt: rows(heads, setting.dt),
    dtBias: { shape: [fullHeads], fill: { kind: 'uniform', low: -6, high: -2 } },
    aLog: { shape: [fullHeads], fill: setting.aLog ?? { kind: 'uniform', low: 0, high: Math.log(16) } },
    d: { shape: [dHasHdim ? fullHeads * headdim : fullHeads] },
  };
  if (slots) {
    operands.state = { shape: [Math.max(...slots) + 2, fullHeads, headdim, dState] };
    operands.slots = { shape: [batch], dtype: 'i32', fill: { kind: 'values', values: slots } };
  }
  if (lengths) operands.lengths = { shape: [batch], dtype: 'i32', fill: { kind: 'values', values: lengths } };
  const limits = dtLimit ? { dtMin: dtLimit[0], dtMax: dtLimit[1] } : {};
  return { name, operands, attributes: { batch, length, headdim, dHasHdim, ...limits }, tolerance: setting.tolerance ?? 2e-6 };
}

export const chunkScanCases: readonly OpCase[] = [
  scanCase('heads of 24', { length: 65, heads: 8, headdim: 24, dState: 128 }),
  scanCase('heads of 64, batch', { batch: 3, length: 40, heads: 4, headdim: 64, dState: 32 }),
  scanCase('heads of 12, past a chunk', { length: 257, heads: 5, headdim: 12, dState: 16 }),
  scanCase('heads of 3', { batch: 2, length: 255, heads: 7, headdim: 3, dState: 32 }),
  scanCase('heads of 1', { length: 33, heads: 19, headdim: 1, dState: 16 }),
  scanCase('heads of 4, odd state', { length: 21, heads: 3, headdim: 4, dState: 13 }),
  scanCase('heads of 128, one', { length: 20, heads: 1, headdim: 128, dState: 16 }),
  scanCase('one head of 3, state of 1', { length: 5, heads: 1, headdim: 3, dState: 1 }),
  scanCase('one step', { batch: 2, length: 1, heads: 8, headdim: 24, dState: 128 }),
  scanCase('state, one step', {
    batch: 2,
    length: 1,
    heads: 8,
    fullHeads: 16,
    headdim: 24,
    dState: 128,
    slots: [2, 0],
    lengths: [1, 1],
  }),
  scanCase('state, one step or none', {
    batch: 3,
    length: 1,
    heads: 5,
    headdim: 3,
    dState: 15,
    slots: [2, 0, 3],
    lengths: [1, 0, 1],
  }),
  scanCase('state, three steps', { length: 3, heads: 6, fullHeads: 9, headdim: 12, dState: 32, slots: [1] }),
  scanCase('state, submodel prefill', {
    length: 257,
    heads: 4,
    fullHeads: 8,
    headdim: 24,
    dState: 32,
    slots: [1],
    lengths: [257],
  }),
  scanCase('state, ragged', {
    batch: 4,
    length: 70,
    heads: 6,
    headdim: 12,
    dState: 16,
    slots: [4, 2, 0, 1],
    lengths: [0, 1, 70, 37],
  }),
  scanCase('state, ragged, odd', {
    batch: 3,
    length: 19,
    heads: 3,
    headdim: 7,
    dState: 9,
    slots: [0, 2, 1],
    lengths: [19, 6, 17],
  }),
  scanCase('d per channel', { batch: 1, length: 18, heads: 3, fullHeads: 4, headdim: 12, dState: 16, dHasHdim: true }),
  scanCase('d per channel, one step', { length: 1, heads: 3, headdim: 4, dState: 16, dHasHdim: true, slots: [0] }),
  scanCase('dt limits', { length: 40, heads: 4, headdim: 8, dState: 16, dtLimit: [0.02, 0.1], dt: { kind: 'normal', scale: 2 } }),
  scanCase('large dt', { length: 70, heads: 4, headdim: 12, dState: 16, dt: { kind: 'normal', scale: 12, shift: 10 } }),
  scanCase('large dt, one step', { length: 1, heads: 4, headdim: 12, dState: 16, dt: { kind: 'normal', scale: 30 }, slots: [0] }),
  scanCase('strong decay', {
    length: 130,
    heads: 6,
    headdim: 8,
    dState: 16,
    aLog: { kind: 'uniform', low: 0, high: 9 },
    dt: { kind: 'normal', shift: 3 },
  }),
  scanCase('vanishing decay', {
    length: 67,
    heads: 4,
    headdim: 12,
    dState: 16,
    aLog: { kind: 'uniform', low: 20, high: 60 },
    slots: [0],
  }),
  scanCase('no decay', { length: 130, heads: 4, headdim: 12, dState: 16, aLog: { kind: 'uniform', low: -30, high: -10 } }),
];
