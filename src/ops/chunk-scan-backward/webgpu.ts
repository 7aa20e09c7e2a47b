/** WebGPU kernels of the scan's gradient: states and their gradients by chunks, then what is a column's, a head's, everyone's. */

import { paddedColumns } from '../../graph/graph.ts';
import {
  type ScanGroup,
  chunkConstants,
  chunkStatesDispatch,
  passStatesDispatch,
  prepareDispatch,
  scanFloats,
} from '../chunk-scan/webgpu-dispatches.ts';
import { OUTPUT_COLUMNS } from '../chunk-scan/webgpu-outputs.ts';
import {
  ARENA_SOURCE,
  CHUNK,
  COLUMNS_SOURCE,
  STATE_COLUMNS_SOURCE,
  STEP_SOURCE,
  type ScanShape,
  dtLimits,
  groupOf,
  groupsOf,
  parameterBindings,
  scanShape,
} from '../chunk-scan/webgpu-parts.ts';
import {
  type WebGpuConstants,
  type WebGpuDispatch,
  type WebGpuKernel,
  type WebGpuNode,
  arena,
  reads,
  rowConstants,
} from '../webgpu-kernel.ts';
import { addPartials } from '../webgpu-sums.ts';
import { HEADS_SOURCE, HEAD_SUMS } from './webgpu-heads.ts';
import { COLUMN_PARTS, INPUTS_SOURCE } from './webgpu-inputs.ts';
import { SHARED_COLUMNS, SHARED_SOURCE } from './webgpu-shared.ts';

/** Workgroups over heads that keep a large GPU busy, and groups of heads at most: each has weights of its own. */
const ENOUGH_GROUPS = 512;
const MOST_HEAD_GROUPS = 16;

/** How the work is cut, and where everything lies in the scratch, in floats. */
interface Cut {
  readonly shape: ScanShape;
  /** Sequences of a group. */
  readonly group: number;
  /** Vectors of 4 heads, padding included; those of a group of heads, and the groups. */
  readonly headQuads: number;
  readonly groupQuads: number;
  readonly headGroups: number;
  readonly trained: boolean;
  readonly perChannel: boolean;
  readonly places: Readonly<
    Record<'coefficients' | 'products' | 'states' | 'adjoints' | 'parts' | 'weights' | 'headSums' | 'skips' | 'end', number>
  >;
}

const PARAMETERS = ['dDtBias', 'dALog', 'dD'] as const;

function cutOf(node: WebGpuNode): Cut {
  const shape = scanShape(node);
  const { batch, chunks, columns, heads } = shape;
  const headQuads = paddedColumns(heads) / 4;
  const wanted = Math.ceil(ENOUGH_GROUPS / (batch * chunks));
  const groupQuads = Math.ceil(headQuads / Math.min(headQuads, wanted, MOST_HEAD_GROUPS));
  const headGroups = Math.ceil(headQuads / groupQuads);
  const trained = PARAMETERS.some((name) => node.has(name));
  const perChannel = node.has('dD') && node.flag('dHasHdim');
  const floats = scanFloats(shape);
  const sizes = {
    coefficients: floats.coefficients,
    products: floats.products,
    states: floats.states,
    adjoints: floats.states,
    parts: COLUMN_PARTS * chunks * CHUNK * columns,
    weights: headGroups * floats.products,
  };
  const group = groupOf(
    batch,
    Object.values(sizes).reduce((sum, size) => sum + size, 0),
  );
  let end = node.scratch;
  const place = (size: number): number => {
    const at = end;
    end += size;
    return at;
  };
  const coefficients = place(group * sizes.coefficients);
  const products = place(group * sizes.products);
  const states = place(group * sizes.states);
  const adjoints = place(group * sizes.adjoints);
  const parts = place(group * sizes.parts);
  const weights = place(group * sizes.weights);
  // These are of all groups.
  const headSums = place(trained ? batch * chunks * HEAD_SUMS * 4 * headQuads : 0);
  const skips = place(perChannel ? batch * chunks * columns : 0);
  const places = { coefficients, products, states, adjoints, parts, weights, headSums, skips, end };
  return { shape, group, headQuads, groupQuads, headGroups, trained, perChannel, places };
}

function groupDispatches(node: WebGpuNode, cut: Cut, group: ScanGroup): WebGpuDispatch[] {
  const { shape, places } = cut;
  const { chunks, columns, stateColumns } = shape;
  const at = (name: keyof Cut['places']): number => places[name] / 4;
  const prepared = { coefficients: at('coefficients'), products: at('products') };
  const between = chunks - 1;
  const constants: WebGpuConstants = {
    ...chunkConstants(shape, group, prepared),
    ...rowConstants(node, 'x', 'b', 'c', 'dy'),
    states: at('states'),
    adjoints: at('adjoints'),
  };
  const parts = { parts: at('parts'), partsSize: (cut.group * chunks * CHUNK * columns) / 4 };
  const columnsSource = ARENA_SOURCE + COLUMNS_SOURCE + STATE_COLUMNS_SOURCE;
  return [
    prepareDispatch(node, shape, group, prepared, ['c', 'b']),
    ...(between > 0
      ? [
          chunkStatesDispatch(node, shape, group, prepared, at('states'), false, { first: 0, count: between }),
          chunkStatesDispatch(node, shape, group, prepared, at('adjoints'), true, { first: 1, count: between }),
          passStatesDispatch(node, shape, group, prepared, at('states'), false),
          passStatesDispatch(node, shape, group, prepared, at('adjoints'), true),
        ]
      : []),
    {
      kind: 'dispatch',
      source: columnsSource + INPUTS_SOURCE,
      entry: 'scan_inputs',
      workgroups: [Math.ceil(columns / OUTPUT_COLUMNS), chunks, group.count],
      bindings: [arena('vec4<f32>'), reads('d', node.weight('d').values)],
      constants: {
        ...constants,
        ...rowConstants(node, 'dx'),
        ...parts,
        skipChannels: Number(node.flag('dHasHdim')),
        perChannel: Number(cut.perChannel),
        skips: at('skips'),
      },
    },
    {
      kind: 'dispatch',
      source: ARENA_SOURCE + STEP_SOURCE + HEADS_SOURCE,
      entry: 'scan_heads',
      workgroups: [cut.headGroups, chunks, group.count],
      bindings: [arena('vec4<f32>'), ...parameterBindings(node)],
      constants: {
        ...constants,
        ...rowConstants(node, 'dt', 'ddt'),
        ...dtLimits(node),
        ...parts,
        trained: Number(cut.trained),
        weights: at('weights'),
        headSums: at('headSums'),
        ddtQuads: cut.headQuads,
        groupQuads: cut.groupQuads,
        groups: cut.headGroups,
      },
    },
    {
      kind: 'dispatch',
      source: columnsSource + SHARED_SOURCE,
      entry: 'scan_shared',
      workgroups: [2 * Math.ceil(stateColumns / SHARED_COLUMNS), chunks, group.count],
      bindings: [arena('vec4<f32>')],
      constants: {
        ...constants,
        ...rowConstants(node, 'db', 'dc'),
        weights: at('weights'),
        groups: cut.headGroups,
        tiles: Math.ceil(stateColumns / SHARED_COLUMNS),
      },
    },
  ];
}

/** The sums of all chunks, added to the parameters' gradients. */
function parameterDispatches(node: WebGpuNode, { shape, headQuads, perChannel, places }: Cut): WebGpuDispatch[] {
  const rows = shape.batch * shape.chunks;
  const stride = HEAD_SUMS * 4 * headQuads;
  return PARAMETERS.flatMap((name, i) => {
    if (!node.has(name)) return [];
    const goal = node.weight(name).values;
    if (name === 'dD' && perChannel) {
      return [addPartials(goal, { offset: places.skips, stride: shape.columns, rows, width: shape.width })];
    }
    return [addPartials(goal, { offset: places.headSums + i * 4 * headQuads, stride, rows, width: shape.heads })];
  });
}

export const chunkScanBackwardWebGpu: WebGpuKernel = {
  scratchFloats: (node) => cutOf(node).places.end - node.scratch,
  dispatches(node) {
    const cut = cutOf(node);
    const groups = groupsOf(cut.shape.batch, cut.group);
    return [...groups.flatMap((group) => groupDispatches(node, cut, group)), ...parameterDispatches(node, cut)];
  },
};
