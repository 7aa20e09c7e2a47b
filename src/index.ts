/** The public API of `matmamba`. */

export type { Capabilities, DeviceName, OpProfile, WeightStorage } from './backends/backend.ts';
export { resolveModel, type DownloadProgress, type ResolveModelOptions, type ResolvedModel } from './checkpoint/index.ts';
export { TRAINED_LEVELS, type LayerFlags, type WidthOptions, checkDims, dimsOfLevel, widthStep } from './elastic/granularity.ts';
export { ERROR_CODES, type ErrorCode, MatMambaError } from './errors.ts';
export { MatMamba2, type BlockForwardOptions, type CreateOptions } from './models/block.ts';
export type { MambaConfig, MatMamba2Config, MatMamba2VisionConfig, SsmConfig } from './models/config.ts';
export { MatMambaLMHeadModel, type LMForwardOptions } from './models/language-model.ts';
export type { PretrainedOptions } from './models/load.ts';
export type { MemoryReport, SaveModelOptions } from './models/model.ts';
export type { CallOptions, ModelOptions } from './models/runtime.ts';
export { ModelState, type StateSnapshot } from './models/state.ts';
export { MatMamba2Vision, type VisionForwardOptions } from './models/vision-model.ts';
export { type DType, Tensor, type TypedArray, tensor } from './tensor/index.ts';
export {
  type FinishReason,
  type GenerateOptions,
  type GeneratedPiece,
  type Tokenizer,
  gpt2Tokenizer,
  loadTokenizer,
  tokenizerFromJson,
} from './text/index.ts';
