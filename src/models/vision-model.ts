/** The MatMamba vision model: patches and a class token through the stack of nested layers, pooled and classified. */

import type { JsonObject } from '../checkpoint/index.ts';
import { type LayerFlags, type WidthOptions, WIDTH_OPTION_KEYS, resolveWidths } from '../elastic/granularity.ts';
import { refuseUnknownKeys, throwIfAborted } from '../errors.ts';
import type { Graph, Sym } from '../graph/graph.ts';
import { linear, patchify, pool, softCrossEntropy, visionTokens } from '../ops/index.ts';
import { Tensor } from '../tensor/tensor.ts';
import { CREATE_OPTION_KEYS, type CreateOptions } from './block.ts';
import { floatInput } from './call.ts';
import { type MatMamba2VisionConfig, VISION_DEFAULTS, configFromJson, configToJson, ssmConfig, visionConfig } from './config.ts';
import { type ModelSource, type PretrainedOptions, configOf, openModel, orClose, uploadCheckpoint } from './load.ts';
import { type TrainingInputs, mixerShape } from './mixer.ts';
import { Model, type ParameterSet, parameterSet } from './model.ts';
import { type ParameterDeclaration, linearInit, matrix, normal, uniform, vector, zeros } from './parameters.ts';
import { type CallOptions, CALL_OPTION_KEYS, ModelRuntime } from './runtime.ts';
import { type StackShape, hiddenWidth, stackParameters, traceStack } from './stack.ts';
import { type TrainingShape, traceBackward, trainingInputs } from './training.ts';
import { randomWeights } from './weight-sources.ts';

export interface VisionForwardOptions extends WidthOptions, CallOptions {
  /** Also give the pooled features (B, D) that the head reads. */
  readonly returnFeatures?: boolean | undefined;
}

const CHANNELS = 3;

interface Declared {
  readonly config: MatMamba2VisionConfig;
  readonly stack: StackShape;
  readonly parameters: ParameterSet;
}

export class MatMamba2Vision extends Model {
  readonly config: MatMamba2VisionConfig;
  /** The layers' own widths, used when a call names none. */
  readonly layers: readonly { readonly mixer: LayerFlags }[];
  /** Names of the classes, saved beside the weights as `labels.json`. */
  labels: readonly string[] | undefined;
  readonly #stack: StackShape;

  private constructor({ config, stack, parameters }: Declared, runtime: ModelRuntime) {
    super(runtime, parameters);
    this.config = config;
    this.#stack = stack;
    this.layers = Array.from({ length: config.nLayer }, () => ({ mixer: { mixnmatch: false, mixnmatchDims: config.dModel } }));
  }

  /**
   * A model with random weights.
   * @throws OPTION, CONFIG, MEMORY, DEVICE
   */
  static async create(config: Partial<MatMamba2VisionConfig>, options: CreateOptions = {}): Promise<MatMamba2Vision> {
    refuseUnknownKeys(options, CREATE_OPTION_KEYS, 'MatMamba2Vision.create');
    const declared = declareVisionModel(config);
    const runtime = await ModelRuntime.open(declared.parameters.declared.values(), options, randomWeights(options.seed ?? 0));
    return new MatMamba2Vision(declared, runtime);
  }

  /**
   * A model from a folder, a weights file, or a hub id.
   * @throws FILE, FORMAT, UNSAFE, CONFIG, WEIGHTS, SHAPE, NETWORK, MEMORY, DEVICE, ABORTED
   */
  static async fromPretrained(
    idOrFolder: ModelSource,
    options: PretrainedOptions<MatMamba2VisionConfig> = {},
  ): Promise<MatMamba2Vision> {
    const warn = options.onWarning ?? (() => {});
    const opened = await openModel(idOrFolder, options);
    const declared = await orClose(opened, () =>
      declareVisionModel(
        configOf(opened, options.config, (json) => configFromJson(json, VISION_DEFAULTS, 'config.json', warn), warn),
      ),
    );
    return new MatMamba2Vision(declared, await uploadCheckpoint(opened, declared.parameters, options));
  }

  forward(
    images: Tensor,
    options: VisionForwardOptions & { readonly returnFeatures: true },
  ): Promise<{ logits: Tensor; features: Tensor }>;
  forward(images: Tensor, options?: VisionForwardOptions & { readonly returnFeatures?: false | undefined }): Promise<Tensor>;
  /**
   * images: float32 (B, 3, S, S), normalised -> scores (B, nClasses); with `returnFeatures` { logits, features (B, D) }.
   * @throws SHAPE, WIDTH, OPTION, DISPOSED, ABORTED
   */
  async forward(images: Tensor, options: VisionForwardOptions = {}): Promise<Tensor | { logits: Tensor; features: Tensor }> {
    refuseUnknownKeys(options, [...WIDTH_OPTION_KEYS, ...CALL_OPTION_KEYS, 'returnFeatures'], 'forward');
    throwIfAborted(options.signal);
    const { imageSize: S, nClasses, dModel } = this.config;
    const fits = ([, c, h, w, ...more]: readonly number[]): boolean => c === CHANNELS && h === S && w === S && more.length === 0;
    const data = floatInput(images, 'images', `(B, 3, ${S}, ${S})`, fits);
    const batch = images.shape[0]!;
    const dims = resolveWidths(
      options,
      this.layers.map(({ mixer }) => mixer),
      dModel,
      (i) => `layers.${i}.mixer`,
    );
    const trace = (graph: Graph, widths: readonly number[]): void => this.#trace(graph, batch, widths);
    const program = { dModel, dims, trace };
    const { logits, features } = await this.runtime.run(`${batch}/${dims.join()}`, program, { images: data }, options);
    const scores = new Tensor(logits!, [batch, nClasses], 'f32');
    return options.returnFeatures ? { logits: scores, features: new Tensor(features!, [batch, dModel], 'f32') } : scores;
  }

  protected configJson(): JsonObject {
    return configToJson(this.config);
  }

  protected override async companions(): Promise<Readonly<Record<string, string>>> {
    return this.labels ? { 'labels.json': `${JSON.stringify(this.labels, undefined, 1)}\n` } : {};
  }

  #trace(graph: Graph, batch: number, dims: readonly number[]): void {
    const { features, logits } = this.#traceScores(graph, batch, dims, undefined);
    graph.output('features', features);
    graph.output('logits', logits);
  }

  /** One micro-batch of training; see `TrainableModel`. */
  traceTraining(graph: Graph, shape: TrainingShape): void {
    const { batch, dims, recompute } = shape;
    const { logits } = this.#traceScores(graph, batch, dims, trainingInputs(graph, shape));
    const targets = graph.input('targets', [batch, this.config.nClasses], 'f32');
    const scale = graph.input('scale', [batch, 1], 'f32');
    const { loss, dLogits } = graph.in('head', () => softCrossEntropy({ logits, targets, scale }));
    graph.output('loss', loss);
    traceBackward(graph, logits, dLogits, recompute);
  }

  #traceScores(
    graph: Graph,
    batch: number,
    dims: readonly number[],
    training: TrainingInputs | undefined,
  ): { features: Sym; logits: Sym } {
    const { imageSize: S, patchSize, nClasses, dModel, pool: pooling } = this.config;
    const w = (name: string) => graph.parameter(this.parameters.declared.get(name)!);
    const images = graph.input('images', [batch, CHANNELS, S, S], 'f32');
    const tokens = graph.in('patch_embed', () => {
      const patches = patchify({ x: images }, { patchSize }).y;
      const embed = { x: patches, weight: w('patch_embed.proj.weight'), bias: w('patch_embed.proj.bias') };
      const x = linear(embed, { segments: [{ start: 0, count: dModel }] }).y;
      return visionTokens({ x, classToken: w('cls_token'), position: w('pos_embed') }).y;
    });
    const sequence = { batch, length: tokens.shape[1]!, training };
    const y = traceStack(graph, tokens, this.#stack, dims, this.parameters.declared, sequence, []);
    return graph.in('head', () => {
      const features = pool({ x: y }, { average: pooling === 'avg' }).y;
      const head = { x: features, weight: w('head.weight'), bias: w('head.bias') };
      return { features, logits: linear(head, { segments: [{ start: 0, count: nClasses }] }).y };
    });
  }
}

/** Config, shapes and parameters, without weights. @throws OPTION, CONFIG */
export function declareVisionModel(given: Partial<MatMamba2VisionConfig>): Declared {
  const config = visionConfig(given);
  const { dModel: D, nLayer, nClasses, patchSize, imageSize, dIntermediate } = config;
  const stack: StackShape = {
    mixer: mixerShape(D, ssmConfig(config.ssmCfg)),
    nLayer,
    hidden: hiddenWidth(dIntermediate),
    center: !config.rmsNorm,
    eps: config.normEpsilon,
    outScale: Math.sqrt(dIntermediate > 0 ? 2 * nLayer : nLayer),
    prefix: '',
  };
  const patch = CHANNELS * patchSize ** 2;
  const tokens = (imageSize / patchSize) ** 2 + 1;
  const projection: ParameterDeclaration = {
    ...matrix('patch_embed.proj.weight', D, patch, uniform(1 / Math.sqrt(patch))),
    shape: [D, CHANNELS, patchSize, patchSize],
  };
  const declarations = [
    vector('cls_token', [1, 1, D], zeros),
    vector('pos_embed', [1, tokens, D], normal(0.02)),
    projection,
    vector('patch_embed.proj.bias', [D], uniform(1 / Math.sqrt(patch))),
    ...stackParameters(stack),
    matrix('head.weight', nClasses, D, linearInit(D)),
    vector('head.bias', [nClasses], zeros),
  ];
  return { config, stack, parameters: parameterSet(declarations) };
}
