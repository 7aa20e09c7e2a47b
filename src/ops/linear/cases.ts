import type { Segment } from '../../graph/graph.ts';
import type { OpCase } from '../cases.ts';

const TOLERANCE = 2e-6;
/** Below, at and above the few-rows kernels, and not a multiple of any tile. */
const ROWS = [1, 2, 3, 7, 8, 255, 257];

interface Layer {
  readonly name: string;
  readonly k: number;
  readonly columns: number;
  readonly groups: readonly number[];
  readonly counts: readonly number[];
}

/** in_proj of head dimensions 3, 12 and 24 at full and nested widths, out_proj on column prefixes, odd counts. */
const LAYERS: readonly Layer[] = [
  { name: 'one column', k: 16, columns: 16, groups: [1], counts: [1] },
  { name: 'odd prefix of rows and columns', k: 6, columns: 40, groups: [21], counts: [18] },
  { name: 'in_proj, P 12, one head', k: 48, columns: 48, groups: [96, 96, 16, 8], counts: [12, 12, 16, 1] },
  { name: 'in_proj, P 3, odd heads', k: 96, columns: 96, groups: [192, 192, 40], counts: [21, 21, 23] },
  { name: 'in_proj, P 24, full', k: 384, columns: 384, groups: [192, 192, 72], counts: [192, 192, 72] },
  { name: 'out_proj, prefix of P 12', k: 36, columns: 192, groups: [96], counts: [96] },
  { name: 'out_proj, K 1536', k: 1536, columns: 1536, groups: [54], counts: [54] },
];

function linearCase({ name, k, columns, groups, counts }: Layer, rows: number, bias: boolean): OpCase {
  let start = 0;
  const starts = groups.map((size) => (start += size) - size);
  const segments: Segment[] = counts.map((count, i) => ({ start: starts[i]!, count }));
  return {
    name: `${name}, ${rows} x ${k}${bias ? ', bias' : ''}`,
    operands: {
      x: { shape: [rows, k] },
      weight: { shape: [start, columns], fill: { kind: 'normal', scale: k ** -0.5 } },
      ...(bias ? { bias: { shape: [start] } } : {}),
    },
    attributes: { segments },
    tolerance: TOLERANCE,
  };
}

export const linearCases: readonly OpCase[] = LAYERS.flatMap((layer, i) =>
  ROWS.map((rows, j) => linearCase(layer, rows, (i + j) % 2 === 0)),
);
