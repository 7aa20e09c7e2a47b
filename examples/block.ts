/** The block: a Mamba-2 layer that runs at any of its nested widths. */

import { MatMamba2, tensor } from 'matmamba';

export async function blockExample(batch = 8, length = 1024, dModel = 512): Promise<(readonly number[])[]> {
  await using block = await MatMamba2.create({ dModel, dState: 128 });
  const x = tensor(
    Float32Array.from({ length: batch * length * dModel }, (_, i) => Math.sin(i)),
    [batch, length, dModel],
  );

  // Without options the block is a regular Mamba-2 block.
  const y1 = await block.forward(x);

  // A level of 2 uses dModel / 2 dims inside; the shape stays (B, T, D).
  const y2 = await block.forward(x, { mrlLevel: 2 });

  // Any number of dims that makes whole heads: for this call, or until the flag is off again.
  const y3 = await block.forward(x, { mixnmatchDims: 64 });
  block.mixnmatch = true;
  block.mixnmatchDims = 64;
  const y4 = await block.forward(x);
  block.mixnmatch = false;

  return [y1, y2, y3, y4].map(({ shape }) => shape);
}
