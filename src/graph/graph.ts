/**
 * The graph that model code traces: values, views of their columns, and nodes in program order.
 *
 * A value is a row-major matrix: all leading axes are its rows, the last axis is padded with zeros to a multiple of
 * 16 floats. A `Sym` is what model code holds: a value, or some of its columns. Shapes are constants of a graph; what
 * changes between replays (ids, lengths, slots) are inputs. Nodes stand in the order they run.
 */

import { MatMambaError } from '../errors.ts';
import { type Shape, formatShape, sizeOf } from '../tensor/tensor.ts';

/** Columns of the last axis are padded to a multiple of this many elements. */
export const COLUMN_ALIGN = 16;

/** Elements from one row to the next for `width` columns. */
export function paddedColumns(width: number): number {
  return Math.ceil(width / COLUMN_ALIGN) * COLUMN_ALIGN;
}

/** Rows (or channels) `start .. start + count` of a parameter, as they are laid side by side in an output. */
export interface Segment {
  readonly start: number;
  readonly count: number;
}

/** Where each segment's columns begin when every segment starts at a multiple of 16, and the columns of all. */
export function segmentColumns(segments: readonly Segment[]): { columns: number[]; total: number } {
  let total = 0;
  const columns = segments.map(({ count }) => {
    const column = total;
    total += paddedColumns(count);
    return column;
  });
  return { columns, total };
}

export type ValueDType = 'f32' | 'i32';

/**
 * How a backend may store a parameter: `matrix` is read by linear and embedding and may be quantised, `vector` is
 * float32, `taps` is a depthwise convolution weight (C, 1, K), float32.
 */
export interface ParameterSpec {
  readonly name: string;
  readonly shape: Shape;
  readonly layout: 'matrix' | 'vector' | 'taps';
  /** Stored as float32 whatever the model's dtype (gradients, optimiser moments). */
  readonly precise?: boolean;
}

/** One layer's piece of a state slot; offsets are in floats from the start of the slot. */
export interface StateSpec {
  readonly name: string;
  readonly shape: Shape;
  readonly offset: number;
}

interface ValueBase {
  readonly id: number;
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: ValueDType;
}
export interface InputValue extends ValueBase {
  readonly kind: 'input';
}
export interface ParameterValue extends ValueBase {
  readonly kind: 'parameter';
  readonly parameter: ParameterSpec;
}
export interface StateValue extends ValueBase {
  readonly kind: 'state';
  readonly state: StateSpec;
}
export interface NodeValue extends ValueBase {
  readonly kind: 'value';
}
export type Value = InputValue | ParameterValue | StateValue | NodeValue;

/** Number of rows of a value: the product of all axes but the last. */
export function rowsOf(shape: Shape): number {
  return sizeOf(shape.slice(0, -1));
}

/** Bytes a value takes in the arena: padded rows for float32, plain elements for int32. */
export function arenaBytes(value: { shape: Shape; dtype: ValueDType }): number {
  if (value.dtype === 'i32') return 4 * sizeOf(value.shape);
  return 4 * rowsOf(value.shape) * paddedColumns(value.shape.at(-1) ?? 1);
}

/** What model code holds while it traces: `width` columns of a value, from `column` on. */
export class Sym {
  readonly graph: Graph;
  readonly value: Value;
  readonly column: number;
  readonly shape: Shape;

  constructor(graph: Graph, value: Value, column = 0, shape: Shape = value.shape) {
    this.graph = graph;
    this.value = value;
    this.column = column;
    this.shape = shape;
  }

  /** Number of columns. */
  get width(): number {
    return this.shape.at(-1) ?? 1;
  }

  /** A view of `width` columns from `column` on; it must start at a multiple of 16. */
  columns(column: number, width: number): Sym {
    if (column % COLUMN_ALIGN !== 0 || column + width > paddedColumns(this.width)) {
      throw new MatMambaError('INTERNAL', `columns ${column}..${column + width} of ${formatShape(this.shape)} are no view`);
    }
    return new Sym(this.graph, this.value, this.column + column, [...this.shape.slice(0, -1), width]);
  }

  /** The same rows under other leading axes. */
  reshapeRows(leading: Shape): Sym {
    if (sizeOf(leading) !== rowsOf(this.shape)) {
      throw new MatMambaError('INTERNAL', `rows of ${formatShape(this.shape)} are not ${formatShape(leading)}`);
    }
    return new Sym(this.graph, this.value, this.column, [...leading, this.width]);
  }
}

export type AttributeValue = number | string | boolean | readonly number[] | readonly Segment[];
export type Attributes = Readonly<Record<string, AttributeValue>>;

/** The part of an op that graphs, planners and profilers need; `ops/op.ts` makes these. */
export interface OpDefinition {
  readonly name: string;
  /** Floating point operations of one node. */
  readonly flops: (node: GraphNode) => number;
  /** Outputs that may overwrite an input of the same shape when nothing reads it later. */
  readonly inPlace: Readonly<Record<string, string>>;
  /** Adds the nodes of the inputs' gradients; see `GradientRule` in ops/op.ts. */
  readonly gradient: ((call: NodeGradientCall) => Readonly<Record<string, Sym | undefined>>) | undefined;
}

/** What `differentiate` gives to a gradient rule. */
export interface NodeGradientCall {
  readonly inputs: Readonly<Record<string, Sym>>;
  readonly outputs: Readonly<Record<string, Sym>>;
  readonly grads: Readonly<Record<string, Sym>>;
  readonly attributes: Attributes;
  readonly wants: (input: string) => boolean;
  readonly into: (input: string) => Sym | undefined;
  readonly accumulate: (input: string) => Sym | undefined;
}

export interface GraphNode {
  readonly op: OpDefinition;
  /** Where in the model, for errors and profiles: `backbone.layers.3.mixer`. */
  readonly scope: string;
  /** Nodes of one region are computed again in the backward pass when activations are recomputed; 0: kept. */
  readonly region: number;
  readonly inputs: Readonly<Record<string, Sym>>;
  readonly outputs: Readonly<Record<string, Sym>>;
  readonly attributes: Attributes;
}

/** A traced program: append-only while model code runs, read-only afterwards. */
export class Graph {
  readonly values: Value[] = [];
  readonly nodes: GraphNode[] = [];
  readonly inputs = new Map<string, Sym>();
  readonly outputs = new Map<string, Sym>();
  readonly #parameters = new Map<string, Sym>();
  readonly #states = new Map<string, Sym>();
  #scope = '';
  #prefix = '';
  #region = 0;
  #regions = 0;

  /** Data the caller gives at each replay. */
  input(name: string, shape: Shape, dtype: ValueDType): Sym {
    const full = this.#prefix + name;
    const sym = new Sym(this, this.#add({ kind: 'input', id: this.values.length, name: full, shape, dtype }));
    this.inputs.set(full, sym);
    return sym;
  }

  /** A weight, the same symbol each time it is named (tied weights share one). */
  parameter(parameter: ParameterSpec): Sym {
    let sym = this.#parameters.get(parameter.name);
    if (!sym) {
      const { name, shape } = parameter;
      sym = new Sym(this, this.#add({ kind: 'parameter', id: this.values.length, name, shape, dtype: 'f32', parameter }));
      this.#parameters.set(name, sym);
    }
    return sym;
  }

  /** A piece of the state slots; ops update it in place. */
  state(state: StateSpec): Sym {
    let sym = this.#states.get(state.name);
    if (!sym) {
      const { name, shape } = state;
      sym = new Sym(this, this.#add({ kind: 'state', id: this.values.length, name, shape, dtype: 'f32', state }));
      this.#states.set(name, sym);
    }
    return sym;
  }

  /** A fresh intermediate, to be written by the node being added. */
  value(name: string, shape: Shape, dtype: ValueDType = 'f32'): Sym {
    return new Sym(this, this.#add({ kind: 'value', id: this.values.length, name, shape, dtype }));
  }

  /** Marks a value as a result that the caller gets a copy of. */
  output(name: string, sym: Sym): void {
    this.outputs.set(this.#prefix + name, sym);
  }

  addNode(node: Omit<GraphNode, 'scope' | 'region'>): void {
    this.nodes.push({ ...node, scope: this.#scope, region: this.#region });
  }

  /** Runs `trace` with `name` appended to the scope that its nodes carry. */
  in<R>(name: string, trace: () => R): R {
    const outer = this.#scope;
    this.#scope = outer ? `${outer}.${name}` : name;
    try {
      return trace();
    } finally {
      this.#scope = outer;
    }
  }

  /** Runs `trace` with `prefix` in front of the names of its inputs and outputs, so that one graph holds several traces. */
  withPrefix<R>(prefix: string, trace: () => R): R {
    const outer = this.#prefix;
    this.#prefix = outer + prefix;
    try {
      return trace();
    } finally {
      this.#prefix = outer;
    }
  }

  /** Runs `trace` as a region of its own. */
  inRegion<R>(trace: () => R): R {
    const outer = this.#region;
    this.#region = ++this.#regions;
    try {
      return trace();
    } finally {
      this.#region = outer;
    }
  }

  #add<V extends Value>(value: V): V {
    this.values.push(value);
    return value;
  }
}
