/**
 * Where a training program sums gradients over the ranks: in buckets, each right behind the last node that adds to any of
 * its gradients, so that the sums go on beside the rest of the backward pass (Li et al. 2020, section 3.2.3).
 */

import { gradientSpec } from '../graph/differentiate.ts';
import type { Graph, GraphNode, ParameterSpec } from '../graph/graph.ts';
import { sumOverRanks } from '../ops/index.ts';
import { sizeOf } from '../tensor/tensor.ts';

/** Large enough for the links between GPUs, small enough to start early. */
const BUCKET_BYTES = 25e6;

/**
 * Adds the sums of all parameters' gradients to a graph that holds everything that adds to them. With `owners` each
 * gradient goes to the rank that owns the parameter.
 */
export function placeSums(
  graph: Graph,
  parameters: readonly ParameterSpec[],
  { owners, bucketBytes = BUCKET_BYTES }: { owners?: readonly number[] | undefined; bucketBytes?: number } = {},
): void {
  const backward = [...graph.nodes];
  const last = lastWriters(backward);
  const ordered = parameters
    .map((spec, i) => ({ spec, root: owners?.[i] ?? -1, last: last.get(gradientSpec(spec).name) ?? -1 }))
    .sort((a, b) => a.last - b.last);
  graph.nodes.length = 0;
  let copied = 0;
  let bucket = 0;
  for (let start = 0, end = 0; start < ordered.length; start = end) {
    let bytes = 0;
    for (end = start; end < ordered.length && (end === start || bytes < bucketBytes); end++) {
      bytes += 4 * sizeOf(ordered[end]!.spec.shape);
    }
    const place = ordered[end - 1]!.last + 1;
    graph.nodes.push(...backward.slice(copied, place));
    copied = place;
    for (const { spec, root } of ordered.slice(start, end)) {
      graph.in(spec.name, () => sumOverRanks({ x: graph.parameter(gradientSpec(spec)) }, { bucket, root }));
    }
    bucket++;
  }
  graph.nodes.push(...backward.slice(copied));
}

/** Index of the last node that touches each gradient buffer, by name. */
function lastWriters(nodes: readonly GraphNode[]): Map<string, number> {
  const last = new Map<string, number>();
  for (const [i, { inputs }] of nodes.entries()) {
    for (const { value } of Object.values(inputs)) if (value.kind === 'parameter') last.set(value.name, i);
  }
  return last;
}
