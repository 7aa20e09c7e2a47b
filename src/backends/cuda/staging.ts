/**
 * Inputs and results of a program between page-locked host memory and the arena. On the host everything lies without
 * padding. Rows that are whole multiples of the padding are copied as they are; narrow rows, such as one loss a token,
 * land beside the arena's plan and are spread to or gathered from their padded rows on the device, since the host would
 * touch a cache line for every number.
 */

import { MatMambaError } from '../../errors.ts';
import { type Graph, type Sym, type Value, paddedColumns, rowsOf } from '../../graph/graph.ts';
import type { CudaLaunch } from '../../ops/cuda-kernel.ts';
import { sizeOf } from '../../tensor/tensor.ts';
import type { ProgramInputs } from '../backend.ts';
import type { CudaDriver, HostBuffer, HostCopy } from './driver.ts';

const ALIGN_BYTES = 256;

/** Where a value lies in the arena, bytes. */
type OffsetOf = (value: Value) => number;

/** One input or result. */
interface Piece {
  readonly name: string;
  readonly sym: Sym;
  readonly elements: number;
  /** Offset in the host buffer, and in the landing area; -1 where it is copied as it lies. */
  readonly host: number;
  readonly landing: number;
}

export class Staging {
  /** Device memory that narrow rows land in. */
  readonly landingBytes: number;
  readonly #driver: CudaDriver;
  readonly #offsetOf: OffsetOf;
  readonly #inputs: readonly Piece[];
  readonly #results: readonly Piece[];
  readonly #hostBytes: number;
  #buffer: HostBuffer | undefined;

  constructor(driver: CudaDriver, graph: Graph, offsetOf: OffsetOf) {
    this.#driver = driver;
    this.#offsetOf = offsetOf;
    let [host, landing] = [0, 0];
    const place = ([name, sym]: [string, Sym]): Piece => {
      const elements = sizeOf(sym.shape);
      const bytes = Math.ceil((4 * elements) / ALIGN_BYTES) * ALIGN_BYTES;
      const piece = { name, sym, elements, host, landing: liesWhole(sym) ? -1 : landing };
      host += bytes;
      if (piece.landing >= 0) landing += bytes;
      return piece;
    };
    this.#inputs = [...graph.inputs].map(place);
    this.#results = [...graph.outputs].map(place);
    this.#hostBytes = host;
    this.landingBytes = landing;
  }

  /** Copies to the device before a replay. @throws MEMORY */
  copiesIn(base: bigint, landing: bigint): HostCopy[] {
    return this.#inputs.map((piece) => this.#copy('to-device', piece, base, landing));
  }

  copiesOut(base: bigint, landing: bigint): HostCopy[] {
    return this.#results.map((piece) => this.#copy('to-host', piece, base, landing));
  }

  /** Spreads narrow inputs to their padded rows. */
  spread(base: bigint, landing: bigint): CudaLaunch[] {
    const parts = this.#inputs.flatMap((piece): RowMove[] => {
      if (piece.landing < 0) return [];
      const { value, width } = piece.sym;
      const to = base + BigInt(this.#offsetOf(value));
      const stride = paddedColumns(width);
      return [
        {
          from: landing + BigInt(piece.landing),
          to,
          fromStride: width,
          toStride: stride,
          width,
          columns: stride,
          rows: rowsOf(value.shape),
        },
      ];
    });
    return moveRows(parts);
  }

  /** Gathers narrow results. */
  gather(base: bigint, landing: bigint): CudaLaunch[] {
    const parts = this.#results.flatMap((piece): RowMove[] => {
      if (piece.landing < 0) return [];
      const { value, column, width, shape } = piece.sym;
      const from = base + BigInt(this.#offsetOf(value) + 4 * column);
      const fromStride = paddedColumns(value.shape.at(-1) ?? 1);
      return [
        { from, to: landing + BigInt(piece.landing), fromStride, toStride: width, width, columns: width, rows: rowsOf(shape) },
      ];
    });
    return moveRows(parts);
  }

  /** Takes the caller's data over. */
  write(inputs: ProgramInputs): void {
    const { buffer, byteOffset } = this.#host.bytes;
    for (const { name, sym, elements, host } of this.#inputs) {
      const given = inputs[name];
      if (given?.length !== elements) {
        throw new MatMambaError('INTERNAL', `input '${name}' needs ${elements} elements, got ${given?.length}`);
      }
      if (sym.value.dtype === 'i32') new Int32Array(buffer, byteOffset + host, elements).set(given as Int32Array);
      else new Float32Array(buffer, byteOffset + host, elements).set(given as Float32Array);
    }
  }

  /** The results of the last replay, as copies. */
  read(): Record<string, Float32Array> {
    const { buffer, byteOffset } = this.#host.bytes;
    return Object.fromEntries(
      this.#results.map(({ name, sym, elements, host }) => [
        name,
        sym.value.dtype === 'i32'
          ? Float32Array.from(new Int32Array(buffer, byteOffset + host, elements))
          : new Float32Array(buffer, byteOffset + host, elements).slice(),
      ]),
    );
  }

  free(): void {
    this.#buffer?.free();
    this.#buffer = undefined;
  }

  get #host(): HostBuffer {
    return (this.#buffer ??= this.#driver.hostBuffer(this.#hostBytes));
  }

  #copy(kind: HostCopy['kind'], { sym, elements, host, landing: at }: Piece, base: bigint, landing: bigint): HostCopy {
    const device = at >= 0 ? landing + BigInt(at) : base + BigInt(this.#offsetOf(sym.value) + 4 * sym.column);
    return { kind, host: this.#host.pointer + BigInt(host), device, bytes: 4 * elements };
  }
}

/** Whether all its elements lie side by side in the arena. */
function liesWhole({ value, column, width }: Sym): boolean {
  if (value.dtype === 'i32') return true;
  return column === 0 && width === paddedColumns(value.shape.at(-1) ?? 1);
}

/** Rows of `width` floats from one row length to another, zeros up to `columns`. */
interface RowMove {
  readonly from: bigint;
  readonly to: bigint;
  readonly fromStride: number;
  readonly toStride: number;
  readonly width: number;
  readonly columns: number;
  readonly rows: number;
}

const SOURCE = String.raw`
struct Move { const float *from; float *to; u32 fromStride, toStride, width, columns, rows, unused; };

/* Block y moves the rows of one part: to[row][0 .. columns) = from[row][0 .. width), zeros behind. */
extern "C" __global__ void move_rows(const Move *moves) {
  Move move = moves[blockIdx.y];
  i64 count = (i64)move.rows * move.columns;
  for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
    i64 row = i / move.columns;
    u32 column = (u32)(i % move.columns);
    move.to[row * move.toStride + column] = column < move.width ? move.from[row * move.fromStride + column] : 0.0f;
  }
}
`;
const MOVE_BYTES = 40;
const BLOCK = 256;
const MOST_BLOCKS = 256;

function moveRows(parts: readonly RowMove[]): CudaLaunch[] {
  if (parts.length === 0) return [];
  const table = new DataView(new ArrayBuffer(parts.length * MOVE_BYTES));
  for (const [i, { from, to, fromStride, toStride, width, columns, rows }] of parts.entries()) {
    const at = i * MOVE_BYTES;
    table.setBigUint64(at, from, true);
    table.setBigUint64(at + 8, to, true);
    for (const [j, word] of [fromStride, toStride, width, columns, rows].entries()) table.setUint32(at + 16 + 4 * j, word, true);
  }
  const most = Math.max(...parts.map(({ rows, columns }) => rows * columns));
  return [
    {
      kind: 'kernel',
      source: SOURCE,
      entry: 'move_rows',
      grid: [Math.min(MOST_BLOCKS, Math.ceil(most / BLOCK)), parts.length],
      block: BLOCK,
      args: [{ table: new Uint8Array(table.buffer) }],
    },
  ];
}
