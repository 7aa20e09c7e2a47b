/** The language model's shape: config, parameters by their names, and how a checkpoint's vocabulary is cut to it. */

import type { Checkpoint } from '../checkpoint/index.ts';
import { type MambaConfig, mambaConfig, paddedVocabSize, ssmConfig } from './config.ts';
import type { OpenModel } from './load.ts';
import { mixerShape } from './mixer.ts';
import { type ParameterSet, parameterSet } from './model.ts';
import { linearInit, matrix, normal } from './parameters.ts';
import { type StackShape, hiddenWidth, stackParameters } from './stack.ts';

export const EMBEDDING = 'backbone.embedding.weight';
export const HEAD = 'lm_head.weight';

export interface LanguageDeclaration {
  readonly config: MambaConfig;
  readonly stack: StackShape;
  readonly parameters: ParameterSet;
}

/** Config, shapes and parameters, without weights. @throws OPTION, CONFIG */
export function declareLanguageModel(given: Partial<MambaConfig>): LanguageDeclaration {
  const config = mambaConfig(given);
  const V = paddedVocabSize(config);
  const stack: StackShape = {
    mixer: mixerShape(config.dModel, ssmConfig(config.ssmCfg)),
    nLayer: config.nLayer,
    hidden: hiddenWidth(config.dIntermediate),
    center: !config.rmsNorm,
    eps: 1e-5,
    outScale: Math.sqrt(config.nLayer),
    prefix: 'backbone.',
  };
  const table = matrix(EMBEDDING, V, config.dModel, normal(0.02));
  const head = config.tieEmbeddings ? [] : [matrix(HEAD, V, config.dModel, linearInit(config.dModel))];
  return {
    config,
    stack,
    parameters: parameterSet([table, ...stackParameters(stack), ...head], config.tieEmbeddings ? { [HEAD]: EMBEDDING } : {}),
  };
}

/** Cuts an embedding that was trained with more rows than the vocabulary has (trainers pad it) down to it. */
export function trimVocabulary({ folder, checkpoint }: OpenModel, V: number, warn: (message: string) => void): Checkpoint {
  const entries = new Map(checkpoint.entries);
  for (const name of [EMBEDDING, HEAD]) {
    const entry = entries.get(name);
    const [rows = 0, columns = 0] = entry?.shape ?? [];
    if (!entry || rows <= V) continue;
    warn(`${folder}: ${name} has ${rows} rows, of which the first ${V} are used`);
    entries.set(name, {
      ...entry,
      shape: [V, columns],
      byteLength: (entry.byteLength / rows) * V,
      read: (...range) => entry.read(...range),
    });
  }
  return { ...checkpoint, entries, close: () => checkpoint.close() };
}
