/** Configs of the published models and of their sizes, by the names that the command line takes. */

import type { MambaConfig, MatMamba2VisionConfig } from './config.ts';

/** A language model's shape; its vocabulary is GPT-NeoX's 50,277 padded to 50,280, head and embedding tied. */
function language(nLayer: number, dModel: number): { readonly kind: 'language'; readonly config: Partial<MambaConfig> } {
  return { kind: 'language', config: { nLayer, dModel, vocabSize: 50277 } };
}

/** A vision model's shape: 224 x 224 pixels in patches of 16, the 1,000 classes of ImageNet-1k. */
function vision(nLayer: number, dModel: number): { readonly kind: 'vision'; readonly config: Partial<MatMamba2VisionConfig> } {
  return { kind: 'vision', config: { nLayer, dModel, imageSize: 224, patchSize: 16, nClasses: 1000 } };
}

export const PRESETS = {
  'lm-130m': language(24, 768),
  'lm-370m': language(48, 1024),
  'lm-790m': language(48, 1536),
  'lm-1.4b': language(48, 2048),
  'vision-35m': vision(20, 512),
  'vision-135m': vision(20, 1024),
} as const;

export type PresetName = keyof typeof PRESETS;
export const PRESET_NAMES = Object.keys(PRESETS) as PresetName[];

export function isPresetName(name: string): name is PresetName {
  return Object.hasOwn(PRESETS, name);
}
