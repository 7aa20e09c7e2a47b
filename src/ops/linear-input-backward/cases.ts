import { type Segment, segmentColumns } from '../../graph/graph.ts';
import type { OpCase } from '../cases.ts';

/** A layer at some width: groups of rows of the full weight, and how many of each the width has. */
export interface LayerCase {
  readonly name: string;
  readonly width: number;
  readonly columns: number;
  readonly groups: readonly number[];
  readonly counts: readonly number[];
}

/** in_proj of head dimensions 3, 12 and 24 at full and nested widths, out_proj on column prefixes; shared with the weight's gradient. */
export const LAYER_CASES: readonly LayerCase[] = [
  { name: 'one column', width: 16, columns: 16, groups: [1], counts: [1] },
  { name: 'odd prefix of rows and columns', width: 6, columns: 40, groups: [24], counts: [18] },
  { name: 'in_proj, P 12, one head', width: 48, columns: 48, groups: [96, 96, 16, 8], counts: [12, 12, 16, 1] },
  { name: 'in_proj, P 3, odd heads', width: 96, columns: 96, groups: [192, 192, 40], counts: [21, 6, 23] },
  { name: 'in_proj, P 24, full', width: 384, columns: 384, groups: [192, 192, 72], counts: [192, 192, 72] },
  { name: 'out_proj, prefix of P 12', width: 36, columns: 192, groups: [96], counts: [96] },
  { name: 'out_proj, more rows than a block', width: 52, columns: 64, groups: [776, 264], counts: [770, 259] },
];
export const LAYER_ROWS = [1, 3, 67, 257];

/** Segments of a layer, the rows of its weight, and the columns of y. */
export function layerShape({ groups, counts }: LayerCase): { segments: readonly Segment[]; rows: number; columns: number } {
  let rows = 0;
  const starts = groups.map((size) => (rows += size) - size);
  const segments = counts.map((count, i) => ({ start: starts[i]!, count }));
  return { segments, rows, columns: segments.length === 1 ? segments[0]!.count : segmentColumns(segments).total };
}

export const linearInputBackwardCases: readonly OpCase[] = LAYER_CASES.flatMap((layer) => {
  const { segments, rows: weightRows, columns } = layerShape(layer);
  return LAYER_ROWS.map((rows) => ({
    name: `${layer.name}, ${rows} x ${layer.width}`,
    operands: {
      dy: { shape: [rows, columns] },
      weight: { shape: [weightRows, layer.columns], fill: { kind: 'normal', scale: 0.1 } },
    },
    attributes: { segments, width: layer.width },
    tolerance: 2e-6,
  }));
});
