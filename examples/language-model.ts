/** The language model: one set of weights, every size; text from the model in this repository. */

import { MatMambaLMHeadModel, tensor } from 'matmamba';

export async function languageModelExample(batch = 8, length = 1024, nLayer = 24, dModel = 768): Promise<(readonly number[])[]> {
  await using model = await MatMambaLMHeadModel.create({ nLayer, dModel });
  const ids = tensor(
    Int32Array.from({ length: batch * length }, (_, i) => (i * 7919) % model.vocabSize),
    [batch, length],
  );

  const { logits } = await model.forward(ids);
  const { logits: half } = await model.forward(ids, { mrlLevel: 2 });

  for (const { mixer } of model.backbone.layers) {
    mixer.mixnmatch = true;
    mixer.mixnmatchDims = dModel / 2;
  }
  const { logits: mixed } = await model.forward(ids);

  // Trained weights: await MatMambaLMHeadModel.fromPretrained('scaledfoundations/MatMamba-LM-1.4B-FineWeb', { dtype: 'bf16' })
  return [logits, half, mixed].map(({ shape }) => shape);
}

/** Writes text with a trained model at a chosen level. */
export async function storyExample(folder: string, mrlLevel: number): Promise<string> {
  await using model = await MatMambaLMHeadModel.fromPretrained(folder);
  let story = '';
  for await (const piece of model.generate('The old man looked at the sea and said', {
    maxNewTokens: 20,
    temperature: 0,
    mrlLevel,
  })) {
    story += piece.text;
  }
  return story;
}
