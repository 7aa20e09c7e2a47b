/** `matmamba/browser`: an engine in a worker. What it runs is the same library as everywhere. */

export {
  Engine,
  EngineLanguageModel,
  EngineVisionModel,
  type EngineCallOptions,
  type EnginePort,
  type OpenOptions,
  type TimedPiece,
} from './engine.ts';
export type {
  DeviceReport,
  EngineFineTuneOptions,
  EngineGenerateOptions,
  EngineModelOptions,
  EngineProgress,
  LanguageInfo,
  VisionInfo,
} from './protocol.ts';
