/**
 * Float64 loops of the causal convolution with SiLU.
 *
 * The state operand holds all slots, (slots, K - 1, channels); `x` has no pad columns between its segments' columns
 * and the multiples of 16 they start at other than those that its width includes.
 */

import { type Segment, segmentColumns } from '../../graph/graph.ts';
import type { HostValue, Reference } from '../cases.ts';

export const conv1dSiluReference: Reference = (operands, attributes): Record<string, HostValue> => {
  const { x, weight, bias, state, slots, lengths } = operands as Record<string, HostValue> & { x: HostValue; weight: HostValue };
  const segments = attributes.segments as readonly Segment[];
  const batch = attributes.batch as number;
  const length = attributes.length as number;
  const [channels, , taps] = weight.shape as [number, number, number];
  const width = x.shape.at(-1)!;
  const { columns } = segmentColumns(segments);
  const y = new Float64Array(x.data.length);
  const window = state?.data.slice();
  for (let b = 0; b < batch; b++) {
    const slotAt = (slots ? slots.data[b]! : b) * (taps - 1) * channels;
    const real = lengths ? lengths.data[b]! : length;
    for (const [s, { start, count }] of segments.entries()) {
      for (let i = 0; i < count; i++) {
        const channel = start + i;
        const column = columns[s]! + i;
        // Step t of the window (negative) and of the call.
        const input = (t: number): number => {
          if (t >= 0) return x.data[(b * length + t) * width + column]!;
          return state ? state.data[slotAt + (taps - 1 + t) * channels + channel]! : 0;
        };
        for (let t = 0; t < length; t++) {
          let sum = bias ? bias.data[channel]! : 0;
          for (let k = 0; k < taps; k++) sum += weight.data[channel * taps + k]! * input(t - taps + 1 + k);
          y[(b * length + t) * width + column] = sum / (1 + Math.exp(-sum));
        }
        if (window) {
          for (let k = 0; k < taps - 1; k++) window[slotAt + k * channels + channel] = input(real - taps + 1 + k);
        }
      }
    }
  }
  return { y: { shape: x.shape, data: y }, ...(state && window ? { state: { shape: state.shape, data: window } } : {}) };
};
