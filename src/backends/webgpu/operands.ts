/** A node's operands as kernels see them: element offsets into the arena, weights and pieces of the states. */

import { MatMambaError } from '../../errors.ts';
import { type GraphNode, type Segment, type Sym, type Value, paddedColumns, rowsOf } from '../../graph/graph.ts';
import type { WebGpuBuffer, WebGpuFacts, WebGpuNode, WebGpuState } from '../../ops/webgpu-kernel.ts';
import { sizeOf } from '../../tensor/tensor.ts';
import type { WebGpuStoredWeight } from './weights.ts';

/** What nodes are resolved against. */
export interface Places {
  readonly facts: WebGpuFacts;
  readonly weights: ReadonlyMap<string, WebGpuStoredWeight>;
  /** Where a value lies in the arena, bytes. */
  offsetOf(value: Value): number;
}

export class ResolvedNode implements WebGpuNode {
  readonly attributes;
  /** In floats, from bytes. */
  readonly scratch: number;
  readonly facts: WebGpuFacts;
  readonly #places: Places;
  readonly #node: GraphNode;

  constructor(places: Places, node: GraphNode, scratchBytes: number) {
    this.#places = places;
    this.#node = node;
    this.attributes = node.attributes;
    this.scratch = scratchBytes / 4;
    this.facts = places.facts;
  }

  #operand(name: string): Sym {
    const sym = this.#node.inputs[name] ?? this.#node.outputs[name];
    if (!sym) throw new MatMambaError('INTERNAL', `${this.#node.op.name} has no operand '${name}'`);
    return sym;
  }

  has(name: string): boolean {
    return name in this.#node.inputs || name in this.#node.outputs;
  }

  buffer(name: string): WebGpuBuffer {
    const { value, column, shape, width } = this.#operand(name);
    const columns = value.shape.at(-1) ?? 1;
    const stride = value.dtype === 'i32' ? columns : paddedColumns(columns);
    const offset = this.#places.offsetOf(value) / 4 + column;
    return { offset, element: value.dtype, stride, rows: rowsOf(shape), width, shape };
  }

  weight(name: string): WebGpuStoredWeight {
    const { value } = this.#operand(name);
    const weight = this.#places.weights.get(value.name);
    if (!weight) throw new MatMambaError('INTERNAL', `the weight ${value.name} was not uploaded`);
    return weight;
  }

  state(name: string): WebGpuState {
    const { value } = this.#operand(name);
    if (value.kind !== 'state') throw new MatMambaError('INTERNAL', `${value.name} is no state`);
    return { offset: value.state.offset, shape: value.shape };
  }

  segments(name: string): readonly Segment[] {
    return this.attributes[name] as readonly Segment[];
  }
  number(name: string): number {
    return this.attributes[name] as number;
  }
  flag(name: string): boolean {
    return this.attributes[name] as boolean;
  }

  /** Bytes of the operands, weights at their stored size and only the rows and columns that are used. */
  bytesTouched(): number {
    let bytes = 0;
    const { inputs, outputs } = this.#node;
    for (const [name, { value, shape }] of [...Object.entries(inputs), ...Object.entries(outputs)]) {
      if (value.kind === 'parameter') bytes += this.#weightBytes(name);
      else if (value.kind !== 'state') bytes += 4 * sizeOf(shape);
    }
    return bytes;
  }

  #weightBytes(name: string): number {
    const { bytes, layout, shape, stride } = this.weight(name);
    if (layout !== 'matrix') return 4 * sizeOf(shape);
    const segments = this.attributes['segments'] as readonly Segment[] | undefined;
    const { x, ids } = this.#node.inputs;
    const lookedUp = ids && !x ? rowsOf([...ids.shape, 1]) : shape[0]!;
    const rows = segments?.reduce((sum, { count }) => sum + count, 0) ?? lookedUp;
    return (bytes / shape[0]!) * rows * ((x?.width ?? stride) / stride);
  }
}
