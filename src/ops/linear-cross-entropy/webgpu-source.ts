/** WGSL of the head's loss: softmax over rows of logits, and the gradient in their place. */

import { BLOCK, INVOCATION, ROWS_SOURCE } from '../webgpu-rows.ts';
import { MAXIMUM_SOURCE, SOFTMAX_SOURCE, sums } from '../webgpu-sums.ts';

/**
 * A workgroup for a row. loss[row] = log sum exp(logits) - logits[target], 0 for a target outside the vocabulary. With
 * GRADIENT logits become (softmax - (1 - share) onehot - share softmax(taught)) scale[row], 0 for such a target, where
 * taught are logits too, used with TAUGHT. logits, taught: (rows, width); the arena is read as bits, since targets are int32.
 */
export const CROSS_ENTROPY_SOURCE = `
${ROWS_SOURCE}${MAXIMUM_SOURCE}${SOFTMAX_SOURCE}${sums('group_sum', 'f32', BLOCK)}
fn word(i: u32) -> u32 { return arena[i / 4u][i % 4u]; }
fn vector(i: u32) -> vec4<f32> { return bitcast<vec4<f32>>(arena[i]); }

// The largest of a row of numbers, its first 4 at i, and the sum of exp(number - largest).
fn peak(first: u32, lane: u32) -> vec2<f32> {
  var largest = LOWEST;
  var sum = 0.0;
  for (var i = lane; i < c.vectors; i += ${BLOCK}u) {
    let v = vector(first + i);
    let here = largest_of(v, 4u * i, c.width);
    if (here > largest) {
      sum *= exp(largest - here);
      largest = here;
    }
    sum += dot(masked(exp(min(v - largest, vec4<f32>())), 4u * i, c.width), ONES);
  }
  let top = group_max(largest, lane);
  return vec2<f32>(top, group_sum(sum * exp(largest - top), lane));
}

@compute @workgroup_size(${BLOCK})
fn cross_entropy(${INVOCATION}) {
  let row = folded(wid, count);
  if (row >= c.rows) { return; }
  let logits = at(c.logits, c.logitsStride, row, 0u);
  let target_id = word(c.targets + row);
  let counts = target_id < c.width;
  let own = peak(logits, lane);
  var at_target = 0.0;
  if (counts) { at_target = bitcast<f32>(word(4u * logits + target_id)); }
  if (lane < 4u) {
    let value = select(0.0, log(own.y) + own.x - at_target, counts && lane == 0u);
    arena[at(c.loss, c.lossStride, row, 4u * lane)] = bitcast<vec4<u32>>(vec4<f32>(value, 0.0, 0.0, 0.0));
  }
  if (!GRADIENT) { return; }
  var soft = own;
  let taught = at(c.taught, c.logitsStride, row, 0u);
  if (TAUGHT) { soft = peak(taught, lane); }
  // All have read the target's logit before any writes.
  workgroupBarrier();
  let scale = select(0.0, bitcast<f32>(word(c.scale + row * c.scaleStride)), counts);
  let one = scale * (1.0 - select(0.0, c.share, TAUGHT));
  for (var i = lane; i < c.vectors; i += ${BLOCK}u) {
    var v = scale / own.y * exp(min(vector(logits + i) - own.x, vec4<f32>()));
    if (TAUGHT) { v -= scale * c.share / soft.y * exp(min(vector(taught + i) - soft.x, vec4<f32>())); }
    v -= select(vec4<f32>(), vec4<f32>(one), vec4<u32>(4u * i, 4u * i + 1u, 4u * i + 2u, 4u * i + 3u) == vec4<u32>(target_id));
    arena[logits + i] = bitcast<vec4<u32>>(masked(v, 4u * i, c.width));
  }
}
`;
