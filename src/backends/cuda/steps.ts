/**
 * A graph cut into steps: nodes that are launched together. Most steps are one node; consecutive parameters are updated
 * by one launch, and one decoded token's layer, six nodes, by three.
 */

import { MatMambaError } from '../../errors.ts';
import { type Graph, type GraphNode, type OpDefinition, type Sym, rowsOf } from '../../graph/graph.ts';
import type { CudaKernel, CudaLaunch, CudaNode } from '../../ops/cuda-kernel.ts';
import { type DecodeLayer, decodeLayerFuses, decodeLayerLaunches, normLinearLaunch } from '../../ops/decode/cuda-layer.ts';
import { FEW_ROWS } from '../../ops/linear/cuda-few-rows.ts';
import { cudaKernels } from './table.ts';

export interface Step {
  /** For profiles: the op's, or what its nodes are together. */
  readonly name: string;
  /** Index of its first node. */
  readonly first: number;
  readonly nodes: readonly GraphNode[];
  /** How it is planned: what it reads and writes, as one node. */
  readonly planned: GraphNode;
  scratchBytes(nodes: readonly CudaNode[]): number;
  launches(nodes: readonly CudaNode[]): readonly CudaLaunch[];
}

/** @throws DEVICE for an op that CUDA lacks */
export function kernelOf(node: GraphNode): CudaKernel {
  const kernel = cudaKernels[node.op.name as keyof typeof cudaKernels];
  if ('unsupported' in kernel) throw new MatMambaError('DEVICE', `${node.op.name} does not run on CUDA: ${kernel.unsupported}`);
  return kernel;
}

/** The steps in order; `resolve` shows a node's shapes before anything is placed. */
export function stepsOf(graph: Graph, resolve: (node: GraphNode) => CudaNode): Step[] {
  const { nodes } = graph;
  const readers = countReaders(graph);
  const steps: Step[] = [];
  for (let first = 0; first < nodes.length;) {
    const step =
      decodeStep(nodes, first, readers, resolve) ??
      normedProductStep(nodes, first, readers) ??
      groupStep(nodes, first) ??
      nodeStep(nodes, first);
    steps.push(step);
    first += step.nodes.length;
  }
  return steps;
}

function nodeStep(nodes: readonly GraphNode[], first: number): Step {
  const node = nodes[first]!;
  const kernel = kernelOf(node);
  return {
    name: node.op.name,
    first,
    nodes: [node],
    planned: node,
    scratchBytes: ([resolved]) => kernel.scratchBytes?.(resolved!) ?? 0,
    launches: ([resolved]) => kernel.launches(resolved!),
  };
}

/** Consecutive nodes of an op that takes many together. */
function groupStep(nodes: readonly GraphNode[], first: number): Step | undefined {
  const kernel = kernelOf(nodes[first]!);
  if (!kernel.group) return undefined;
  let end = first + 1;
  while (end < nodes.length && kernelOf(nodes[end]!) === kernel) end++;
  if (end === first + 1) return undefined;
  const together = nodes.slice(first, end);
  return {
    name: together[0]!.op.name,
    first,
    nodes: together,
    planned: asOneNode('group', together, new Set()),
    scratchBytes: (resolved) => kernel.groupScratchBytes?.(resolved) ?? 0,
    launches: (resolved) => kernel.group!(resolved),
  };
}

const LAYER_OPS = [['add_norm', 'norm'], ['linear'], ['conv1d_silu'], ['chunk_scan'], ['gated_norm', 'gated_silu'], ['linear']];

/** A layer's step in decoding: six nodes in a row, each reading what the one before it wrote, and nobody else does. */
function decodeStep(
  nodes: readonly GraphNode[],
  first: number,
  readers: ReadonlyMap<number, number>,
  resolve: (node: GraphNode) => CudaNode,
): Step | undefined {
  const layer = nodes.slice(first, first + LAYER_OPS.length);
  if (layer.length < LAYER_OPS.length || !layer.every(({ op }, i) => LAYER_OPS[i]!.includes(op.name))) return undefined;
  const [norm, inProj, conv, scan, gate, outProj] = layer as [GraphNode, GraphNode, GraphNode, GraphNode, GraphNode, GraphNode];
  if (rowsOf(norm.inputs['x']!.shape) > FEW_ROWS) return undefined;
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
  const asLayer = ([n, i, c, s, g, o]: readonly CudaNode[]): DecodeLayer => ({
    norm: n!,
    inProj: i!,
    conv: c!,
    scan: s!,
    gate: g!,
    outProj: o!,
  });
  if (!decodeLayerFuses(asLayer(layer.map(resolve)))) return undefined;
  return {
    name: 'decode_layer',
    first,
    nodes: layer,
    planned: asOneNode('decode_layer', layer, inside),
    scratchBytes: () => 0,
    launches: (resolved) => decodeLayerLaunches(asLayer(resolved)),
  };
}

/** A norm and the product of a few rows with it, such as the head of a decoded token: one launch. */
function normedProductStep(nodes: readonly GraphNode[], first: number, readers: ReadonlyMap<number, number>): Step | undefined {
  const [norm, linear] = nodes.slice(first, first + 2);
  if (!norm || !linear || !LAYER_OPS[0]!.includes(norm.op.name) || linear.op.name !== 'linear') return undefined;
  const { value } = norm.outputs['y']!;
  if (linear.inputs['x']!.value !== value || readers.get(value.id) !== 1 || rowsOf(norm.inputs['x']!.shape) > FEW_ROWS)
    return undefined;
  return {
    name: 'normed_product',
    first,
    nodes: [norm, linear],
    planned: asOneNode('normed_product', [norm, linear], new Set([value.id])),
    scratchBytes: () => 0,
    launches: ([n, l]) => [normLinearLaunch(n!, l!)],
  };
}

/** How often each value is read, as a result of the graph too. */
function countReaders(graph: Graph): Map<number, number> {
  const readers = new Map<number, number>();
  const count = ({ value }: Sym): void => void readers.set(value.id, (readers.get(value.id) ?? 0) + 1);
  for (const node of graph.nodes) for (const sym of Object.values(node.inputs)) count(sym);
  for (const sym of graph.outputs.values()) count(sym);
  return readers;
}

/** What nodes read and write together, without what only they pass to each other; nothing works in place. */
function asOneNode(name: string, nodes: readonly GraphNode[], inside: ReadonlySet<number>): GraphNode {
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
