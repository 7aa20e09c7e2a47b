/**
 * What an op's `cuda.ts` says: the launches that compute one node, as CUDA C for NVRTC or as matrix products for
 * cuBLASLt. They run in order on one stream, recorded once and replayed, so a later launch sees what earlier ones wrote.
 *
 * In a 16-bit precision activations are stored as bf16 or f16, but for what an op declares `wide` (the residual stream,
 * losses), program inputs and results, which are float32. Kernels read and write each operand in the element that its
 * buffer names, and compute in float32. Parameters that are no matrices, gradients and states are always float32.
 * Kernels zero the columns that pad their outputs to a multiple of 16. No float
 * atomics: the same inputs give the same bits.
 */

import type { Attributes, Segment } from '../graph/graph.ts';
import type { Shape } from '../tensor/tensor.ts';

/** 16-bit floats of activations; undefined in the float32 precisions. */
export type CudaHalf = 'bf16' | 'f16';
export type CudaElement = 'f32' | CudaHalf | 'i32' | 'i8';

export const ELEMENT_BYTES: Readonly<Record<CudaElement, number>> = { f32: 4, bf16: 2, f16: 2, i32: 4, i8: 1 };

/** An activation or program input: `pointer` in bytes (64-byte aligned or more), `stride` in elements from row to row. */
export interface CudaBuffer {
  readonly pointer: bigint;
  readonly element: CudaElement;
  readonly stride: number;
  readonly rows: number;
  readonly width: number;
  readonly shape: Shape;
}

/**
 * A parameter in device memory. `vector` and `taps` are float32, contiguous, as their shape says ((C, 1, K) taps: K
 * floats a channel). `matrix` is row-major with rows of `stride` elements, zero-padded to a multiple of 16; i8 has
 * float32 scales [rows][stride / groupSize].
 */
export interface CudaWeight {
  readonly element: Exclude<CudaElement, 'i32'>;
  readonly layout: 'matrix' | 'vector' | 'taps';
  readonly shape: Shape;
  readonly pointer: bigint;
  readonly stride: number;
  readonly scales: bigint;
  readonly groupSize: number;
}

/** A piece of the state: slot s lies at `((char **)slotTable)[s] + offset` bytes, float32, contiguous in `shape`. */
export interface CudaState {
  readonly slotTable: bigint;
  readonly offset: number;
  readonly shape: Shape;
}

/** Rows of a weight that lie together both in the weight and in the output, as operands of one product. */
export interface WeightRun {
  readonly pointer: bigint;
  readonly element: CudaElement;
  /** Elements from row to row. */
  readonly stride: number;
  /** First column of the output. */
  readonly column: number;
  readonly count: number;
}

export interface CudaNode {
  readonly attributes: Attributes;
  /** An activation or program input that must be there. */
  buffer(name: string): CudaBuffer;
  weight(name: string): CudaWeight;
  /** A matrix as products read it (in the precision's element; int8 is refused), cut into the segments' runs. */
  runs(name: string, segments: readonly Segment[]): readonly WeightRun[];
  state(name: string): CudaState;
  has(name: string): boolean;
  segments(name: string): readonly Segment[];
  number(name: string): number;
  flag(name: string): boolean;
  /** Element of activations: bf16 or f16, or float32. */
  readonly activation: 'f32' | CudaHalf;
  /** Multiprocessors of the device, for sizing grids. */
  readonly multiprocessors: number;
  /** The scratch memory asked for, 256-byte aligned; 0n when none was. */
  readonly scratch: bigint;
}

/**
 * One kernel argument: a pointer, or a 32-bit integer or float. A `table` is constant data that the program places in
 * device memory once, 256-byte aligned, and passes as a pointer.
 */
export type CudaArgument = bigint | { readonly i32: number } | { readonly f32: number } | { readonly table: Uint8Array };
export const i32 = (value: number): CudaArgument => ({ i32: value });
export const f32 = (value: number): CudaArgument => ({ f32: value });

export interface KernelLaunch {
  readonly kind: 'kernel';
  /** CUDA C without the prelude; equal text is compiled once. Defines come first (see `defines`). */
  readonly source: string;
  /** An `extern "C" __global__` function of the source. */
  readonly entry: string;
  readonly grid: readonly [number, number?, number?];
  /** Threads of a block, a multiple of 32. */
  readonly block: number;
  /** Dynamic shared memory. */
  readonly sharedBytes?: number;
  readonly args: readonly CudaArgument[];
  /**
   * May start before the launch ahead of it is done: the kernel calls `wait_for_kernel_before` before it touches anything
   * but weights.
   */
  readonly startsEarly?: boolean;
}

/** A row-major operand of a product; `transposed` operands are stored the other way round ([k][m], [n][k]). */
export interface GemmOperand {
  readonly pointer: bigint;
  readonly element: CudaElement;
  readonly stride: number;
  readonly transposed?: boolean;
  /** Elements from one product of a batch to the next. */
  readonly batchStride?: number;
}

/** d[m][n] = a[m][k] b[k][n], added to d with `accumulate`; sums are float32 (TF32 products in the precision tf32). */
export interface GemmLaunch {
  readonly kind: 'gemm';
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: GemmOperand;
  readonly b: GemmOperand;
  readonly d: GemmOperand;
  readonly accumulate?: boolean;
  readonly batch?: number;
}

/** Sets bytes to zero. */
export interface FillLaunch {
  readonly kind: 'fill';
  readonly pointer: bigint;
  readonly bytes: number;
}

/** Float32 numbers of this rank and where the result goes, the same place or another; -1 for no `root`. */
export interface RankPart {
  readonly from: bigint;
  readonly to: bigint;
  readonly count: number;
  readonly root: number;
}

/**
 * Sums over the ranks of the job for all of them (`all-reduce`) or for the part's root, zeros for the others (`reduce`),
 * or copies from the part's root (`broadcast`). What follows runs meanwhile; the program puts a `join` before the first
 * launch that uses the results.
 */
export interface RankLaunch {
  readonly kind: 'all-reduce' | 'reduce' | 'broadcast';
  readonly parts: readonly RankPart[];
}

/** Waits for all launches between ranks so far. */
export interface JoinLaunch {
  readonly kind: 'join';
}

export type CudaLaunch = KernelLaunch | GemmLaunch | FillLaunch | RankLaunch | JoinLaunch;

export interface CudaKernel {
  /** Outputs, and inputs as their ops write them, that stay float32 in a 16-bit precision. */
  readonly wide?: readonly string[];
  /** Bytes of scratch memory that the node needs while it runs (pointers are 0 when this is asked). */
  scratchBytes?(node: CudaNode): number;
  launches(node: CudaNode): readonly CudaLaunch[];
  /**
   * Launches that compute consecutive nodes of this op together, for ops with a node for every parameter. They take the
   * place of the nodes' own; what one node alone computes for a later one of them need not be written.
   */
  group?(nodes: readonly CudaNode[]): readonly CudaLaunch[];
  /** Bytes of scratch memory of `group`, given to the first node. */
  groupScratchBytes?(nodes: readonly CudaNode[]): number;
}

/** `#define NAME value` lines in front of a kernel's source, one specialisation of it. */
export function defines(values: Readonly<Record<string, string | number>>): string {
  return Object.entries(values)
    .map(([name, value]) => `#define ${name} ${value}\n`)
    .join('');
}

/** The C type of an element, for `defines`. */
export function cType(element: CudaElement): string {
  return { f32: 'float', bf16: 'bf16', f16: 'f16', i32: 'int', i8: 'signed char' }[element];
}

/** C type, `float` for one that is not there (its pointer is null). */
export function typeOf(node: CudaNode, name: string): string {
  return node.has(name) ? cType(node.buffer(name).element) : 'float';
}

/** Address and stride of a buffer operand; nulls for one that is not there. */
export function rowOperand(node: CudaNode, name: string): [CudaArgument, CudaArgument] {
  if (!node.has(name)) return [0n, i32(0)];
  const { pointer, stride } = node.buffer(name);
  return [pointer, i32(stride)];
}

/** Address of a parameter operand; null for one that is not there. */
export function parameterOperand(node: CudaNode, name: string): bigint {
  return node.has(name) ? node.weight(name).pointer : 0n;
}
