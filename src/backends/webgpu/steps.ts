/** A graph cut into steps: mostly one node each; one decoded token's layer, six nodes, is three dispatches, a norm with its product one. */

import type { Graph, GraphNode } from '../../graph/graph.ts';
import { decodeLayerDispatches, decodeLayerFuses, normProduct, normProductFuses } from '../../ops/decode/webgpu-layer.ts';
import { decodeLayer } from '../../ops/decode/layer.ts';
import { FEW_ROWS } from '../../ops/linear/webgpu.ts';
import type { WebGpuCommand, WebGpuKernel, WebGpuNode } from '../../ops/webgpu-kernel.ts';
import { asOneNode, countReaders, decodeLayerAt, inSteps, normedProductAt } from '../fused-nodes.ts';
import { findKernel } from '../kernel-table.ts';
import { webGpuKernels } from './table.ts';

/** What a profile tells apart: the op, or what nodes are together. */
export interface StepPart {
  readonly name: string;
  readonly nodes: readonly GraphNode[];
}

export interface Step {
  readonly name: string;
  /** One for all of its commands, or one for each. */
  readonly parts: readonly StepPart[];
  readonly nodes: readonly GraphNode[];
  /** How it is planned: what it reads and writes, as one node. */
  readonly planned: GraphNode;
  scratchFloats(nodes: readonly WebGpuNode[]): number;
  commands(nodes: readonly WebGpuNode[]): readonly WebGpuCommand[];
}

/** @throws DEVICE for an op that WebGPU lacks */
const kernelOf = (node: GraphNode): WebGpuKernel => findKernel(webGpuKernels, node, 'WebGPU');

/** The steps in order; `resolve` shows a node's shapes before anything is placed. @throws DEVICE */
export function stepsOf(graph: Graph, resolve: (node: GraphNode) => WebGpuNode): Step[] {
  const { nodes } = graph;
  const readers = countReaders(graph);
  return inSteps(
    nodes,
    (first) =>
      decodeStep(nodes, first, readers, resolve) ?? normedProductStep(nodes, first, readers, resolve) ?? nodeStep(nodes[first]!),
  );
}

function nodeStep(node: GraphNode): Step {
  const kernel = kernelOf(node);
  return {
    name: node.op.name,
    parts: [{ name: node.op.name, nodes: [node] }],
    nodes: [node],
    planned: node,
    scratchFloats: ([resolved]) => kernel.scratchFloats?.(resolved!) ?? 0,
    commands: ([resolved]) => kernel.dispatches(resolved!),
  };
}

function decodeStep(
  nodes: readonly GraphNode[],
  first: number,
  readers: ReadonlyMap<number, number>,
  resolve: (node: GraphNode) => WebGpuNode,
): Step | undefined {
  const found = decodeLayerAt(nodes, first, readers, FEW_ROWS);
  if (!found || !decodeLayerFuses(decodeLayer(found.layer.map(resolve)))) return undefined;
  const { layer } = found;
  return {
    name: 'decode_layer',
    parts: [
      { name: 'norm_in_proj', nodes: layer.slice(0, 2) },
      { name: 'decode_mix', nodes: layer.slice(2, 4) },
      { name: 'gate_out_proj', nodes: layer.slice(4) },
    ],
    nodes: layer,
    planned: asOneNode('decode_layer', layer, found.inside),
    scratchFloats: () => 0,
    commands: (resolved) => decodeLayerDispatches(decodeLayer(resolved)),
  };
}

function normedProductStep(
  nodes: readonly GraphNode[],
  first: number,
  readers: ReadonlyMap<number, number>,
  resolve: (node: GraphNode) => WebGpuNode,
): Step | undefined {
  const found = normedProductAt(nodes, first, readers, FEW_ROWS);
  if (!found || !normProductFuses(resolve(found.norm), resolve(found.linear))) return undefined;
  const together = [found.norm, found.linear];
  return {
    name: 'normed_product',
    parts: [{ name: 'normed_product', nodes: together }],
    nodes: together,
    planned: asOneNode('normed_product', together, found.inside),
    scratchFloats: () => 0,
    commands: ([norm, linear]) => [normProduct(norm!, linear!)],
  };
}
