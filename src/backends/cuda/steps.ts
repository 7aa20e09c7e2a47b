/**
 * A graph cut into steps: nodes that are launched together. Most steps are one node; consecutive parameters are updated
 * by one launch, and one decoded token's layer, six nodes, by three.
 */

import type { Graph, GraphNode } from '../../graph/graph.ts';
import type { CudaKernel, CudaLaunch, CudaNode } from '../../ops/cuda-kernel.ts';
import { decodeLayerFuses, decodeLayerLaunches, normLinearLaunch } from '../../ops/decode/cuda-layer.ts';
import { decodeLayer } from '../../ops/decode/layer.ts';
import { FEW_ROWS } from '../../ops/linear/cuda-few-rows.ts';
import { asOneNode, countReaders, decodeLayerAt, inSteps, normedProductAt } from '../fused-nodes.ts';
import { findKernel } from '../kernel-table.ts';
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
export const kernelOf = (node: GraphNode): CudaKernel => findKernel(cudaKernels, node, 'CUDA');

/** The steps in order; `resolve` shows a node's shapes before anything is placed. */
export function stepsOf(graph: Graph, resolve: (node: GraphNode) => CudaNode): Step[] {
  const { nodes } = graph;
  const readers = countReaders(graph);
  return inSteps(
    nodes,
    (first) =>
      decodeStep(nodes, first, readers, resolve) ??
      normedProductStep(nodes, first, readers) ??
      groupStep(nodes, first) ??
      nodeStep(nodes, first),
  );
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

function decodeStep(
  nodes: readonly GraphNode[],
  first: number,
  readers: ReadonlyMap<number, number>,
  resolve: (node: GraphNode) => CudaNode,
): Step | undefined {
  const found = decodeLayerAt(nodes, first, readers, FEW_ROWS);
  if (!found) return undefined;
  const { layer, inside } = found;
  if (!decodeLayerFuses(decodeLayer(layer.map(resolve)))) return undefined;
  return {
    name: 'decode_layer',
    first,
    nodes: layer,
    planned: asOneNode('decode_layer', layer, inside),
    scratchBytes: () => 0,
    launches: (resolved) => decodeLayerLaunches(decodeLayer(resolved)),
  };
}

/** A norm and the product of a few rows with it, such as the head of a decoded token: one launch. */
function normedProductStep(nodes: readonly GraphNode[], first: number, readers: ReadonlyMap<number, number>): Step | undefined {
  const found = normedProductAt(nodes, first, readers, FEW_ROWS);
  if (!found) return undefined;
  const { norm, linear, inside } = found;
  return {
    name: 'normed_product',
    first,
    nodes: [norm, linear],
    planned: asOneNode('normed_product', [norm, linear], inside),
    scratchBytes: () => 0,
    launches: ([n, l]) => [normLinearLaunch(n!, l!)],
  };
}
