/** Table look-up: y[t] = weight[ids[t]], rows x D from a (V, D) table of any element; zeros for ids outside it. */

import type { WebGpuKernel } from '../webgpu-kernel.ts';
import { rowVectors } from '../webgpu-rows.ts';
import { weightRows } from '../webgpu-weight-rows.ts';

/** The part that holds a row writes it; the first one also writes zeros for ids outside the table. */
const BODY = `
  let id_at = c.ids + row;
  let id = bitcast<u32>(arena[id_at / 4u][id_at % 4u]);
  let here = id >= c.firstRow && id < c.firstRow + c.partRows;
  if (!here && (c.firstRow > 0u || id < c.vocabulary)) { return; }
  var values = vec4<f32>();
  if (here) { values = table_at(id - c.firstRow, column); }
  arena[at(c.y, c.yStride, row, column)] = masked(values, column, c.width);`;

export const embeddingWebGpu: WebGpuKernel = {
  dispatches(node) {
    const weight = node.weight('weight');
    return weight.parts.map((part) => {
      const { source, bindings, constants } = weightRows('table', weight, part);
      return rowVectors({
        entry: 'embedding',
        node,
        operands: ['y'],
        y: node.buffer('y'),
        body: BODY,
        source,
        bindings,
        constants: {
          ...constants,
          ids: node.buffer('ids').offset,
          vocabulary: weight.shape[0]!,
          firstRow: part.firstRow,
          partRows: part.rows,
        },
      });
    });
  },
};
