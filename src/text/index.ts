/** Text in and out: tokenizers, sampling, stop strings and the generation loop. */
export { type Tokenizer, loadTokenizer, tokenizerFromJson } from './tokenizer.ts';
export { defaultTokenizerFor, gpt2Tokenizer } from './gpt2.ts';
export { StreamDecoder } from './stream-decoder.ts';
export { SAMPLER_OPTION_KEYS, Sampler, type SamplerOptions } from './sampler.ts';
export { StopMatcher, type StopResult } from './stop.ts';
export {
  type FinishReason,
  GENERATE_OPTION_KEYS,
  type GenerateOptions,
  type DeviceDraw,
  type GeneratedPiece,
  type NextTokenModel,
  generate,
} from './generate.ts';
