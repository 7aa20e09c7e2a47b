/** Removes nodes whose results nobody reads, such as the parts of a recomputed region that no gradient needs. */

import type { Graph, GraphNode } from './graph.ts';

/** Whether a node does more than compute its outputs: it updates a state or adds to a gradient buffer. */
function hasEffects({ inputs, outputs }: GraphNode): boolean {
  if (Object.keys(outputs).length === 0) return true;
  return Object.values(inputs).some(
    ({ value }) => value.kind === 'state' || (value.kind === 'parameter' && value.parameter.precise === true),
  );
}

/** Drops dead nodes in place, the ones that only fed dead nodes included. */
export function pruneDeadNodes(graph: Graph): void {
  const live = new Set([...graph.outputs.values()].map(({ value }) => value.id));
  const kept: GraphNode[] = [];
  for (const node of graph.nodes.toReversed()) {
    const used = hasEffects(node) || Object.values(node.outputs).some(({ value }) => live.has(value.id));
    if (!used) continue;
    kept.push(node);
    for (const { value } of Object.values(node.inputs)) live.add(value.id);
  }
  graph.nodes.splice(0, graph.nodes.length, ...kept.toReversed());
}
