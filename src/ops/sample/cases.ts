/** Cases of sampling: each step alone and together, ties, masked ids, and rows that are too flat for the short lists. */

import type { Fill, OpCase } from '../cases.ts';

interface Setting {
  readonly rows?: number;
  readonly vocabulary: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly usable?: number;
  readonly seed?: number;
  readonly draw?: number;
  readonly logits?: Fill;
}

function sampleCase(name: string, setting: Setting): OpCase {
  const { rows = 4, vocabulary, temperature = 1, topK = 0, topP = 1, minP = 0, seed = 5, draw = 3 } = setting;
  const settings = [temperature, topK, topP, minP, setting.usable ?? vocabulary];
  return {
    name,
    operands: {
      logits: { shape: [rows, vocabulary], fill: setting.logits ?? { kind: 'normal', scale: 3 } },
      settings: { shape: [5], fill: { kind: 'values', values: settings.map(Math.fround) } },
      random: { shape: [2], dtype: 'i32', fill: { kind: 'values', values: [seed, draw] } },
    },
    tolerance: 0,
  };
}

/** Few different values, so that there are ties everywhere. */
const TIES: Fill = { kind: 'values', values: [1, 3, 2, 3, 0.5, 3, 2, 2, -Infinity, 1, 3] };

export const sampleCases: readonly OpCase[] = [
  sampleCase('greedy', { vocabulary: 4999, temperature: 0 }),
  sampleCase('greedy, ties', { vocabulary: 1003, temperature: 0, logits: TIES }),
  sampleCase('greedy, masked ids', { vocabulary: 300, usable: 7, temperature: 0 }),
  sampleCase('no finite logit', { rows: 1, vocabulary: 9, logits: { kind: 'values', values: [-Infinity] } }),
  sampleCase('not a number', { rows: 1, vocabulary: 9, logits: { kind: 'values', values: [1, NaN, 2] } }),
  sampleCase('all tokens', { vocabulary: 5000 }),
  sampleCase('one token', { vocabulary: 1 }),
  sampleCase('temperature', { vocabulary: 777, temperature: 0.6, draw: 0 }),
  sampleCase('hot', { vocabulary: 777, temperature: 4, draw: 1 }),
  sampleCase('nearly greedy', { vocabulary: 777, temperature: 1e-30 }),
  sampleCase('masked ids', { vocabulary: 520, usable: 501, temperature: 2 }),
  sampleCase('top-k', { vocabulary: 5000, topK: 50, temperature: 0.8 }),
  sampleCase('top-k of 1', { vocabulary: 5000, topK: 1 }),
  sampleCase('top-k, ties', { vocabulary: 600, topK: 20, logits: TIES }),
  sampleCase('top-k above the threads', { vocabulary: 5000, topK: 3000, temperature: 3 }),
  sampleCase('top-k above the list', { rows: 1, vocabulary: 16400, topK: 14000, temperature: 9 }),
  sampleCase('top-k of all', { vocabulary: 40, topK: 40 }),
  sampleCase('top-p', { vocabulary: 5000, topP: 0.9 }),
  sampleCase('top-p, small', { vocabulary: 5000, topP: 0.01, temperature: 2 }),
  sampleCase('top-p, ties', { vocabulary: 600, topP: 0.3, logits: TIES }),
  sampleCase('top-p, flat', { rows: 1, vocabulary: 16400, topP: 0.95, logits: { kind: 'normal', scale: 0.01 } }),
  sampleCase('min-p', { vocabulary: 5000, minP: 0.02 }),
  sampleCase('top-k and top-p', { rows: 2, vocabulary: 50280, topK: 50, topP: 0.95, temperature: 0.8 }),
  sampleCase('all three', { vocabulary: 5000, topK: 100, topP: 0.97, minP: 0.01, temperature: 1.5, draw: 1000001 }),
];
