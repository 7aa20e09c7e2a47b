/** WebGPU kernels of the causal convolution: one for sequences, one for single steps. */

import { segmentColumns } from '../../graph/graph.ts';
import { type WebGpuKernel, arena, fold, rowConstants, states } from '../webgpu-kernel.ts';
import { SIGMOID_SOURCE } from '../webgpu-sums.ts';
import { convolution } from './webgpu-segments.ts';
import { sequenceSource, stepSource } from './webgpu-source.ts';

/** Invocations that keep a large GPU busy: an invocation takes more steps when there are as many all the same. */
const ENOUGH = 2 ** 16;

export const conv1dSiluWebGpu: WebGpuKernel = {
  dispatches(node) {
    const { source, bindings, constants } = convolution(node);
    const [channels, , taps] = node.weight('weight').shape as readonly [number, number, number];
    const batch = node.number('batch');
    const length = node.number('length');
    const vectors = segmentColumns(node.segments('segments')).total / 4;
    const carried = node.has('state');
    const places = {
      ...rowConstants(node, 'x', 'y'),
      ...constants,
      vectors,
      channels,
      state: carried ? node.state('state').offset : 0,
      slots: carried ? node.buffer('slots').offset : 0,
      ragged: Number(node.has('lengths')),
      lengths: node.has('lengths') ? node.buffer('lengths').offset : 0,
    };
    const common = SIGMOID_SOURCE + source;
    if (length === 1) {
      return [
        {
          kind: 'dispatch',
          source: common + stepSource(taps, carried),
          entry: 'conv1d_silu_step',
          workgroups: [Math.ceil(vectors / 16), batch],
          bindings: [arena(), ...(carried ? [states()] : []), ...bindings],
          constants: places,
        },
      ];
    }
    // No fewer than the window has, which only the first piece reads.
    const steps = vectors * batch * Math.ceil(length / 8) >= ENOUGH ? 8 : 4;
    const pieces = Math.ceil(length / steps);
    return [
      {
        kind: 'dispatch',
        source: common + sequenceSource(taps, steps, carried),
        entry: 'conv1d_silu',
        workgroups: fold(Math.ceil((vectors * batch * pieces) / 128)),
        bindings: [arena('vec4<f32>'), ...(carried ? [states()] : []), ...bindings],
        constants: { ...places, batch, length, pieces },
      },
    ];
  },
};
