/** What the fused steps of a decoded layer are given, whatever the backend. */

/** The nodes of one layer: norm is `add_norm` or `norm`, gate is `gated_norm` or `gated_silu`. */
export interface DecodeLayer<Node> {
  readonly norm: Node;
  readonly inProj: Node;
  readonly conv: Node;
  readonly scan: Node;
  readonly gate: Node;
  readonly outProj: Node;
}

/** By name, of the six nodes in order. */
export function decodeLayer<Node>(nodes: readonly Node[]): DecodeLayer<Node> {
  const [norm, inProj, conv, scan, gate, outProj] = nodes as [Node, Node, Node, Node, Node, Node];
  return { norm, inProj, conv, scan, gate, outProj };
}
