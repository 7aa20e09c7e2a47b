/** What every backend's view of a node has in common: operands by name, attributes, weights, and where rows begin. */

import { MatMambaError } from '../errors.ts';
import { type GraphNode, type Segment, type StateSpec, type Sym, paddedColumns, rowsOf } from '../graph/graph.ts';
import { type Shape, sizeOf } from '../tensor/tensor.ts';

/** What is read here of a stored weight. */
interface StoredShape {
  readonly layout: 'matrix' | 'vector' | 'taps';
  readonly shape: Shape;
  /** Elements from row to row. */
  readonly stride: number;
}

export abstract class NodeOperands<W extends StoredShape> {
  readonly attributes;
  protected readonly node: GraphNode;
  readonly #weights: ReadonlyMap<string, W>;

  constructor(node: GraphNode, weights: ReadonlyMap<string, W>) {
    this.node = node;
    this.#weights = weights;
    this.attributes = node.attributes;
  }

  has(name: string): boolean {
    return name in this.node.inputs || name in this.node.outputs;
  }

  weight(name: string): W {
    const { value } = this.operand(name);
    const weight = this.#weights.get(value.name);
    if (!weight) throw new MatMambaError('INTERNAL', `the weight ${value.name} was not uploaded`);
    return weight;
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

  protected operand(name: string): Sym {
    const sym = this.node.inputs[name] ?? this.node.outputs[name];
    if (!sym) throw new MatMambaError('INTERNAL', `${this.node.op.name} has no operand '${name}'`);
    return sym;
  }

  /** Rows, columns in use and elements from row to row of an activation. */
  protected rowsOf(name: string): { stride: number; rows: number; width: number; shape: Shape } {
    const { value, shape, width } = this.operand(name);
    const columns = value.shape.at(-1) ?? 1;
    return { stride: value.dtype === 'i32' ? columns : paddedColumns(columns), rows: rowsOf(shape), width, shape };
  }

  /** Where a piece of the state lies in a slot. */
  protected stateSpec(name: string): StateSpec {
    const { value } = this.operand(name);
    if (value.kind !== 'state') throw new MatMambaError('INTERNAL', `${value.name} is no state`);
    return value.state;
  }

  /** Elements of a weight that the node reads: of a matrix the rows of its segments and the columns of its input. */
  protected weightElements(name: string): number {
    const { layout, shape, stride } = this.weight(name);
    if (layout !== 'matrix') return sizeOf(shape);
    const segments = this.attributes['segments'] as readonly Segment[] | undefined;
    const { x, ids } = this.node.inputs;
    // Rows that tokens look up; optimizer and norms pass over all.
    const lookedUp = ids && !x ? rowsOf([...ids.shape, 1]) : shape[0]!;
    const rows = segments?.reduce((sum, { count }) => sum + count, 0) ?? lookedUp;
    return rows * (x?.width ?? stride);
  }
}
