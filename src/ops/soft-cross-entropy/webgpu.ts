/** WebGPU kernel of the soft cross-entropy: a workgroup for a row, read from memory once and from the cache after that. */

import { paddedColumns } from '../../graph/graph.ts';
import { type WebGpuKernel, arena, fold, rowConstants } from '../webgpu-kernel.ts';
import { BLOCK, INVOCATION, ROWS_SOURCE } from '../webgpu-rows.ts';
import { MAXIMUM_SOURCE, SOFTMAX_SOURCE, sums } from '../webgpu-sums.ts';

/**
 * With m the largest logit and s = sum of exp(logits - m): loss = mass log s - sum of targets (logits - m),
 * dLogits = (exp(logits - m) mass / s - targets) scale. logits, targets, dLogits: (rows, width), loss, scale: (rows, 1).
 */
const SOURCE = `
@compute @workgroup_size(${BLOCK})
fn soft_cross_entropy(${INVOCATION}) {
  let row = folded(wid, count);
  if (row >= c.rows) { return; }
  var largest = LOWEST;
  for (var i = lane; i < c.vectors; i += ${BLOCK}u) {
    largest = max(largest, largest_of(arena[at(c.logits, c.logitsStride, row, 4u * i)], 4u * i, c.width));
  }
  largest = group_max(largest, lane);
  // Sums of exponentials, of targets, and of targets times logits.
  var total = vec4<f32>();
  for (var i = lane; i < c.vectors; i += ${BLOCK}u) {
    let shifted = min(arena[at(c.logits, c.logitsStride, row, 4u * i)] - largest, vec4<f32>());
    let targets = masked(arena[at(c.targets, c.targetsStride, row, 4u * i)], 4u * i, c.width);
    let powers = masked(exp(shifted), 4u * i, c.width);
    total += vec4<f32>(dot(powers, ONES), dot(targets, ONES), dot(targets, shifted), 0.0);
  }
  total = row_sums(total, lane);
  if (lane < 4u) {
    let value = total.y * log(total.x) - total.z;
    arena[at(c.loss, c.lossStride, row, 4u * lane)] = vec4<f32>(select(0.0, value, lane == 0u), 0.0, 0.0, 0.0);
  }
  let factor = arena[at(c.scale, c.scaleStride, row, 0u)].x;
  let share = total.y / total.x * factor;
  for (var i = lane; i < c.vectors; i += ${BLOCK}u) {
    let shifted = min(arena[at(c.logits, c.logitsStride, row, 4u * i)] - largest, vec4<f32>());
    let targets = arena[at(c.targets, c.targetsStride, row, 4u * i)];
    let gradient = share * exp(shifted) - factor * targets;
    arena[at(c.dLogits, c.dLogitsStride, row, 4u * i)] = masked(gradient, 4u * i, c.width);
  }
}
`;

export const softCrossEntropyWebGpu: WebGpuKernel = {
  dispatches(node) {
    const { rows, width } = node.buffer('logits');
    return [
      {
        kind: 'dispatch',
        source: ROWS_SOURCE + MAXIMUM_SOURCE + SOFTMAX_SOURCE + sums('row_sums', 'vec4<f32>', BLOCK) + SOURCE,
        entry: 'soft_cross_entropy',
        workgroups: fold(rows),
        bindings: [arena('vec4<f32>')],
        constants: {
          ...rowConstants(node, 'logits', 'targets', 'scale', 'loss', 'dLogits'),
          rows,
          width,
          vectors: paddedColumns(width) / 4,
        },
      },
    ];
  },
};
