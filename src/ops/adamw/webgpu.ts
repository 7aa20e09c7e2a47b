/** AdamW over the float32 buffers of one parameter: weight, gradient and both moments. */

import { type WebGpuKernel, arena, fold, writes } from '../webgpu-kernel.ts';
import { BLOCK, INVOCATION } from '../webgpu-rows.ts';
import { partFloats } from '../webgpu-parameters.ts';

/** Vectors of 4 floats that an invocation updates. */
const VECTORS = 4;

/** settings: lr, beta1, beta2, eps, weightDecay, correction1, correction2. Padding of the buffers stays zero. */
const SOURCE = `
@compute @workgroup_size(${BLOCK})
fn adamw(${INVOCATION}) {
  let factor = arena[c.factor];
  if (factor == 0.0) { return; }
  let lr = arena[c.settings];
  let beta1 = arena[c.settings + 1u];
  let beta2 = arena[c.settings + 2u];
  let eps = arena[c.settings + 3u];
  let first_rest = (1.0 - beta1) * factor;
  let second_rest = (1.0 - beta2) * factor * factor;
  let rate = lr / arena[c.settings + 5u];
  let inverse = 1.0 / sqrt(arena[c.settings + 6u]);
  var keep = 1.0;
  if (c.decay != 0u) { keep = 1.0 - lr * arena[c.settings + 4u]; }
  let first = folded(wid, count) * ${VECTORS * BLOCK}u + lane;
  for (var k = 0u; k < ${VECTORS}u; k++) {
    let i = first + k * ${BLOCK}u;
    if (i >= c.vectors) { return; }
    let g = gradient[i];
    let m = beta1 * moment[i] + first_rest * g;
    let v = beta2 * square[i] + second_rest * (g * g);
    weight[i] = keep * weight[i] - rate * (m / (sqrt(v) * inverse + eps));
    moment[i] = m;
    square[i] = v;
    gradient[i] = vec4<f32>();
  }
}
`;

export const adamwWebGpu: WebGpuKernel = {
  dispatches(node) {
    const weight = node.weight('weight');
    return weight.parts.map((part, i) => {
      const vectors = Math.ceil(partFloats(weight, part) / 4);
      const buffer = (name: string, operand: string) => writes(name, node.weight(operand).parts[i]!.values, 'vec4<f32>');
      return {
        kind: 'dispatch',
        source: SOURCE,
        entry: 'adamw',
        workgroups: fold(Math.ceil(vectors / (VECTORS * BLOCK))),
        bindings: [
          arena(),
          buffer('weight', 'weight'),
          buffer('gradient', 'gradient'),
          buffer('moment', 'dM'),
          buffer('square', 'dV'),
        ],
        constants: {
          factor: node.buffer('factor').offset,
          settings: node.buffer('settings').offset,
          vectors,
          decay: node.flag('decay') ? 1 : 0,
        },
      };
    });
  },
};
