/** WebGPU kernels of the chunk scan: step by step in one dispatch for short calls, by chunks in four otherwise. */

import {
  type WebGpuCommand,
  type WebGpuDispatch,
  type WebGpuKernel,
  type WebGpuNode,
  arena,
  reads,
  rowConstants,
  states,
} from '../webgpu-kernel.ts';
import {
  type ScanGroup,
  type ScanPlaces,
  chunkConstants,
  chunkStatesDispatch,
  passStatesDispatch,
  prepareDispatch,
  scanFloats,
} from './webgpu-dispatches.ts';
import { OUTPUT_COLUMNS, OUTPUTS_SOURCE } from './webgpu-outputs.ts';
import {
  ARENA_SOURCE,
  COLUMNS_SOURCE,
  LENGTHS_SOURCE,
  STATE_COLUMNS_SOURCE,
  STEP_SOURCE,
  type ScanShape,
  dtLimits,
  groupOf,
  groupsOf,
  parameterBindings,
  scanShape,
  sequenceConstants,
} from './webgpu-parts.ts';
import { stepsSource } from './webgpu-steps.ts';

/** Calls up to this long go step by step. */
const LONGEST_SHORT = 16;

function stepsDispatch(node: WebGpuNode): WebGpuDispatch {
  const { batch, length, headdim, dState, width, columns } = scanShape(node);
  const carried = node.has('state');
  const { source, rows } = stepsSource(dState, carried);
  return {
    kind: 'dispatch',
    source: ARENA_SOURCE + LENGTHS_SOURCE + STEP_SOURCE + source,
    entry: 'scan_steps',
    workgroups: [Math.ceil(columns / rows), batch],
    bindings: [
      arena('vec4<f32>'),
      ...(carried ? [states(dState % 4 === 0 ? 'vec4<f32>' : 'f32')] : []),
      ...parameterBindings(node),
      reads('d', node.weight('d').values),
    ],
    constants: {
      ...rowConstants(node, 'x', 'b', 'c', 'dt', 'y'),
      ...sequenceConstants(node),
      ...dtLimits(node),
      skipChannels: Number(node.flag('dHasHdim')),
      length,
      headdim,
      width,
      columns,
    },
  };
}

function outputsDispatch(
  node: WebGpuNode,
  shape: ScanShape,
  group: ScanGroup,
  places: ScanPlaces,
  statesAt: number,
): WebGpuDispatch {
  const { columns, chunks } = shape;
  return {
    kind: 'dispatch',
    source: ARENA_SOURCE + LENGTHS_SOURCE + COLUMNS_SOURCE + STATE_COLUMNS_SOURCE + OUTPUTS_SOURCE,
    entry: 'scan_outputs',
    workgroups: [Math.ceil(columns / OUTPUT_COLUMNS), chunks, group.count],
    bindings: [arena('vec4<f32>'), reads('d', node.weight('d').values)],
    constants: {
      ...chunkConstants(shape, group, places),
      ...rowConstants(node, 'x', 'c', 'y'),
      ...sequenceConstants(node),
      states: statesAt,
      carried: Number(node.has('state')),
      skipChannels: Number(node.flag('dHasHdim')),
    },
  };
}

/** Floats of scratch that a sequence takes, and sequences of a group. */
function scratchOf(node: WebGpuNode): { sequence: ReturnType<typeof scanFloats>; group: number } {
  const shape = scanShape(node);
  const sequence = scanFloats(shape);
  return { sequence, group: groupOf(shape.batch, sequence.coefficients + sequence.products + sequence.states) };
}

export const chunkScanWebGpu: WebGpuKernel = {
  scratchFloats(node) {
    if (node.number('length') <= LONGEST_SHORT) return 0;
    const { sequence, group } = scratchOf(node);
    return group * (sequence.coefficients + sequence.products + sequence.states);
  },
  dispatches(node) {
    if (node.number('length') <= LONGEST_SHORT) return [stepsDispatch(node)];
    const shape = scanShape(node);
    const { sequence, group: size } = scratchOf(node);
    const coefficients = node.scratch / 4;
    const products = coefficients + (size * sequence.coefficients) / 4;
    const statesAt = products + (size * sequence.products) / 4;
    const places = { coefficients, products };
    // Without a state to keep nobody needs what the last chunk adds.
    const adding = node.has('state') ? shape.chunks : shape.chunks - 1;
    return groupsOf(shape.batch, size).flatMap((group): WebGpuCommand[] => [
      prepareDispatch(node, shape, group, places, ['b', 'c']),
      ...(adding > 0
        ? [
            chunkStatesDispatch(node, shape, group, places, statesAt, false, { first: 0, count: adding }),
            passStatesDispatch(node, shape, group, places, statesAt, false),
          ]
        : []),
      outputsDispatch(node, shape, group, places, statesAt),
    ]);
  },
};
