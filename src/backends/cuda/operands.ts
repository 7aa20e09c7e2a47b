/** A node's operands as kernels see them: addresses, strides and elements for where the arena lies. */

import { MatMambaError } from '../../errors.ts';
import { type GraphNode, type Segment, type Value, segmentColumns } from '../../graph/graph.ts';
import {
  type CudaBuffer,
  type CudaElement,
  type CudaHalf,
  type CudaLaunch,
  type CudaNode,
  type CudaState,
  type CudaWeight,
  type WeightRun,
  ELEMENT_BYTES,
  cType,
  defines,
} from '../../ops/cuda-kernel.ts';
import { NodeOperands } from '../node-operands.ts';
import { runsOf } from '../../ops/linear/cuda-products.ts';
import { type Shape, sizeOf } from '../../tensor/tensor.ts';

/** What a node's operands are resolved against: the program's values and weights, and the device they lie on. */
export interface ProgramMemory {
  readonly host: { readonly slotTable: bigint; readonly driver: { readonly facts: { readonly multiprocessors: number } } };
  readonly weights: ReadonlyMap<string, CudaWeight>;
  readonly activation: 'f32' | CudaHalf;
  /** Element of a value in the arena, and where it lies there, bytes. */
  elementOf(value: Value): CudaElement;
  offsetOf(value: Value): number;
}

/** The weight copies of a program and where they lie. */
export interface PreparedWeights {
  readonly copies: WeightCopies;
  readonly base: bigint;
}

/** Resolves a node's operands to addresses; `base` is where the arena lies. */
export class ResolvedNode extends NodeOperands<CudaWeight> implements CudaNode {
  readonly scratch: bigint;
  readonly activation: 'f32' | CudaHalf;
  readonly multiprocessors: number;
  readonly #program: ProgramMemory;
  readonly #base: bigint;
  readonly #prepared: PreparedWeights;

  constructor(program: ProgramMemory, node: GraphNode, base: bigint, scratch: bigint, prepared: PreparedWeights) {
    super(node, program.weights);
    this.#program = program;
    this.#base = base;
    this.#prepared = prepared;
    this.scratch = scratch;
    this.activation = program.activation;
    this.multiprocessors = program.host.driver.facts.multiprocessors;
  }

  buffer(name: string): CudaBuffer {
    const { value, column } = this.operand(name);
    const element = this.#program.elementOf(value);
    const offset = this.#program.offsetOf(value) + column * ELEMENT_BYTES[element];
    return { pointer: this.#base + BigInt(offset), element, ...this.rowsOf(name) };
  }

  runs(name: string, segments: readonly Segment[]): readonly WeightRun[] {
    const weight = this.weight(name);
    if (weight.element === 'i8') throw new MatMambaError('INTERNAL', `${this.operand(name).value.name} is stored in int8`);
    if (weight.element === this.activation) return runsOf(weight, segments);
    return this.#prepared.copies.runs(weight, segments, this.#prepared.base);
  }

  state(name: string): CudaState {
    const { offset, shape } = this.stateSpec(name);
    return { slotTable: this.#program.host.slotTable, offset: 4 * offset, shape };
  }

  /** Bytes of the operands, weights at their stored size and only the rows and columns that are used. */
  bytesTouched(): number {
    let bytes = 0;
    const { inputs, outputs } = this.node;
    for (const [name, { value, shape }] of [...Object.entries(inputs), ...Object.entries(outputs)]) {
      if (value.kind === 'parameter') bytes += ELEMENT_BYTES[this.weight(name).element] * this.weightElements(name);
      else if (value.kind === 'state') bytes += this.#stateBytes(shape);
      else bytes += ELEMENT_BYTES[this.#program.elementOf(value)] * sizeOf(shape);
    }
    return bytes;
  }

  /** What a step reads and writes of all slots: the channels in use of a window, the heads in use of S. */
  #stateBytes(shape: Shape): number {
    const { x, b, slots } = this.node.inputs;
    const depth = b ? b.width : shape[0]!;
    return 2 * 4 * slots!.shape[0]! * x!.width * depth;
  }
}

const COPY_SOURCE = String.raw`
struct Part { const float *from; T_TO *to; u32 fromStride, rows, real, stride; };

/* Rows of float32 matrices as 16-bit ones: block y is a part, to[row][0 .. stride) = from[row], zeros from row real on. */
extern "C" __global__ void copy_weights(const Part *parts) {
  Part part = parts[blockIdx.y];
  u32 groups = part.stride / 8;
  u32 count = part.rows * groups;
  for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    u32 row = i / groups, column = i % groups * 8;
    float v[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (row < part.real) load_row(v, part.from + (u64)row * part.fromStride + column);
    store_row(part.to + (u64)row * part.stride + column, v);
  }
}
`;
const PART_BYTES = 32;

interface Copy {
  readonly weight: CudaWeight;
  readonly segments: readonly Segment[];
  readonly offset: number;
  readonly rows: number;
}

/**
 * 16-bit copies of float32 weight rows that a program's products read: the segments' rows one after another, each
 * segment from a multiple of 16 rows on with zero rows between, as the columns of an output lie.
 */
export class WeightCopies {
  readonly #activation: 'f32' | CudaHalf;
  readonly #copies = new Map<string, Copy>();
  bytes = 0;

  constructor(activation: 'f32' | CudaHalf) {
    this.#activation = activation;
  }

  /** Bytes that making the copies moves. */
  get bytesTouched(): number {
    return 3 * this.bytes;
  }

  runs(weight: CudaWeight, segments: readonly Segment[], base: bigint): WeightRun[] {
    const key = `${weight.pointer}/${segments.map(({ start, count }) => `${start}+${count}`).join()}`;
    let copy = this.#copies.get(key);
    if (!copy) {
      const rows = segments.length === 1 ? segments[0]!.count : segmentColumns(segments).total;
      copy = { weight, segments, offset: this.bytes, rows };
      this.#copies.set(key, copy);
      this.bytes += Math.ceil((rows * weight.stride * ELEMENT_BYTES[this.#activation]) / 256) * 256;
    }
    const pointer = base + BigInt(copy.offset);
    return [{ pointer, element: this.#activation, stride: weight.stride, column: 0, count: copy.rows }];
  }

  /** Makes all copies. */
  launches(base: bigint): CudaLaunch[] {
    const parts = [...this.#copies.values()].flatMap(({ weight, segments, offset, rows }) => {
      const { columns } = segmentColumns(segments);
      const rowBytes = weight.stride * ELEMENT_BYTES[this.#activation];
      return segments.map(({ start, count }, i) => ({
        from: weight.pointer + BigInt(4 * start * weight.stride),
        to: base + BigInt(offset + columns[i]! * rowBytes),
        rows: (columns[i + 1] ?? rows) - columns[i]!,
        real: count,
        stride: weight.stride,
      }));
    });
    if (parts.length === 0) return [];
    const table = new DataView(new ArrayBuffer(parts.length * PART_BYTES));
    for (const [i, { from, to, rows, real, stride }] of parts.entries()) {
      const at = i * PART_BYTES;
      table.setBigUint64(at, from, true);
      table.setBigUint64(at + 8, to, true);
      for (const [j, word] of [stride, rows, real, stride].entries()) table.setUint32(at + 16 + 4 * j, word, true);
    }
    return [
      {
        kind: 'kernel',
        source: defines({ T_TO: cType(this.#activation) }) + COPY_SOURCE,
        entry: 'copy_weights',
        grid: [64, parts.length],
        block: 256,
        args: [{ table: new Uint8Array(table.buffer) }],
      },
    ];
  }
}
