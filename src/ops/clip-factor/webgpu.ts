/** The clipping factor and the norm from the sum of squares: one number each. */

import { paddedColumns } from '../../graph/graph.ts';
import { type WebGpuKernel, arena } from '../webgpu-kernel.ts';

/**
 * settings[0]: the largest norm. A norm that is not finite gives the factor 0; that is seen in the bits, since WGSL may
 * take floats for finite. The outputs' padding is zeroed.
 */
const SOURCE = `
@compute @workgroup_size(64)
fn clip_factor(@builtin(local_invocation_index) lane: u32) {
  if (lane >= c.columns) { return; }
  let bits = arena[c.squares];
  let finite = (bits & 0x7f800000u) != 0x7f800000u;
  var factor = 0u;
  var norm = 0u;
  if (lane == 0u) {
    /* What is not finite stays so. */
    norm = bits;
    if (finite) {
      let length = sqrt(bitcast<f32>(bits));
      norm = bitcast<u32>(length);
      factor = bitcast<u32>(min(1.0, bitcast<f32>(arena[c.settings]) / (length + 1e-6)));
    }
  }
  arena[c.factor + lane] = factor;
  arena[c.norm + lane] = norm;
}
`;

export const clipFactorWebGpu: WebGpuKernel = {
  dispatches(node) {
    const offset = (name: string): number => node.buffer(name).offset;
    return [
      {
        kind: 'dispatch',
        source: SOURCE,
        entry: 'clip_factor',
        workgroups: [1],
        bindings: [arena('u32')],
        constants: {
          squares: offset('squares'),
          settings: offset('settings'),
          factor: offset('factor'),
          norm: offset('norm'),
          columns: paddedColumns(node.buffer('factor').width),
        },
      },
    ];
  },
};
