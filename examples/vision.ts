/** The vision model: patches and a class token at the end through nested layers. */

import { MatMamba2Vision, tensor } from 'matmamba';

export async function visionExample(batch = 8, dModel = 1024, nLayer = 20, imageSize = 224): Promise<(readonly number[])[]> {
  await using model = await MatMamba2Vision.create({ dModel, nLayer, nClasses: 1000, patchSize: 16, imageSize });
  const images = tensor(
    Float32Array.from({ length: batch * 3 * imageSize ** 2 }, (_, i) => Math.sin(i)),
    [batch, 3, imageSize, imageSize],
  );

  const y1 = await model.forward(images);
  const y2 = await model.forward(images, { mrlLevel: 2 });

  for (const { mixer } of model.layers) {
    mixer.mixnmatch = true;
    mixer.mixnmatchDims = dModel / 4;
  }
  const { logits, features } = await model.forward(images, { returnFeatures: true });

  // Trained weights: await MatMamba2Vision.fromPretrained('scaledfoundations/MatMamba-Vision-135M-ImageNet')
  return [y1, y2, logits, features].map(({ shape }) => shape);
}
