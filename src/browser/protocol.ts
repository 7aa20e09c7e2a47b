/**
 * What page and engine say to each other. Every request has a number; the engine answers it with any number of events
 * and one end. Nothing is shared: arrays are copied, or moved.
 */

import type { Capabilities, DeviceName, ModelDType } from '../backends/backend.ts';
import type { WidthOptions } from '../elastic/granularity.ts';
import type { ErrorCode } from '../errors.ts';
import type { MambaConfig, MatMamba2VisionConfig } from '../models/config.ts';
import type { ModelSource } from '../models/load.ts';
import type { MemoryReport } from '../models/model.ts';
import type { GenerateOptions, GeneratedPiece } from '../text/index.ts';
import type { FineTuneOptions } from '../train/fine-tune.ts';
import type { StepRecord } from '../train/trainer.ts';

/** Where and how an engine holds a model. */
export interface EngineModelOptions {
  readonly device?: DeviceName;
  readonly dtype?: ModelDType;
  /** Threads of the CPU backend; one where the page is not cross-origin isolated. */
  readonly threads?: number;
}

export interface EngineProgress {
  /** The file that is being fetched; undefined while weights go to the device. */
  readonly file?: string;
  readonly loadedBytes: number;
  /** 0 while the server has not said. */
  readonly totalBytes: number;
  /** The server has another version of the file than the one that was kept, or begun: it is fetched anew. */
  readonly changed?: boolean;
}

export interface ModelInfo {
  readonly kind: 'language' | 'vision';
  /** Number of the model in its engine. */
  readonly model: number;
  readonly dModel: number;
  readonly nLayer: number;
  /** Smallest dims of a layer, and the step between two widths. */
  readonly widthStep: number;
  readonly parameterCount: number;
  /** Parameters that run, and their bytes as they are stored. */
  readonly parameters: Cost;
  readonly bytes: Cost;
  readonly dtype: ModelDType;
  readonly capabilities: Capabilities;
  readonly memory: MemoryReport;
}

/** What a size costs, which grows with the widths of the layers: fixed + perStep * (steps of all layers). */
export interface Cost {
  readonly fixed: number;
  readonly perStep: number;
}

export interface LanguageInfo extends ModelInfo {
  readonly kind: 'language';
  readonly config: MambaConfig;
}

export interface VisionInfo extends ModelInfo {
  readonly kind: 'vision';
  readonly config: MatMamba2VisionConfig;
}

/** Options of generation that can be sent. */
export type EngineGenerateOptions = Omit<GenerateOptions, 'signal' | 'tokenizer'>;

/** Options of fine-tuning that can be sent. */
export type EngineFineTuneOptions = Omit<FineTuneOptions, 'signal' | 'onStep'>;

/** A device and whether it can be used here; if not, why. */
export interface DeviceReport {
  readonly device: DeviceName;
  readonly usable: boolean;
  /** The device in a few words, or the reason why it cannot be used. */
  readonly summary: string;
  /** What models can compute in there; empty where it cannot be used. */
  readonly dtypes: readonly ModelDType[];
}

/** The requests by name: what is given, what events come, what is the result. */
export interface Requests {
  devices: { given: object; event: never; result: readonly DeviceReport[] };
  openLanguage: { given: { source: ModelSource; options: EngineModelOptions }; event: EngineProgress; result: LanguageInfo };
  openVision: {
    given: { source: string | { config: Partial<MatMamba2VisionConfig>; seed: number }; options: EngineModelOptions };
    event: EngineProgress;
    result: VisionInfo;
  };
  generate: {
    given: { model: number; prompt: string | readonly number[]; options: EngineGenerateOptions };
    event: GeneratedPiece & { readonly ms: number };
    result: MemoryReport;
  };
  /** Mean cross-entropy in nats of `ids[1..]`, each from those before it; windows of `length` tokens. */
  loss: { given: { model: number; ids: readonly number[]; length: number; width: WidthOptions }; event: never; result: number };
  /** Trains the model on a text; its code is loaded when this is first asked for. */
  fineTune: {
    given: { model: number; text: string | ArrayLike<number>; options: EngineFineTuneOptions };
    event: StepRecord;
    result: null;
  };
  /** What `savePretrained` would write, by name. */
  files: { given: { model: number }; event: never; result: Readonly<Record<string, Blob>> };
  classify: {
    given: { model: number; pixels: Float32Array<ArrayBuffer>; width: WidthOptions };
    event: never;
    result: { readonly scores: Float32Array<ArrayBuffer>; readonly ms: number };
  };
  memory: { given: { model: number }; event: never; result: MemoryReport };
  dispose: { given: { model: number }; event: never; result: null };
  /** Bytes of models that are kept on this device, by URL; with `clear` they are removed first. */
  stored: { given: { clear: boolean }; event: never; result: readonly { readonly url: string; readonly bytes: number }[] };
}

export type RequestName = keyof Requests;

/** From the page. */
export type ToEngine =
  | { readonly id: number; readonly name: RequestName; readonly given: unknown }
  | { readonly id: number; readonly abort: true };

/** An error as it travels; it becomes a `MatMambaError` again. */
export interface SentError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string | undefined;
}

/** From the engine. */
export type FromEngine =
  | { readonly id: number; readonly event: unknown }
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: SentError };
