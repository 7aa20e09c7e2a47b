/** Nodes in a row that a backend may run together in fewer launches than there are nodes: which they are, and how they are planned. */

import { type Graph, type GraphNode, type OpDefinition, type Sym, rowsOf } from '../graph/graph.ts';

/** A layer in decoding: what its nodes may be, in order. */
const LAYER_OPS = [['add_norm', 'norm'], ['linear'], ['conv1d_silu'], ['chunk_scan'], ['gated_norm', 'gated_silu'], ['linear']];

export interface FusedLayer {
  /** The six nodes: norm, in_proj, convolution, scan, gate, out_proj. */
  readonly layer: readonly GraphNode[];
  /** Values that only they pass to each other, by id: y of the norm, of the convolution and of the gate. */
  readonly inside: ReadonlySet<number>;
}

/**
 * A layer's step in decoding, from node `first` on: six nodes of at most `mostRows` rows, each reading what the one before
 * it wrote, and nobody else does.
 */
export function decodeLayerAt(
  nodes: readonly GraphNode[],
  first: number,
  readers: ReadonlyMap<number, number>,
  mostRows: number,
): FusedLayer | undefined {
  const layer = nodes.slice(first, first + LAYER_OPS.length);
  if (layer.length < LAYER_OPS.length || !layer.every(({ op }, i) => LAYER_OPS[i]!.includes(op.name))) return undefined;
  const [norm, inProj, conv, scan, gate, outProj] = layer as [GraphNode, GraphNode, GraphNode, GraphNode, GraphNode, GraphNode];
  if (rowsOf(norm.inputs['x']!.shape) > mostRows) return undefined;
  const passed = [
    [norm.outputs['y']!, inProj.inputs['x']!],
    [conv.outputs['y']!, scan.inputs['x']!],
    [gate.outputs['y']!, outProj.inputs['x']!],
  ] as const;
  const wired =
    passed.every(([written, read]) => written.value === read.value) &&
    inProj.outputs['y']!.value === conv.inputs['x']!.value &&
    scan.outputs['y']!.value === gate.inputs['x']!.value;
  const inside = new Set(passed.map(([{ value }]) => value.id));
  // The scan reads three columns of the convolution's result; everything else is read once.
  const expected = new Map([[conv.outputs['y']!.value.id, 3]]);
  if (!wired || [...inside].some((id) => readers.get(id) !== (expected.get(id) ?? 1))) return undefined;
  return { layer, inside };
}

/** A norm and the only product of it, of at most `mostRows` rows, such as the head of a decoded token. */
export function normedProductAt(
  nodes: readonly GraphNode[],
  first: number,
  readers: ReadonlyMap<number, number>,
  mostRows: number,
): { readonly norm: GraphNode; readonly linear: GraphNode; readonly inside: ReadonlySet<number> } | undefined {
  const [norm, linear] = nodes.slice(first, first + 2);
  if (!norm || !linear || !LAYER_OPS[0]!.includes(norm.op.name) || linear.op.name !== 'linear') return undefined;
  const { value } = norm.outputs['y']!;
  const isOnlyReader = linear.inputs['x']!.value === value && readers.get(value.id) === 1;
  return isOnlyReader && rowsOf(norm.inputs['x']!.shape) <= mostRows ? { norm, linear, inside: new Set([value.id]) } : undefined;
}

/** A graph's nodes cut into steps: `stepAt` takes those from an index on, at least one. */
export function inSteps<Step extends { readonly nodes: readonly GraphNode[] }>(
  nodes: readonly GraphNode[],
  stepAt: (first: number) => Step,
): Step[] {
  const steps: Step[] = [];
  for (let first = 0; first < nodes.length; first += steps.at(-1)!.nodes.length) steps.push(stepAt(first));
  return steps;
}

/** How often each value is read, as a result of the graph too. */
export function countReaders(graph: Graph): Map<number, number> {
  const readers = new Map<number, number>();
  const count = ({ value }: Sym): void => void readers.set(value.id, (readers.get(value.id) ?? 0) + 1);
  for (const node of graph.nodes) for (const sym of Object.values(node.inputs)) count(sym);
  for (const sym of graph.outputs.values()) count(sym);
  return readers;
}

/** What nodes read and write together, without what only they pass to each other; nothing works in place. */
export function asOneNode(name: string, nodes: readonly GraphNode[], inside: ReadonlySet<number>): GraphNode {
  const written = new Set<number>(inside);
  const inputs: Record<string, Sym> = {};
  const outputs: Record<string, Sym> = {};
  for (const [i, node] of nodes.entries()) {
    for (const [operand, sym] of Object.entries(node.inputs)) if (!written.has(sym.value.id)) inputs[`${i}.${operand}`] = sym;
    for (const [operand, sym] of Object.entries(node.outputs)) {
      if (!inside.has(sym.value.id)) outputs[`${i}.${operand}`] = sym;
      written.add(sym.value.id);
    }
  }
  const op: OpDefinition = { name, flops: () => 0, inPlace: {}, gradient: undefined };
  const { scope, region } = nodes[0]!;
  return { op, scope, region, inputs, outputs, attributes: {} };
}
