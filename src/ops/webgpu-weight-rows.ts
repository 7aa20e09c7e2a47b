/** How WebGPU kernels read a part of a matrix, whatever its elements are: float32 comes out. */

import {
  type StorageType,
  type WebGpuBinding,
  type WebGpuConstants,
  type WebGpuElement,
  type WebGpuWeight,
  type WeightPart,
  reads,
} from './webgpu-kernel.ts';

const WIDENED: Readonly<Record<WebGpuElement, { readonly type: StorageType; readonly body: string }>> = {
  f32: { type: 'vec4<f32>', body: 'return NAME[i];' },
  f16: { type: 'vec2<u32>', body: 'let v = NAME[i]; return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));' },
  bf16: {
    type: 'vec2<u32>',
    body: `let v = NAME[i];
  return bitcast<vec4<f32>>(vec4<u32>(v.x << 16u, v.x & 0xffff0000u, v.y << 16u, v.y & 0xffff0000u));`,
  },
  i8: {
    type: 'u32',
    body: `let v = bitcast<i32>(NAME[i]);
  return vec4<f32>((vec4<i32>(v) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));`,
  },
  i4: {
    type: 'u32',
    body: `let v = bitcast<i32>(NAME[i >> 1u] >> ((i & 1u) << 4u));
  return vec4<f32>((vec4<i32>(v) << vec4<u32>(28u, 24u, 20u, 16u)) >> vec4<u32>(28u));`,
  },
};

/** What a dispatch takes over that reads a part of a matrix: bindings (one, int8 and int4 two), constants and source. */
export interface WeightReader {
  readonly bindings: readonly WebGpuBinding[];
  readonly constants: WebGpuConstants;
  readonly source: string;
}

/**
 * Scales of int8 and int4, of (row of the part, column, a multiple of 4): `NAME_scale` is that of four columns, 1 in the other dtypes.
 * It is `NAME_inner(row, column)` times `NAME_outer(row)`: a scale that a row has to itself may be multiplied once, with
 * what the whole row came to.
 */
function scaleSource(name: string, { groupSize, groups }: WebGpuWeight): string {
  // Software adapters divide slowly.
  const shift = Math.log2(groupSize);
  const group = Number.isInteger(shift) ? `(column >> ${shift}u)` : `column / ${groupSize}u`;
  return `
fn ${name}_inner(row: u32, column: u32) -> f32 { return ${groups > 1 ? `${name}_scales[row * c.${name}Groups + ${group}]` : '1.0'}; }
fn ${name}_outer(row: u32) -> f32 { return ${groups === 1 ? `${name}_scales[row]` : '1.0'}; }
fn ${name}_scale(row: u32, column: u32) -> f32 { return ${groups === 1 ? `${name}_outer(row)` : `${name}_inner(row, column)`}; }
`;
}

function bindingsOf(name: string, { values, scales }: WeightPart, type: StorageType): WebGpuBinding[] {
  return [reads(name, values, type), ...(scales ? [reads(`${name}_scales`, scales)] : [])];
}

const constantsOf = (name: string, { stride, groups }: WebGpuWeight): WebGpuConstants => ({
  [`${name}Stride`]: stride,
  [`${name}Groups`]: groups,
});

/**
 * Reading four columns at a time, whatever they are stored in: WGSL functions of (row of the part, column, a multiple of 4)
 * `NAME_at` gives them as float32, `NAME_raw` the same without their scale (see `scaleSource`).
 */
export function weightRows(name: string, weight: WebGpuWeight, part: WeightPart): WeightReader {
  const { type, body } = WIDENED[weight.element];
  const scaled = weight.groups > 0 ? `${name}_raw(row, column) * ${name}_scale(row, column)` : `${name}_raw(row, column)`;
  const source = `
fn ${name}_raw(row: u32, column: u32) -> vec4<f32> {
  let i = (row * c.${name}Stride + column) >> 2u;
  ${body.replaceAll('NAME', name)}
}
fn ${name}_at(row: u32, column: u32) -> vec4<f32> { return ${scaled}; }
`;
  return {
    bindings: bindingsOf(name, part, type),
    constants: constantsOf(name, weight),
    source: scaleSource(name, weight) + source,
  };
}

/** What lies in 16 bytes (int4: in 8, as rows are multiples of these alone): columns, and those from 4 `q` on of `v`. */
const PIECES: Readonly<Record<WebGpuElement, { readonly columns: number; readonly type: StorageType; readonly four: string }>> = {
  f32: { columns: 4, type: 'vec4<u32>', four: 'return bitcast<vec4<f32>>(v);' },
  f16: {
    columns: 8,
    type: 'vec4<u32>',
    four: 'return vec4<f32>(unpack2x16float(v[2u * q]), unpack2x16float(v[2u * q + 1u]));',
  },
  bf16: {
    columns: 8,
    type: 'vec4<u32>',
    four: `let a = v[2u * q];
  let b = v[2u * q + 1u];
  return bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));`,
  },
  i8: {
    columns: 16,
    type: 'vec4<u32>',
    four: 'return vec4<f32>((vec4<i32>(bitcast<i32>(v[q])) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));',
  },
  i4: {
    columns: 16,
    type: 'vec2<u32>',
    four: `let w = bitcast<i32>(v[q >> 1u] >> ((q & 1u) << 4u));
  return vec4<f32>((vec4<i32>(w) << vec4<u32>(28u, 24u, 20u, 16u)) >> vec4<u32>(28u));`,
  },
};

/**
 * Reading as much as a lane can in one load: `NAME_piece(row, i)` is the i-th piece of `columns` columns, of the alias
 * `NAME_Piece`, and `NAME_four(piece, q)` its columns from 4 q on as float32 without their scale.
 */
export function weightPieces(name: string, weight: WebGpuWeight, part: WeightPart): WeightReader & { readonly columns: number } {
  const { columns, type, four } = PIECES[weight.element];
  const source = `
alias ${name}_Piece = ${type};
fn ${name}_piece(row: u32, i: u32) -> ${name}_Piece { return ${name}[row * (c.${name}Stride / ${columns}u) + i]; }
fn ${name}_four(v: ${name}_Piece, q: u32) -> vec4<f32> {
  ${four}
}
`;
  return {
    bindings: bindingsOf(name, part, type),
    constants: constantsOf(name, weight),
    source: scaleSource(name, weight) + source,
    columns,
  };
}
