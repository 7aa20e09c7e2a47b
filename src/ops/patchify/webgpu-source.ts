/**
 * Images (B, C, H, W), stored as B*C*H rows of W, against patches (B, H/p * W/p, C*p*p). Both directions go through their
 * output 4 columns at a time; where p is a multiple of 4 these lie together in the input, else they are gathered.
 */

import type { WebGpuBuffer, WebGpuDispatch, WebGpuNode } from '../webgpu-kernel.ts';
import { rowVectors } from '../webgpu-rows.ts';

/** place(row, column): where a number of the output lies in the input. */
const PATCHIFY = `
fn place(row: u32, column: u32) -> u32 {
  let line = row / c.across;
  let image = line / c.down;
  let channel = column / (c.size * c.size);
  let inside = column % (c.size * c.size);
  let line_of_image = (image * c.channels + channel) * c.height + (line % c.down) * c.size + inside / c.size;
  return c.x + line_of_image * c.xStride + (row % c.across) * c.size + inside % c.size;
}
`;

const PATCHIFY_BACKWARD = `
fn place(row: u32, column: u32) -> u32 {
  let plane = row / c.height;
  let y = row % c.height;
  let cell = ((plane / c.channels) * c.down + y / c.size) * c.across + column / c.size;
  return c.dy + cell * c.dyStride + ((plane % c.channels) * c.size + y % c.size) * c.size + column % c.size;
}
`;

/** The output's columns that pad it read the input's last ones, and are zeroed. */
function body(output: string): string {
  return `
  var value: vec4<f32>;
  if (c.size % 4u == 0u) {
    value = arena[place(row, min(column, c.width - 4u)) / 4u];
  } else {
    for (var i = 0u; i < 4u; i++) {
      let source = place(row, min(column + i, c.width - 1u));
      value[i] = arena[source / 4u][source % 4u];
    }
  }
  arena[at(c.${output}, c.${output}Stride, row, column)] = masked(value, column, c.width);`;
}

/** Images to patches (x to y), or back (dy to dx). */
export function patchifyDispatch(node: WebGpuNode, images: WebGpuBuffer, size: number, backward: boolean): WebGpuDispatch {
  const [, channels, height, width] = images.shape as [number, number, number, number];
  const [input, output] = backward ? (['dy', 'dx'] as const) : (['x', 'y'] as const);
  return rowVectors({
    entry: backward ? 'patchify_backward' : 'patchify',
    node,
    operands: [input, output],
    y: node.buffer(output),
    source: backward ? PATCHIFY_BACKWARD : PATCHIFY,
    body: body(output),
    constants: { channels, height, size, across: width / size, down: height / size },
  });
}
