/** A node's operands as kernels see them: element offsets into the arena, weights and pieces of the states. */

import type { GraphNode, Value } from '../../graph/graph.ts';
import type { WebGpuBuffer, WebGpuFacts, WebGpuNode, WebGpuState } from '../../ops/webgpu-kernel.ts';
import { sizeOf } from '../../tensor/tensor.ts';
import { NodeOperands } from '../node-operands.ts';
import type { WebGpuStoredWeight } from './weights.ts';

/** What nodes are resolved against. */
export interface Places {
  readonly facts: WebGpuFacts;
  readonly weights: ReadonlyMap<string, WebGpuStoredWeight>;
  /** Where a value lies in the arena, bytes. */
  offsetOf(value: Value): number;
}

export class ResolvedNode extends NodeOperands<WebGpuStoredWeight> implements WebGpuNode {
  /** In floats, from bytes. */
  readonly scratch: number;
  readonly facts: WebGpuFacts;
  readonly #places: Places;

  constructor(places: Places, node: GraphNode, scratchBytes: number) {
    super(node, places.weights);
    this.#places = places;
    this.scratch = scratchBytes / 4;
    this.facts = places.facts;
  }

  buffer(name: string): WebGpuBuffer {
    const { value, column } = this.operand(name);
    return { offset: this.#places.offsetOf(value) / 4 + column, element: value.dtype, ...this.rowsOf(name) };
  }

  state(name: string): WebGpuState {
    const { offset, shape } = this.stateSpec(name);
    return { offset, shape };
  }

  /** Bytes of the operands, weights at their stored size and only the rows and columns that are used. */
  bytesTouched(): number {
    let bytes = 0;
    const { inputs, outputs } = this.node;
    for (const [name, { value, shape }] of [...Object.entries(inputs), ...Object.entries(outputs)]) {
      if (value.kind === 'parameter') bytes += this.#weightBytes(name);
      else if (value.kind !== 'state') bytes += 4 * sizeOf(shape);
    }
    return bytes;
  }

  /** The share of the stored bytes, scales among them, that its elements in use have. */
  #weightBytes(name: string): number {
    const { bytes, layout, shape, stride } = this.weight(name);
    const elements = this.weightElements(name);
    return layout === 'matrix' ? (bytes / (shape[0]! * stride)) * elements : 4 * elements;
  }
}
