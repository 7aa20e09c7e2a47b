/** WebGPU kernels of the convolution's gradient: dx and sums of each workgroup, then these added to the parameters'. */

import { segmentColumns } from '../../graph/graph.ts';
import { convolution, gradientPlaces } from '../conv1d-silu/webgpu-segments.ts';
import { type WebGpuDispatch, type WebGpuKernel, type WebGpuNode, arena, rowConstants } from '../webgpu-kernel.ts';
import { SIGMOID_SOURCE } from '../webgpu-sums.ts';
import { GROUP_PIECES, GROUP_VECTORS, SUMS_SOURCE, SUM_VECTORS, backwardSource } from './webgpu-source.ts';

/** Invocations that keep a large GPU busy, and the steps of a piece: the fewer of them, the more are made twice. */
const ENOUGH = 2 ** 17;
const MOST_STEPS = 64;
const LEAST_STEPS = 16;

interface Pieces {
  readonly vectors: number;
  readonly taps: number;
  readonly steps: number;
  /** Pieces of a sequence, and workgroups over those of all sequences. */
  readonly pieces: number;
  readonly groups: number;
}

function piecesOf(node: WebGpuNode): Pieces {
  const vectors = segmentColumns(node.segments('segments')).total / 4;
  const batch = node.number('batch');
  const length = node.number('length');
  let steps = MOST_STEPS;
  while (steps > LEAST_STEPS && vectors * batch * Math.ceil(length / steps) < ENOUGH) steps /= 2;
  const pieces = Math.ceil(length / steps);
  const groups = Math.ceil((batch * pieces) / GROUP_PIECES);
  return { vectors, taps: node.weight('weight').shape[2]!, steps, pieces, groups };
}

const TARGETS = ['dWeight', 'dBias'] as const;

export const conv1dSiluBackwardWebGpu: WebGpuKernel = {
  scratchFloats(node) {
    const { vectors, taps, groups } = piecesOf(node);
    return TARGETS.some((name) => node.has(name)) ? 4 * groups * (taps + 1) * vectors : 0;
  },
  dispatches(node) {
    const { vectors, taps, steps, pieces, groups } = piecesOf(node);
    const { source, bindings, constants } = convolution(node);
    const targets = TARGETS.filter((name) => node.has(name));
    const partials = node.scratch / 4;
    const gradient: WebGpuDispatch = {
      kind: 'dispatch',
      source: SIGMOID_SOURCE + source + backwardSource(taps, targets.length > 0),
      entry: 'conv1d_silu_backward',
      workgroups: [Math.ceil(vectors / GROUP_VECTORS), groups],
      bindings: [arena('vec4<f32>'), ...bindings],
      constants: {
        ...rowConstants(node, 'x', 'dy', 'dx'),
        ...constants,
        vectors,
        batch: node.number('batch'),
        length: node.number('length'),
        steps,
        pieces,
        partials,
      },
    };
    const sums = targets.map((name): WebGpuDispatch => {
      const goal = gradientPlaces(node, name);
      const counts = name === 'dWeight' ? { first: 0, goalStride: taps } : { first: taps, goalStride: 1 };
      return {
        kind: 'dispatch',
        source: goal.source + SUMS_SOURCE,
        entry: 'conv1d_silu_backward_sums',
        workgroups: [Math.ceil(vectors / SUM_VECTORS), counts.goalStride],
        bindings: [arena('vec4<f32>'), ...goal.bindings],
        constants: { ...goal.constants, ...counts, vectors, partials, rows: groups, sums: taps + 1 },
      };
    });
    return [gradient, ...sums];
  },
};
