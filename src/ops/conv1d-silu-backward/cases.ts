/** Cases of the convolution's gradient: segments of a submodel, odd widths, 2 to 4 taps, short and long sequences. */

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
  /** Whether the parameters are trained; they are unless given. */
  readonly trained?: boolean;
}

function mixerCase(name: string, setting: Setting): OpCase {
  const { batch, length, inner, used, dState, taps = 4, bias = true, trained = true } = setting;
  const channels = inner + 2 * dState;
  const segments: Segment[] = [
    { start: 0, count: used },
    { start: inner, count: dState },
    { start: inner + dState, count: dState },
  ];
  const { total } = segmentColumns(segments);
  const small = { kind: 'uniform', low: -0.5, high: 0.5 } as const;
  const operands: Record<string, OperandCase> = {
    x: { shape: [batch, length, total] },
    weight: { shape: [channels, 1, taps], fill: small },
    ...(bias ? { bias: { shape: [channels], fill: small } } : {}),
    dy: { shape: [batch, length, total] },
    ...(trained ? { dWeight: { shape: [channels, 1, taps] } } : {}),
    ...(trained && bias ? { dBias: { shape: [channels] } } : {}),
  };
  return { name, operands, attributes: { segments, batch, length }, tolerance: 3e-6 };
}

export const conv1dSiluBackwardCases: readonly OpCase[] = [
  mixerCase('full width', { batch: 2, length: 33, inner: 96, used: 96, dState: 32 }),
  mixerCase('half width', { batch: 1, length: 270, inner: 192, used: 96, dState: 16 }),
  mixerCase('one head of 3', { batch: 1, length: 9, inner: 192, used: 3, dState: 32 }),
  mixerCase('odd state size', { batch: 2, length: 67, inner: 64, used: 37, dState: 15 }),
  mixerCase('two taps', { batch: 2, length: 6, inner: 32, used: 24, dState: 16, taps: 2 }),
  mixerCase('three taps, no bias', { batch: 1, length: 70, inner: 32, used: 32, dState: 16, taps: 3, bias: false }),
  mixerCase('shorter than the taps', { batch: 3, length: 2, inner: 32, used: 32, dState: 16 }),
  mixerCase('one step', { batch: 1, length: 1, inner: 64, used: 64, dState: 16 }),
  mixerCase('frozen', { batch: 1, length: 65, inner: 64, used: 60, dState: 16, trained: false }),
];
