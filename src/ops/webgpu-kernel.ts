/**
 * What an op's `webgpu.ts` says: the dispatches that compute one node, as WGSL. They run in order on one queue, encoded
 * anew for each replay; a later dispatch sees what earlier ones wrote.
 *
 * Activations, program inputs, scratch and results lie in one buffer, the arena, bound as one `read_write` array; operands
 * are element offsets into it that arrive as constants (`c.x`, `c.xStride`). int32 operands lie there as bits
 * (`bitcast<i32>`). Weights are buffers of their own; states lie in one pool. All arithmetic is float32; a matrix may be
 * stored in f16, bf16, int8 or int4 and is widened as it is read (`webgpu-weight-rows.ts`).
 *
 * Rules for kernels: at most 8 storage buffers, 16 KiB of workgroup memory, 256 invocations a workgroup, 65,535
 * workgroups a dimension (`fold`). Zero the columns that pad an output to a multiple of 16. No float atomics: the same
 * inputs give the same bits. Values read from a storage buffer are not uniform: load what decides over a barrier with
 * `workgroupUniformLoad`. Two dispatches have a barrier between them, invocations of one dispatch none but their
 * workgroup's. `from`, `target`, `final`, `ref` and many more words are reserved in WGSL.
 */

import { type Attributes, type Segment } from '../graph/graph.ts';
import type { Shape } from '../tensor/tensor.ts';

export type WebGpuElement = 'f32' | 'bf16' | 'f16' | 'i8' | 'i4';

/** Slots of the state pool begin at multiples of this many floats; a slot's index counts them. */
export const STATE_UNIT_FLOATS = 64;

/** A device buffer as kernels name it; the backend knows what stands behind it. */
export interface WebGpuStorage {
  /** For messages: `backbone.embedding.weight`. */
  readonly label: string;
}

/** An activation or program input: `offset` and `stride` (row to row) in elements of 4 bytes, multiples of 16 (int32: any stride). */
export interface WebGpuBuffer {
  readonly offset: number;
  readonly element: 'f32' | 'i32';
  readonly stride: number;
  readonly rows: number;
  readonly width: number;
  readonly shape: Shape;
}

/** Rows `firstRow .. firstRow + rows` of a weight in a buffer of their own. */
export interface WeightPart {
  readonly firstRow: number;
  readonly rows: number;
  readonly values: WebGpuStorage;
  /** int8, int4: float32 [rows][groups]. */
  readonly scales: WebGpuStorage | undefined;
}

/**
 * A parameter on the device. `vector` and `taps` are float32, contiguous, as their shape says ((C, 1, K) taps: K floats a
 * channel), in one part, with zeros behind up to a multiple of 16 floats. `matrix` is row-major with rows of `stride` elements, zero-padded to
 * a multiple of 16, in as many parts as the device's limit asks for (`values` is the only one's, or throws). 16-bit
 * elements lie two in a u32, int8 four, int4 eight, lowest bits first.
 */
export interface WebGpuWeight {
  readonly element: WebGpuElement;
  readonly layout: 'matrix' | 'vector' | 'taps';
  readonly shape: Shape;
  readonly stride: number;
  /** int8, int4: columns that share a scale, and how many such groups a row has; else 0. */
  readonly groupSize: number;
  readonly groups: number;
  readonly parts: readonly WeightPart[];
  /** The buffer of a vector or of taps. */
  readonly values: WebGpuStorage;
}

/** A piece of the state: that of slot s lies at `states[s * 64 + offset]`, float32, contiguous in `shape`. */
export interface WebGpuState {
  readonly offset: number;
  readonly shape: Shape;
}

/** Sizes of subgroup matrices: the product of m x k and k x n. */
export interface MatrixTile {
  readonly m: number;
  readonly n: number;
  readonly k: number;
}

/** What kernels may know of the device. */
export interface WebGpuFacts {
  /**
   * Lanes of every subgroup, which are neighbours by `local_invocation_index`, where `enable: ['subgroups']` is allowed;
   * 0 where it is not, or where subgroups differ in size.
   */
  readonly subgroupSize: number;
  /** Subgroup matrices of halves with float32 sums, where `enable: MATRIX_EXTENSIONS` and MATRIX_KERNEL_BYTES are allowed. */
  readonly matrix: MatrixTile | undefined;
  /** Runs on the CPU: nothing is gained by many workgroups. */
  readonly software: boolean;
}

/** Workgroup memory that kernels with subgroup matrices may take; others keep to the 16 KiB of every adapter. */
export const MATRIX_KERNEL_BYTES = 32 * 1024;
export const MATRIX_EXTENSIONS = ['f16', 'subgroups', 'chromium_experimental_subgroup_matrix'] as const;

export interface WebGpuNode {
  readonly attributes: Attributes;
  /** An activation or program input that must be there. */
  buffer(name: string): WebGpuBuffer;
  weight(name: string): WebGpuWeight;
  state(name: string): WebGpuState;
  has(name: string): boolean;
  segments(name: string): readonly Segment[];
  number(name: string): number;
  flag(name: string): boolean;
  readonly facts: WebGpuFacts;
  /** Offset of the scratch memory asked for in the arena, a multiple of 64; 0 when none was. */
  readonly scratch: number;
}

/** WGSL types of a storage array's elements; the same bytes may be read as any of them. */
export type StorageType = 'f32' | 'u32' | 'i32' | 'vec2<f32>' | 'vec2<u32>' | 'vec4<f32>' | 'vec4<u32>';

/** A storage buffer of a dispatch: `var<storage, access> name: array<type>`. The arena and the states are read_write. */
export interface WebGpuBinding {
  readonly name: string;
  /** `table`: constant data that the program places on the device once. */
  readonly storage: 'arena' | 'states' | WebGpuStorage | { readonly table: Uint32Array };
  readonly access: 'read' | 'read_write';
  readonly type: StorageType;
}

/** A constant of a dispatch, `c.name`: a u32, or an f32 or i32 where it says so. */
export type WebGpuConstant = number | { readonly f32: number } | { readonly i32: number };
export type WebGpuConstants = Readonly<Record<string, WebGpuConstant>>;
export const f32 = (value: number): WebGpuConstant => ({ f32: value });
export const i32 = (value: number): WebGpuConstant => ({ i32: value });

export type Workgroups = readonly [number, number?, number?];

export interface WebGpuDispatch {
  readonly kind: 'dispatch';
  /** WGSL without bindings and constants, which `moduleText` puts in front; equal text is compiled once. */
  readonly source: string;
  /** A `@compute` function of the source. */
  readonly entry: string;
  readonly workgroups: Workgroups;
  readonly bindings: readonly WebGpuBinding[];
  readonly constants: WebGpuConstants;
  /** Extensions of WGSL that the source uses; see `WebGpuFacts`. */
  readonly enable?: readonly string[];
}

/** Sets floats of a buffer to zero; offset and count in floats. */
export interface WebGpuClear {
  readonly kind: 'clear';
  readonly storage: 'arena' | 'states' | WebGpuStorage;
  readonly offset: number;
  readonly count: number;
}

/** Copies floats from one buffer to another one (WebGPU copies nothing within a buffer). */
export interface WebGpuCopy {
  readonly kind: 'copy';
  readonly from: 'arena' | 'states' | WebGpuStorage;
  readonly fromOffset: number;
  readonly to: 'arena' | 'states' | WebGpuStorage;
  readonly toOffset: number;
  readonly count: number;
}

export type WebGpuCommand = WebGpuDispatch | WebGpuClear | WebGpuCopy;

export interface WebGpuKernel {
  /** Floats of scratch memory that the node needs while it runs (offsets are 0 when this is asked). */
  scratchFloats?(node: WebGpuNode): number;
  dispatches(node: WebGpuNode): readonly WebGpuCommand[];
}

/** The arena as `arena: array<type>`: one binding a dispatch. */
export function arena(type: StorageType = 'f32'): WebGpuBinding {
  return { name: 'arena', storage: 'arena', access: 'read_write', type };
}

/** The pool of states as `states: array<type>`. */
export function states(type: StorageType = 'f32'): WebGpuBinding {
  return { name: 'states', storage: 'states', access: 'read_write', type };
}

/** A vector, taps or a weight's part, read only. */
export function reads(name: string, storage: WebGpuStorage, type: StorageType = 'f32'): WebGpuBinding {
  return { name, storage, access: 'read', type };
}

/** A gradient, moment or weight that is written. */
export function writes(name: string, storage: WebGpuStorage, type: StorageType = 'f32'): WebGpuBinding {
  return { name, storage, access: 'read_write', type };
}

/** Constant data, for what is too long for constants. */
export function table(name: string, data: Uint32Array, type: StorageType = 'u32'): WebGpuBinding {
  return { name, storage: { table: data }, access: 'read', type };
}

/** Offset and stride of each named operand, `x`, `xStride`, ...; zeros for one that is not there. */
export function rowConstants(node: Pick<WebGpuNode, 'buffer' | 'has'>, ...names: readonly string[]): Record<string, number> {
  return Object.fromEntries(
    names.flatMap((name) => {
      const { offset, stride } = node.has(name) ? node.buffer(name) : { offset: 0, stride: 0 };
      return [
        [name, offset],
        [`${name}Stride`, stride],
      ];
    }),
  );
}

/** `const NAME = value;` lines for the front of a source, one specialisation of it: whole numbers are u32. */
export function specialise(values: Readonly<Record<string, number | boolean | { readonly f32: number }>>): string {
  return Object.entries(values)
    .map(([name, value]) => `const ${name} = ${literal(value)};\n`)
    .join('');
}

function literal(value: number | boolean | { readonly f32: number }): string {
  if (typeof value === 'boolean') return String(value);
  if (typeof value === 'number') return `${value}u`;
  return `f32(${value.f32})`;
}

const MAXIMUM_WORKGROUPS = 65535;

/**
 * So many workgroups as two dimensions; kernels find theirs by `folded(wid, count)` of the header (`@builtin(workgroup_id)`,
 * `@builtin(num_workgroups)`) and return when it is beyond the count.
 */
export function fold(count: number): Workgroups {
  const y = Math.max(1, Math.ceil(count / MAXIMUM_WORKGROUPS));
  return [Math.max(1, Math.ceil(count / y)), y];
}

const PRELUDE = `fn folded(id: vec3<u32>, count: vec3<u32>) -> u32 { return id.y * count.x + id.x; }
`;

/** The whole module of a dispatch: extensions, the struct of its constants, its bindings, then its source. */
export function moduleText({ source, bindings, constants, enable = [] }: WebGpuDispatch): string {
  const fields = Object.entries(constants).map(([name, value]) => `  ${name}: ${constantType(value)},\n`);
  return [
    ...enable.map((name) => `enable ${name};\n`),
    ...bindings.map(({ name, access, type }, i) => `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<${type}>;\n`),
    ...(fields.length > 0
      ? ['struct Constants {\n', ...fields, `}\n@group(0) @binding(${bindings.length}) var<uniform> c: Constants;\n`]
      : []),
    PRELUDE,
    source,
  ].join('');
}

function constantType(value: WebGpuConstant): string {
  if (typeof value === 'number') return 'u32';
  return 'f32' in value ? 'f32' : 'i32';
}

/** Bytes of the constants as `moduleText` declares them. */
export function packConstants(constants: WebGpuConstants): Uint8Array<ArrayBuffer> {
  const values = Object.values(constants);
  const words = new DataView(new ArrayBuffer(4 * values.length));
  for (const [i, value] of values.entries()) {
    if (typeof value === 'number') words.setUint32(4 * i, value, true);
    else if ('f32' in value) words.setFloat32(4 * i, value.f32, true);
    else words.setInt32(4 * i, value.i32, true);
  }
  return new Uint8Array(words.buffer);
}
