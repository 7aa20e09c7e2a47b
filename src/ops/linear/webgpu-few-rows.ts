/**
 * WGSL of the linear map of a few rows, which reads the weight once: a team of lanes shares out the columns of x and sums
 * over rows of the weight, 16 bytes of each at a time.
 */

import type { WebGpuElement } from '../webgpu-kernel.ts';
import { INVOCATION } from '../webgpu-rows.ts';
import { indices, unrolled } from '../webgpu-text.ts';

/** Invocations of a workgroup. */
export const FEW_ROWS_BLOCK = 128;
const BLOCK = FEW_ROWS_BLOCK;
/** Workgroups that a large GPU has room for at once; below that no lane takes several columns. */
const ENOUGH_GROUPS = 1024;
/** Columns of y that a team may take together, so that it reads x once for all of them. */
const MOST_EACH: Readonly<Record<WebGpuElement, number>> = { f32: 1, bf16: 2, f16: 2, i8: 4, i4: 4 };
/** Sums that an invocation has room for. */
const MOST_SUMS = 8;
/** Loads of the weight under way in an invocation. */
const LOADS = 4;

export interface FewRowsPlan {
  readonly rows: number;
  /** Lanes of a team. */
  readonly lanes: number;
  /** Columns of y that a team computes. */
  readonly each: number;
  /** Those of a workgroup, a multiple of 4. */
  readonly columns: number;
}

/** `pieces`: loads that a row of the weight takes. */
export function fewRowsPlan(rows: number, columns: number, pieces: number, element: WebGpuElement): FewRowsPlan {
  const lanes = pieces >= 32 ? 32 : pieces >= 16 ? 16 : 8;
  const teams = BLOCK / lanes;
  let each = 1;
  while (2 * each <= MOST_EACH[element] && 2 * each * rows <= MOST_SUMS && columns / (2 * each * teams) >= ENOUGH_GROUPS)
    each *= 2;
  return { rows, lanes, each, columns: teams * each };
}

/**
 * What becomes of x before it is multiplied: WGSL `stage(lane, is_first)`, called by every workgroup in whole, `is_first` in one of them,
 * and `x_of(row, quad)`, four columns of what the product reads. With `aside` one more workgroup runs `aside(lane)` instead.
 */
export interface FewRowsStage {
  readonly source: string;
  readonly aside: boolean;
}

const UNSTAGED = `
fn x_of(row: u32, quad: u32) -> vec4<f32> { return arena[(c.x + row * c.xStride) / 4u + quad]; }
`;

/**
 * Needs `weightPieces` of `weight`, in pieces of `pieceColumns`, and `store_row`. With a `subgroupSize` lanes add up by
 * shuffles as far as a subgroup goes, else through workgroup memory alone. `groupSize`: columns that share a scale.
 */
export function fewRowsSource(
  plan: FewRowsPlan,
  pieceColumns: number,
  groupSize: number,
  subgroupSize: number,
  stage?: FewRowsStage,
): string {
  const { rows, lanes, each, columns } = plan;
  const quads = pieceColumns / 4;
  const loads = Math.max(1, LOADS / each);
  const together = Math.min(lanes, Math.max(1, subgroupSize));
  /** Sums of a column that meet in workgroup memory. */
  const parts = lanes / together;
  const masks = indices(Math.log2(together)).map((i) => 2 ** i);
  const sums = indices(rows * each).map((i) => ({ m: Math.floor(i / each), e: i % each, name: `sum${i}` }));
  const scalesPieces = groupSize % pieceColumns === 0;
  const scale = (e: number, q: string): string => `weight_inner(row${e}, ${pieceColumns}u * i + ${q})`;
  return `${stage?.source ?? UNSTAGED}
var<workgroup> cells: array<f32, ${rows * columns * parts}>;

@compute @workgroup_size(${BLOCK})
fn few_rows(${INVOCATION}) {
  let first = ${columns}u * folded(wid, count);
${stage?.aside ? `  if (first == c.asideAt) { aside(lane); }\n` : ''}  if (first >= c.columns) { return; }
  let lane_of_team = lane % ${lanes}u;
  let own = ${each}u * (lane / ${lanes}u);
${unrolled(
  each,
  (e) => `  var row${e} = ELSEWHERE;
  if (first + own + ${e}u < c.columns) { row${e} = columns[(first + own + ${e}u) / 4u][(first + own + ${e}u) % 4u]; }
`,
)}${sums
    .map(
      ({ name }) => `  var ${name} = 0.0;
`,
    )
    .join('')}
  for (var base = 0u; base < c.pieces; base += ${loads * lanes}u) {
    let begin = base + lane_of_team;
${unrolled(loads, (u) =>
  unrolled(
    each,
    (e) => `    var w${u}_${e} = weight_Piece();
    if (row${e} < PADDING && begin + ${u * lanes}u < c.pieces) { w${u}_${e} = weight_piece(row${e}, begin + ${u * lanes}u); }
`,
  ),
)}${stage ? '    // Weights are on their way.\n    if (base == 0u) { stage(lane, first == 0u); }\n' : ''}${unrolled(
    loads,
    (u) => `    {
      let i = min(begin + ${u * lanes}u, c.pieces - 1u);
${unrolled(
  each,
  (e) => `      let s${e} = ${scalesPieces ? scale(e, '0u') : '1.0'};
`,
)}${unrolled(quads * each, (at) => {
      const [q, e] = [Math.floor(at / each), at % each];
      return `      let v${q}_${e} = weight_four(w${u}_${e}, ${q}u)${scalesPieces ? '' : ` * ${scale(e, `${4 * q}u`)}`};\n`;
    })}${unrolled(
      rows,
      (m) =>
        `${unrolled(quads, (q) => `      let x${m}_${q} = x_of(${m}u, ${quads}u * i + ${q}u);\n`)}${sums
          .filter((sum) => sum.m === m)
          .map(({ e, name }) => {
            const terms = indices(quads).map((q) => `dot(v${q}_${e}, x${m}_${q})`);
            return `      ${name} += s${e} * (${terms.join(' + ')});
`;
          })
          .join('')}`,
    )}    }
`,
  )}  }
${sums
  .map(({ name }) =>
    masks
      .map(
        (mask) => `  ${name} += subgroupShuffleXor(${name}, ${mask}u);
`,
      )
      .join(''),
  )
  .join('')}  if (lane_of_team % ${together}u == 0u) {
    let cell = ${parts}u * own + lane_of_team / ${together}u;
${sums
  .map(
    ({ m, e, name }) => `    cells[cell + ${parts * (m * columns + e)}u] = ${name};
`,
  )
  .join('')}  }
  workgroupBarrier();
${
  parts === 1
    ? ''
    : `  for (var i = lane; i < ${rows * columns}u; i += ${BLOCK}u) {
    var sum = 0.0;
    for (var j = 0u; j < ${parts}u; j++) { sum += cells[${parts}u * i + j]; }
    cells[${parts}u * i] = sum;
  }
  workgroupBarrier();
`
}  for (var i = 4u * lane; i < ${rows * columns}u; i += ${4 * BLOCK}u) {
    let column = first + i % ${columns}u;
    let sum = vec4<f32>(cells[${parts}u * i], cells[${parts}u * i + ${parts}u], cells[${parts}u * i + ${2 * parts}u], cells[${parts}u * i + ${3 * parts}u]);
    if (column < c.columns) { store_row(i / ${columns}u, column, sum); }
  }
}
`;
}
