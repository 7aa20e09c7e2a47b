/** Cases of the scan's gradient: head sizes and counts, lengths around a chunk, limits of dt, strong decays. */

import type { Fill, OpCase, OperandCase } from '../cases.ts';

interface Setting {
  readonly batch?: number;
  readonly length: number;
  readonly heads: number;
  readonly headdim: number;
  readonly dState: number;
  /** Heads of the parameters; `heads` unless given. */
  readonly fullHeads?: number;
  readonly dHasHdim?: boolean;
  readonly dtLimit?: readonly [number, number];
  readonly dt?: Fill;
  readonly aLog?: Fill;
  /** Whether the parameters are trained; they are unless given. */
  readonly trained?: boolean;
  readonly tolerance?: number;
}

function scanCase(name: string, setting: Setting): OpCase {
  const { batch = 1, length, heads, headdim, dState, dHasHdim = false, dtLimit, trained = true } = setting;
  const fullHeads = setting.fullHeads ?? heads;
  const rows = (columns: number, fill?: Fill): OperandCase => ({ shape: [batch, length, columns], ...(fill ? { fill } : {}) });
  const skips = { shape: [dHasHdim ? fullHeads * headdim : fullHeads] };
  const operands: Record<string, OperandCase> = {
    x: rows(heads * headdim),
    b: rows(dState),
    c: rows(dState),
    dt: rows(heads, setting.dt),
    dtBias: { shape: [fullHeads], fill: { kind: 'uniform', low: -6, high: -2 } },
    aLog: { shape: [fullHeads], fill: setting.aLog ?? { kind: 'uniform', low: 0, high: Math.log(16) } },
    d: skips,
    dy: rows(heads * headdim),
    ...(trained ? { dDtBias: { shape: [fullHeads] }, dALog: { shape: [fullHeads] }, dD: skips } : {}),
  };
  const limits = dtLimit ? { dtMin: dtLimit[0], dtMax: dtLimit[1] } : {};
  return { name, operands, attributes: { batch, length, headdim, dHasHdim, ...limits }, tolerance: setting.tolerance ?? 6e-6 };
}

export const chunkScanBackwardCases: readonly OpCase[] = [
  scanCase('heads of 24', { length: 67, heads: 8, headdim: 24, dState: 128 }),
  scanCase('heads of 64, batch', { batch: 3, length: 40, heads: 4, headdim: 64, dState: 32 }),
  scanCase('heads of 12, past a chunk', { length: 257, heads: 5, headdim: 12, dState: 16 }),
  scanCase('heads of 3, batch', { batch: 3, length: 67, heads: 31, headdim: 3, dState: 32 }),
  scanCase('heads of 1', { length: 33, heads: 71, headdim: 1, dState: 16 }),
  scanCase('heads of 4, odd state', { batch: 2, length: 45, heads: 19, headdim: 4, dState: 13 }),
  scanCase('heads of 128, in parts', { length: 40, heads: 2, headdim: 128, dState: 16 }),
  scanCase('heads of 67, in odd parts', { batch: 2, length: 35, heads: 3, headdim: 67, dState: 5 }),
  scanCase('one head of 3, state of 1', { length: 3, heads: 1, headdim: 3, dState: 1 }),
  scanCase('one step', { batch: 3, length: 1, heads: 8, headdim: 24, dState: 128 }),
  scanCase('two steps, one head', { length: 2, heads: 1, headdim: 64, dState: 16 }),
  scanCase('submodel', { batch: 2, length: 33, heads: 5, fullHeads: 64, headdim: 12, dState: 32 }),
  scanCase('frozen', { batch: 2, length: 33, heads: 6, headdim: 12, dState: 16, trained: false }),
  scanCase('d per channel', { batch: 2, length: 18, heads: 3, fullHeads: 4, headdim: 12, dState: 16, dHasHdim: true }),
  scanCase('d per channel, in parts', { length: 18, heads: 2, headdim: 100, dState: 8, dHasHdim: true }),
  scanCase('dt limits', {
    batch: 2,
    length: 40,
    heads: 4,
    headdim: 8,
    dState: 16,
    dtLimit: [0.02, 0.1],
    dt: { kind: 'normal', scale: 2 },
  }),
  scanCase('large dt', {
    length: 70,
    heads: 4,
    headdim: 12,
    dState: 16,
    dt: { kind: 'normal', scale: 12, shift: 10 },
    tolerance: 5e-5,
  }),
  scanCase('strong decay', {
    batch: 2,
    length: 130,
    heads: 6,
    headdim: 8,
    dState: 16,
    aLog: { kind: 'uniform', low: 0, high: 9 },
    dt: { kind: 'normal', shift: 3 },
    tolerance: 1e-5,
  }),
  scanCase('vanishing decay', { length: 67, heads: 4, headdim: 12, dState: 16, aLog: { kind: 'uniform', low: 20, high: 60 } }),
  scanCase('no decay', {
    length: 130,
    heads: 4,
    headdim: 12,
    dState: 16,
    aLog: { kind: 'uniform', low: -30, high: -10 },
    tolerance: 1e-5,
  }),
];
