/**
 * The device side of training: gradients and AdamW moments of every parameter, the programs that add a micro-batch's
 * gradients, and the program that clips and updates. Nothing is computed on the host but scalars; programs are planned
 * once per shape and replayed with new inputs (learning rate, step, loss scale and seed are inputs).
 *
 * With several ranks, gradients are summed and weights exchanged by the devices where they can (`sumsOnDevice`), within
 * these programs; elsewhere the host does it around them. A sharded engine keeps the moments of the parameters that this
 * rank owns, updates those, and gets the others from their owners.
 */

import { type Communicator, SingleProcess } from '../distributed/communicator.ts';
import { MatMambaError } from '../errors.ts';
import { gradientSpec } from '../graph/differentiate.ts';
import type { Graph, ParameterSpec, Sym } from '../graph/graph.ts';
import type { DeviceWeight, ModelDType, ProgramInputs } from '../backends/backend.ts';
import type { CallOptions } from '../models/runtime.ts';
import type { TrainableModel, TrainingShape } from '../models/training.ts';
import { sizeOf } from '../tensor/tensor.ts';
import { adamw, clipFactor, copyFromRank, squareSum, totalOverRanks } from '../ops/index.ts';
import { placeSums } from './gradient-buckets.ts';
import { ownersOf } from './owners.ts';

export interface AdamWOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** Applied to tensors of two or more dimensions. */
  readonly weightDecay: number;
  /** Largest global norm of the gradients. */
  readonly maxNorm: number;
}

export const ADAMW_DEFAULTS: AdamWOptions = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };

/** Dtypes whose weights are float32. */
export const TRAINED_DTYPES = ['f32', 'tf32', 'bf16-mixed'] as const satisfies readonly ModelDType[];

/** The buffers that AdamW keeps beside a parameter. */
export const MOMENTS = ['m', 'v'] as const;

export type Moment = (typeof MOMENTS)[number];

/** The processes that train together. */
export interface RankOptions {
  readonly communicator: Communicator;
  /** Keep AdamW's moments of each parameter on one rank only (ZeRO, stage 1). */
  readonly shard?: boolean;
}

/** Where a number is none. */
export interface BadElement {
  readonly kind: 'weight' | 'gradient';
  /** Of the parameter. */
  readonly name: string;
  readonly element: number;
  readonly value: number;
}

function momentSpec({ name, shape, layout }: ParameterSpec, moment: Moment): ParameterSpec {
  return { name: `${name}#${moment}`, shape, layout, precise: true };
}

export class TrainingEngine {
  readonly #model: TrainableModel;
  readonly #options: AdamWOptions;
  readonly #parameters: readonly ParameterSpec[];
  readonly #buffers: readonly ParameterSpec[];
  readonly #communicator: Communicator;
  /** Rank of each parameter's moments, in the order of the parameters; undefined when all ranks have all. */
  readonly #owners: readonly number[] | undefined;
  /** Parameters whose moments are here. */
  readonly #owned: ReadonlyMap<string, ParameterSpec>;
  /** Whether sums over ranks are part of the programs. */
  readonly sumsOnDevice: boolean;

  private constructor(model: TrainableModel, options: AdamWOptions, { communicator, shard = false }: RankOptions) {
    this.#model = model;
    this.#options = options;
    this.#parameters = [...model.parameters.declared.values()];
    this.#communicator = communicator;
    this.#owners = shard ? ownersOf(this.#parameters, communicator.size) : undefined;
    const owned = this.#parameters.filter((_, i) => !this.#owners || this.#owners[i] === communicator.rank);
    this.#owned = new Map(owned.map((spec) => [spec.name, spec]));
    this.#buffers = this.#parameters.flatMap((spec) => [
      gradientSpec(spec),
      ...MOMENTS.filter(() => this.owns(spec.name)).map((moment) => momentSpec(spec, moment)),
    ]);
    // A group that is more than this process alone, even if of one.
    this.sumsOnDevice = !(communicator instanceof SingleProcess) && model.runtime.backend.joinRanks !== undefined;
  }

  /**
   * Allocates gradients and moments beside a float32 model. All ranks must call it.
   * @throws OPTION for another dtype, or more ranks than parameters to shard; MEMORY, DEVICE
   */
  static async attach(
    model: TrainableModel,
    options: Partial<AdamWOptions> = {},
    ranks: RankOptions = { communicator: new SingleProcess() },
  ): Promise<TrainingEngine> {
    if (!TRAINED_DTYPES.some((dtype) => dtype === model.runtime.dtype)) {
      throw new MatMambaError('OPTION', `a model in ${model.runtime.dtype} cannot be trained`, {
        hint: `load it with dtype ${TRAINED_DTYPES.join(' or ')}`,
      });
    }
    const engine = new TrainingEngine(model, { ...ADAMW_DEFAULTS, ...options }, ranks);
    if (engine.sumsOnDevice) await model.runtime.backend.joinRanks!(ranks.communicator);
    await model.runtime.allocate(engine.#buffers);
    return engine;
  }

  /** Whether whole steps run as one program here. */
  get stepsWhole(): boolean {
    if (this.#communicator.size > 1 && !this.sumsOnDevice) return false;
    return this.#model.runtime.backend.capabilities().replaysWhole;
  }

  /**
   * A whole step as one program: the gradients of all micro-batches, clipping and AdamW, as `accumulate` and `update` do.
   * @returns the losses of each micro-batch, and the norm before clipping
   * @throws ABORTED, MEMORY
   */
  async step(
    parts: readonly { readonly shape: TrainingShape; readonly inputs: ProgramInputs }[],
    step: number,
    learningRate: number,
    options: CallOptions = {},
  ): Promise<{ losses: Float32Array[]; norm: number }> {
    const key = `step/${parts.map(({ shape }) => shapeKey(shape)).join(';')}`;
    const prefixed = parts.flatMap(({ inputs }, i) =>
      Object.entries(inputs).map(([name, data]) => [`${i}.${name}`, data] as const),
    );
    const inputs = { ...Object.fromEntries(prefixed), ...this.#updateInputs(step, learningRate) };
    const trace = (graph: Graph): void => {
      for (const [i, { shape }] of parts.entries()) {
        graph.withPrefix(`${i}.`, () => this.#model.traceTraining(graph, shape));
      }
      this.#traceSums(graph);
      this.#traceUpdate(graph);
    };
    const results = await this.#model.runtime.run(key, trace, inputs, options);
    const norm = results['norm']![0]!;
    await this.#shareUpdate(norm);
    return { losses: parts.map((_, i) => results[`${i}.loss`]!), norm };
  }

  /** Adds one micro-batch's gradients; returns the loss of every token (B * T) or image (B). @throws ABORTED, MEMORY */
  async accumulate(shape: TrainingShape, inputs: ProgramInputs, options: CallOptions = {}): Promise<Float32Array> {
    const trace = (graph: Graph): void => this.#model.traceTraining(graph, shape);
    const { loss } = await this.#model.runtime.run(`train/${shapeKey(shape)}`, trace, inputs, options);
    return loss!;
  }

  /**
   * Clips the gradients by their global norm, takes one AdamW step, and zeroes them. A norm that is not finite leaves
   * everything as it is. With several ranks the gradients are summed first where the devices do that, else they must be
   * sums already.
   * @returns the norm before clipping
   */
  async update(step: number, learningRate: number, options: CallOptions = {}): Promise<number> {
    const inputs = this.#updateInputs(step, learningRate);
    const trace = (graph: Graph): void => {
      this.#traceSums(graph);
      this.#traceUpdate(graph);
    };
    const results = await this.#model.runtime.run('update', trace, inputs, options);
    const norm = results['norm']![0]!;
    await this.#shareUpdate(norm);
    return norm;
  }

  /** The gradient buffers, in the order of the parameters. */
  gradients(): DeviceWeight[] {
    return this.#parameters.map((spec) => this.#model.runtime.weight(gradientSpec(spec).name));
  }

  /** Whether moments lie on some ranks only. */
  get isSharded(): boolean {
    return this.#owners !== undefined;
  }

  /** Whether this rank keeps the moments of the parameter of this name. */
  owns(name: string): boolean {
    return this.#owned.has(name);
  }

  /** Rows of a moment, from the rank that keeps it: all ranks must ask, in the same order. @throws DEVICE */
  async readMoment(
    { name, shape }: Pick<ParameterSpec, 'name' | 'shape'>,
    moment: Moment,
    first: number,
    count: number,
  ): Promise<Float32Array> {
    if (!this.#owners) return this.moment(name, moment).read(first, count);
    const rows = this.owns(name)
      ? await this.moment(name, moment).read(first, count)
      : new Float32Array(count * sizeOf(shape.slice(1)));
    await this.#communicator.broadcast(rows, this.#owners[this.#parameters.findIndex((spec) => spec.name === name)]!);
    return rows;
  }

  /** A moment of the parameter of this name, which must be here. */
  moment(name: string, moment: Moment): DeviceWeight {
    return this.#model.runtime.weight(`${name}#${moment}`);
  }

  /** The first parameter that is not finite, itself or its gradient, and which element. */
  async firstBad(kind: 'weight' | 'gradient'): Promise<BadElement | undefined> {
    for (const spec of this.#parameters) {
      const { name, shape } = kind === 'weight' ? spec : gradientSpec(spec);
      const values = await this.#model.runtime.weight(name).read(0, shape[0]!);
      const element = values.findIndex((value) => !Number.isFinite(value));
      if (element >= 0) return { kind, name: spec.name, element, value: values[element]! };
    }
    return undefined;
  }

  /** Frees gradients and moments; the model stays. */
  dispose(): void {
    this.#model.runtime.release(this.#buffers);
  }

  #updateInputs(step: number, learningRate: number): ProgramInputs {
    const { beta1, beta2, eps, weightDecay, maxNorm } = this.#options;
    const settings = Float32Array.of(learningRate, beta1, beta2, eps, weightDecay, 1 - beta1 ** step, 1 - beta2 ** step);
    return { settings, maxNorm: Float32Array.of(maxNorm) };
  }

  #traceUpdate(graph: Graph): void {
    const settings = graph.input('settings', [7], 'f32');
    const maxNorm = graph.input('maxNorm', [1], 'f32');
    // On the host's way every rank has all sums, and adds the squares in the same order whether sharded or not.
    const isPart = this.#owners !== undefined && this.sumsOnDevice;
    let squares: Sym | undefined;
    for (const spec of isPart ? this.#owned.values() : this.#parameters) {
      squares = squareSum({ x: graph.parameter(gradientSpec(spec)), before: squares }).y;
    }
    if (isPart) squares = totalOverRanks({ x: squares }).y;
    const { factor, norm } = clipFactor({ squares, settings: maxNorm });
    graph.output('norm', norm);
    for (const spec of this.#owned.values()) {
      const [dM, dV] = MOMENTS.map((moment) => graph.parameter(momentSpec(spec, moment)));
      const operands = { weight: graph.parameter(spec), gradient: graph.parameter(gradientSpec(spec)), dM, dV, factor, settings };
      graph.in(spec.name, () => adamw(operands, { decay: spec.shape.length >= 2 }));
    }
    if (!isPart) return;
    for (const [i, spec] of this.#parameters.entries()) copyFromRank({ x: graph.parameter(spec) }, { root: this.#owners[i]! });
  }

  #traceSums(graph: Graph): void {
    if (this.sumsOnDevice) placeSums(graph, this.#parameters, { owners: this.#owners });
  }

  /** What the programs leave to the host after an update: others' gradients become zero, their weights come from them. */
  async #shareUpdate(norm: number): Promise<void> {
    if (!this.#owners || this.sumsOnDevice || this.#communicator.size === 1 || !Number.isFinite(norm)) return;
    const { runtime } = this.#model;
    for (const [i, spec] of this.#parameters.entries()) {
      if (!this.owns(spec.name)) hostViewOf(runtime.weight(gradientSpec(spec).name)).fill(0);
      await this.#communicator.broadcast(hostViewOf(runtime.weight(spec.name)), this.#owners[i]!);
    }
  }
}

/** @throws DEVICE where the host cannot reach the device's memory */
export function hostViewOf(weight: DeviceWeight): Float32Array {
  const values = weight.hostView();
  if (values) return values;
  throw new MatMambaError('DEVICE', 'this device shares nothing with other ranks', {
    hint: 'train on the CPU, or with one process',
  });
}

/** What distinguishes the programs of micro-batches. */
function shapeKey({ batch, length, dims, recompute, projDropRate, dropPathRate, distill }: TrainingShape): string {
  return [batch, length, dims, recompute, projDropRate, dropPathRate, distill].join('/');
}
