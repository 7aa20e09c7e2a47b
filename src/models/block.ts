/** The standalone MatMamba2 block, a drop-in for a Mamba-2 layer that runs at any of its nested widths. */

import type { JsonObject } from '../checkpoint/index.ts';
import { type WidthOptions, WIDTH_OPTION_KEYS, resolveWidths } from '../elastic/granularity.ts';
import { refuseUnknownKeys, throwIfAborted } from '../errors.ts';
import type { Graph } from '../graph/graph.ts';
import { Tensor } from '../tensor/tensor.ts';
import { floatInput } from './call.ts';
import { type MatMamba2Config, SSM_DEFAULTS, blockConfig, configFromJson, configToJson } from './config.ts';
import { type ModelSource, type PretrainedOptions, configOf, openModel, orClose, uploadCheckpoint } from './load.ts';
import { type MixerShape, mixerParameters, mixerShape, mixerState, traceMixer, weightsOf } from './mixer.ts';
import { Model, type ParameterSet, parameterSet } from './model.ts';
import { linearInit } from './parameters.ts';
import { type CallOptions, CALL_OPTION_KEYS, MODEL_OPTION_KEYS, type ModelOptions, ModelRuntime } from './runtime.ts';
import { ModelState } from './state.ts';
import { randomWeights } from './weight-sources.ts';

export interface CreateOptions extends ModelOptions {
  /** Seed of the random weights. Default 0. */
  readonly seed?: number | undefined;
}
export const CREATE_OPTION_KEYS = [...MODEL_OPTION_KEYS, 'seed'] as const;

export interface BlockForwardOptions extends WidthOptions, CallOptions {
  /** Carried state of the same batch; updated in place. */
  readonly state?: ModelState | undefined;
}

export const BLOCK_CONFIG_DEFAULTS = { dModel: 512, ...SSM_DEFAULTS };

export class MatMamba2 extends Model {
  readonly config: MatMamba2Config;
  /** Run at `mixnmatchDims` when a call names no width. */
  mixnmatch = false;
  mixnmatchDims: number;
  readonly #shape: MixerShape;

  private constructor(config: MatMamba2Config, shape: MixerShape, runtime: ModelRuntime, parameters: ParameterSet) {
    super(runtime, parameters);
    this.config = config;
    this.mixnmatchDims = config.dModel;
    this.#shape = shape;
  }

  /**
   * A block with random weights.
   * @throws OPTION, CONFIG, MEMORY, DEVICE
   */
  static async create(config: Partial<MatMamba2Config>, options: CreateOptions = {}): Promise<MatMamba2> {
    refuseUnknownKeys(options, CREATE_OPTION_KEYS, 'MatMamba2.create');
    const { full, shape, parameters } = declareBlock(config);
    const runtime = await ModelRuntime.open(parameters.declared.values(), options, randomWeights(options.seed ?? 0));
    return new MatMamba2(full, shape, runtime, parameters);
  }

  /**
   * A block that `savePretrained` wrote: a folder or a hub id.
   * @throws FILE, FORMAT, UNSAFE, CONFIG, WEIGHTS, SHAPE, NETWORK, MEMORY, DEVICE, ABORTED
   */
  static async fromPretrained(idOrFolder: ModelSource, options: PretrainedOptions<MatMamba2Config> = {}): Promise<MatMamba2> {
    const warn = options.onWarning ?? (() => {});
    const opened = await openModel(idOrFolder, options);
    const { full, shape, parameters } = await orClose(opened, () =>
      declareBlock(
        configOf(opened, options.config, (json) => configFromJson(json, BLOCK_CONFIG_DEFAULTS, 'config.json', warn), warn),
      ),
    );
    return new MatMamba2(full, shape, await uploadCheckpoint(opened, parameters, options), parameters);
  }

  /** A zeroed state for `batch` sequences. */
  createState(options: { readonly batch?: number } = {}): ModelState {
    refuseUnknownKeys(options, ['batch'], 'createState');
    this.runtime.checkOpen();
    return new ModelState(this, this.runtime.backend, options.batch ?? 1, 4 * mixerState('block', this.#shape, 0).end);
  }

  /**
   * x: (B, T, D) -> (B, T, D) at the width of the call, else of the block's flags.
   * @throws SHAPE, WIDTH, OPTION, DISPOSED, ABORTED
   */
  async forward(x: Tensor, options: BlockForwardOptions = {}): Promise<Tensor> {
    refuseUnknownKeys(options, [...WIDTH_OPTION_KEYS, ...CALL_OPTION_KEYS, 'state'], 'forward');
    throwIfAborted(options.signal);
    const { dModel } = this.config;
    const data = floatInput(x, 'x', `(B, T, ${dModel})`, (shape) => shape.length === 3 && shape[2] === dModel);
    const [batch, length] = x.shape as [number, number, number];
    const [dims] = resolveWidths(options, [this], dModel, () => 'MatMamba2') as [number];
    const slots = options.state?.slotsFor(this, batch);
    const trace = (graph: Graph, [width]: readonly number[]): void => {
      const sequence = {
        batch,
        length,
        ...(slots ? { slots: graph.input('slots', [batch], 'i32'), lengths: graph.input('lengths', [batch], 'i32') } : {}),
      };
      const u = graph.input('x', x.shape, 'f32');
      const { state } = mixerState('block', this.#shape, 0);
      const y = graph.in('mixer', () =>
        traceMixer(u, this.#shape, width!, weightsOf(graph, this.parameters.declared, ''), sequence, state),
      );
      graph.output('y', y);
    };
    const inputs = { x: data, ...(slots ? { slots, lengths: new Int32Array(batch).fill(length) } : {}) };
    const program = { dModel, dims: [dims], trace };
    const { y } = await this.runtime.run(`${batch}x${length}/${dims}/${slots !== undefined}`, program, inputs, options);
    return new Tensor(y!, x.shape, 'f32');
  }

  protected configJson(): JsonObject {
    return configToJson(this.config);
  }
}

/** Config, shapes and parameters, without weights. @throws OPTION, CONFIG */
export function declareBlock(config: Partial<MatMamba2Config>): {
  full: MatMamba2Config;
  shape: MixerShape;
  parameters: ParameterSet;
} {
  const full = blockConfig(config);
  const { dModel, ...ssm } = full;
  const shape = mixerShape(dModel, ssm);
  return { full, shape, parameters: parameterSet(mixerParameters('', shape, 1, linearInit)) };
}
