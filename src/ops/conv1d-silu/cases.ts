/** Cases of the causal convolution: segments of a submodel, odd widths, 2 to 4 taps, ragged lengths, windows. */

import { type Segment, segmentColumns } from '../../graph/graph.ts';
import type { OpCase, OperandCase } from '../cases.ts';

interface Setting {
  readonly batch: number;
  readonly length: number;
  /** Channels of x at full width and used, and of B and C. */
  readonly inner: number;
  readonly used: number;
  readonly dState: number;
  readonly taps?: number;
  readonly bias?: boolean;
  readonly slots?: readonly number[];
  readonly lengths?: readonly number[];
}

function mixerCase(name: string, setting: Setting): OpCase {
  const { batch, length, inner, used, dState, taps = 4, bias = true, slots, lengths } = setting;
  const channels = inner + 2 * dState;
  const segments: Segment[] = [
    { start: 0, count: used },
    { start: inner, count: dState },
    { start: inner + dState, count: dState },
  ];
  const { total } = segmentColumns(segments);
  const operands: Record<string, OperandCase> = {
    x: { shape: [batch, length, total] },
    weight: { shape: [channels, 1, taps], fill: { kind: 'uniform', low: -0.5, high: 0.5 } },
  };
  if (bias) operands.bias = { shape: [channels], fill: { kind: 'uniform', low: -0.5, high: 0.5 } };
  if (slots) {
    operands.state = { shape: [Math.max(...slots) + 2, taps - 1, channels] };
    operands.slots = { shape: [batch], dtype: 'i32', fill: { kind: 'values', values: slots } };
  }
  if (lengths) operands.lengths = { shape: [batch], dtype: 'i32', fill: { kind: 'values', values: lengths } };
  return { name, operands, attributes: { segments, batch, length }, tolerance: 2e-6 };
}

export const conv1dSiluCases: readonly OpCase[] = [
  mixerCase('full width', { batch: 2, length: 33, inner: 96, used: 96, dState: 32 }),
  mixerCase('half width', { batch: 1, length: 70, inner: 192, used: 96, dState: 16 }),
  mixerCase('one head of 3', { batch: 1, length: 9, inner: 192, used: 3, dState: 32 }),
  mixerCase('odd state size', { batch: 2, length: 5, inner: 64, used: 37, dState: 15 }),
  mixerCase('two taps', { batch: 2, length: 6, inner: 32, used: 24, dState: 16, taps: 2 }),
  mixerCase('three taps, no bias', { batch: 1, length: 17, inner: 32, used: 32, dState: 16, taps: 3, bias: false }),
  mixerCase('shorter than the taps', { batch: 3, length: 2, inner: 32, used: 32, dState: 16 }),
  mixerCase('one step', { batch: 1, length: 1, inner: 64, used: 64, dState: 16 }),
  mixerCase('window, one step', { batch: 2, length: 1, inner: 64, used: 36, dState: 16, slots: [2, 0], lengths: [1, 1] }),
  mixerCase('window, long', { batch: 1, length: 130, inner: 128, used: 128, dState: 32, slots: [1], lengths: [130] }),
  mixerCase('window, ragged', {
    batch: 4,
    length: 5,
    inner: 64,
    used: 60,
    dState: 18,
    slots: [3, 1, 0, 4],
    lengths: [0, 1, 5, 2],
  }),
  mixerCase('window, three taps', {
    batch: 2,
    length: 4,
    inner: 32,
    used: 21,
    dState: 16,
    taps: 3,
    slots: [0, 1],
    lengths: [1, 4],
  }),
];
