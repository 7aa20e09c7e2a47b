/**
 * What an op's `cpu.ts` says: the calls into the WASM module that compute one node.
 *
 * Every call runs on all threads at once with `(arguments, thread, threads)` and ends in a barrier, so a later call
 * sees what earlier ones wrote. Arguments are 32-bit words in the order of the kernel's argument class.
 */

import type { Attributes, Segment } from '../graph/graph.ts';
import type { Shape } from '../tensor/tensor.ts';

export type WeightDType = 'f32' | 'bf16' | 'f16' | 'i8';

/** A float32 or int32 operand in memory: `pointer` in bytes, `stride` in elements from row to row. */
export interface CpuBuffer {
  readonly pointer: number;
  readonly stride: number;
  readonly rows: number;
  readonly width: number;
  readonly shape: Shape;
}

/**
 * A weight in memory. `vector`: float32, contiguous, 16 floats of slack. `taps`: float32 [K][stride], channels
 * contiguous. `matrix`, columns zero-padded to 16: f32 row-major [rows][stride]; bf16 and f16 in panels of 8 rows
 * [panel][stride][8]; i8 [panel][stride / 8][8][8] with float32 scales [panel][stride / groupSize][8].
 */
export interface CpuWeight {
  readonly dtype: WeightDType;
  readonly layout: 'matrix' | 'vector' | 'taps';
  readonly shape: Shape;
  readonly pointer: number;
  readonly stride: number;
  readonly scales: number;
  /** Columns that share one scale (i8). */
  readonly groupSize: number;
}

/** A piece of the state: slot s of the batch row is at `load<u32>(slotTable + 4 * slot) + offset` (bytes). */
export interface CpuState {
  readonly slotTable: number;
  readonly offset: number;
  readonly shape: Shape;
}

export interface CpuNode {
  readonly attributes: Attributes;
  /** An activation or program input that must be there. */
  buffer(name: string): CpuBuffer;
  weight(name: string): CpuWeight;
  state(name: string): CpuState;
  has(name: string): boolean;
  segments(name: string): readonly Segment[];
  number(name: string): number;
  flag(name: string): boolean;
  readonly threads: number;
  /** A system BLAS answers `blas_sgemm`. */
  readonly blas: boolean;
  /** The scratch memory asked for, 256-byte aligned; 0 when none was. */
  readonly scratch: number;
}

/** Address of a parameter operand; 0 for one that is not there. */
export function vectorOperand(node: Pick<CpuNode, 'weight' | 'has'>, name: string): number {
  return node.has(name) ? node.weight(name).pointer : 0;
}

/** Floats of a float32 parameter buffer as it is stored, padding included. */
export function bufferFloats({ layout, shape, stride }: CpuWeight): number {
  if (layout === 'matrix') return shape[0]! * stride;
  return layout === 'taps' ? shape[2]! * stride : shape.reduce((a, b) => a * b, 1);
}

/** One 32-bit argument: an integer or pointer, or a float wrapped by `f32`. */
export type CpuArgument = number | { readonly f32: number };
export function f32(value: number): CpuArgument {
  return { f32: value };
}

export interface CpuCall {
  readonly kernel: string;
  readonly args: readonly CpuArgument[];
}

/** A call of the exported kernel; keys only document the order of the argument class. */
export function call(kernel: string, args: Readonly<Record<string, CpuArgument>>): CpuCall {
  return { kernel, args: Object.values(args) };
}

/** Address and stride of each named operand, in order: `x, xStride, z, zStride, ...`; zeros for one that is not there. */
export function rowOperands(node: Pick<CpuNode, 'buffer' | 'has'>, ...names: readonly string[]): Record<string, number> {
  return Object.fromEntries(
    names.flatMap((name) => {
      const { pointer, stride } = node.has(name) ? node.buffer(name) : { pointer: 0, stride: 0 };
      return [
        [name, pointer],
        [`${name}Stride`, stride],
      ];
    }),
  );
}

export interface CpuKernel {
  /** Bytes of scratch memory that the node needs while it runs. */
  scratchBytes?(node: Omit<CpuNode, 'scratch'>): number;
  calls(node: CpuNode): readonly CpuCall[];
}
