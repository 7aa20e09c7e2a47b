/** The MatMamba language model: embedding, the stack of nested layers, a head that may be tied to the embedding. */

import type { JsonObject } from '../checkpoint/index.ts';
import { type LayerFlags, type WidthOptions, WIDTH_OPTION_KEYS, resolveWidths } from '../elastic/granularity.ts';
import { MatMambaError, refuseUnknownKeys, throwIfAborted } from '../errors.ts';
import type { Graph } from '../graph/graph.ts';
import type { TypedArray } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import {
  type GenerateOptions,
  type GeneratedPiece,
  type NextTokenModel,
  type Tokenizer,
  defaultTokenizerFor,
  generate,
} from '../text/index.ts';
import { CREATE_OPTION_KEYS, type CreateOptions } from './block.ts';
import { idInput } from './call.ts';
import { MAMBA_DEFAULTS, type MambaConfig, configFromJson, configToJson, paddedVocabSize } from './config.ts';
import { loadModelTokenizer, tokenizerFiles } from './folder-tokenizer.ts';
import { EMBEDDING, HEAD, type LanguageDeclaration, declareLanguageModel, trimVocabulary } from './language-shape.ts';
import { type Head, traceLanguageModel, traceLanguageTraining } from './language-trace.ts';
import { type ModelSource, type PretrainedOptions, configOf, openModel, orClose, uploadCheckpoint } from './load.ts';
import type { MixerState } from './mixer.ts';
import { Model } from './model.ts';
import { type RunPiece, nextTokens } from './next-tokens.ts';
import { type CallOptions, CALL_OPTION_KEYS, ModelRuntime } from './runtime.ts';
import { stackState } from './stack.ts';
import { ModelState } from './state.ts';
import type { TrainingShape } from './training.ts';
import { randomWeights } from './weight-sources.ts';

export interface LMForwardOptions extends WidthOptions, CallOptions {
  /** Carried state of the same batch; updated in place. */
  readonly state?: ModelState | undefined;
  /** Real tokens of each sequence, 0 to T with a state, else 1 to T; the rest is padding, whose logits mean nothing. */
  readonly lengths?: ArrayLike<number> | undefined;
  /** Compute only the logits of so many last real tokens of each sequence. Default: all T, each in its own place. */
  readonly numLastTokens?: number | undefined;
}

/** Tokens of one program that returns the logits of all: on any device they are copied through the host's memory. */
const LOGITS_PROGRAM_TOKENS = 4096;

export class MatMambaLMHeadModel extends Model {
  readonly config: MambaConfig;
  /** The layers' own widths, used when a call names none: `backbone.layers[i].mixer.mixnmatch`. */
  readonly backbone: { readonly layers: readonly { readonly mixer: LayerFlags }[] };
  /** Vocabulary of the logits: `vocabSize` rounded up to `padVocabSizeMultiple`. */
  readonly vocabSize: number;
  /** Text in and out; GPT-2's stands in where the folder has none and the vocabulary is GPT-2's. */
  tokenizer: Tokenizer | undefined;
  readonly #declared: LanguageDeclaration;
  readonly #states: readonly MixerState[];
  readonly #slotBytes: number;

  private constructor(declared: LanguageDeclaration, runtime: ModelRuntime) {
    const { config, stack, parameters } = declared;
    super(runtime, parameters);
    this.config = config;
    this.#declared = declared;
    this.vocabSize = paddedVocabSize(config);
    const { layers, slotBytes } = stackState(stack);
    this.#states = layers;
    this.#slotBytes = slotBytes;
    this.backbone = { layers: layers.map(() => ({ mixer: { mixnmatch: false, mixnmatchDims: config.dModel } })) };
  }

  /**
   * A model with random weights.
   * @throws OPTION, CONFIG, MEMORY, DEVICE
   */
  static async create(config: Partial<MambaConfig>, options: CreateOptions = {}): Promise<MatMambaLMHeadModel> {
    refuseUnknownKeys(options, CREATE_OPTION_KEYS, 'MatMambaLMHeadModel.create');
    const declared = declareLanguageModel(config);
    const runtime = await ModelRuntime.open(declared.parameters.declared.values(), options, randomWeights(options.seed ?? 0));
    return new MatMambaLMHeadModel(declared, runtime);
  }

  /**
   * A model from a folder, a weights file, a URL of a folder, a hub id, or files in memory: safetensors or the original's
   * `pytorch_model.bin`.
   * @throws FILE, FORMAT, UNSAFE, CONFIG, WEIGHTS, SHAPE, NETWORK, MEMORY, DEVICE, ABORTED
   */
  static async fromPretrained(
    idOrFolder: ModelSource,
    options: PretrainedOptions<MambaConfig> = {},
  ): Promise<MatMambaLMHeadModel> {
    const warn = options.onWarning ?? (() => {});
    const opened = await openModel(idOrFolder, options);
    const { declared, trimmed } = await orClose(opened, () => {
      const declared = declareLanguageModel(
        configOf(opened, options.config, (json) => configFromJson(json, MAMBA_DEFAULTS, 'config.json', warn), warn),
      );
      return { declared, trimmed: { ...opened, checkpoint: trimVocabulary(opened, paddedVocabSize(declared.config), warn) } };
    });
    const model = new MatMambaLMHeadModel(declared, await uploadCheckpoint(trimmed, declared.parameters, options));
    try {
      model.tokenizer = await loadModelTokenizer(opened);
    } catch (error) {
      await model.dispose();
      throw error;
    }
    return model;
  }

  /** Parameters without the embedding and an untied head. */
  get bodyParameterCount(): number {
    const outside = [EMBEDDING, HEAD].flatMap((name) => this.parameters.declared.get(name) ?? []);
    return this.parameterCount - outside.reduce((sum, { shape }) => sum + shape[0]! * shape[1]!, 0);
  }

  /** A zeroed state for `batch` sequences; of fixed size, whatever the widths of later calls. */
  createState(options: { readonly batch?: number } = {}): ModelState {
    refuseUnknownKeys(options, ['batch'], 'createState');
    this.runtime.checkOpen();
    return new ModelState(this, this.runtime.backend, options.batch ?? 1, this.#slotBytes);
  }

  /**
   * ids: int32 (B, T) -> logits: float32 (B, T, V), or (B, numLastTokens, V).
   * @throws SHAPE, TOKEN, WIDTH, OPTION, DISPOSED, ABORTED
   */
  async forward(ids: Tensor, options: LMForwardOptions = {}): Promise<{ logits: Tensor }> {
    refuseUnknownKeys(options, [...WIDTH_OPTION_KEYS, ...CALL_OPTION_KEYS, 'state', 'lengths', 'numLastTokens'], 'forward');
    const { ids: data, batch, length } = idInput(ids, this.vocabSize);
    const lengths = checkLengths(options, batch, length);
    const count = options.numLastTokens ?? 'all';
    if (count !== 'all' && (!Number.isInteger(count) || count < 1 || count > length)) {
      throw new MatMambaError('OPTION', `numLastTokens is ${count} for ${length} tokens`, {
        hint: `a whole number from 1 to ${length}`,
      });
    }
    const dims = this.#widths(options);
    // Longer inputs run in pieces with carried state, so memory stays bounded.
    const { programTokens } = this.runtime.backend.capabilities();
    const tokens = count === 'all' ? Math.min(LOGITS_PROGRAM_TOKENS, programTokens) : programTokens;
    const step = Math.max(1, Math.floor(tokens / batch));
    const logits =
      length > step
        ? await this.#inPieces(data, batch, length, step, count, dims, options, lengths)
        : (await this.#run(data, batch, length, dims, { kind: 'logits', count }, options, { lengths })).y!;
    return { logits: new Tensor(logits, [batch, count === 'all' ? length : count, this.vocabSize], 'f32') };
  }

  /**
   * Cross-entropy of each token, in nats: ids and targets int32 (B, T) -> float32 (B, T); a target of -1 counts 0.
   * The logits never exist whole.
   * @throws SHAPE, TOKEN, WIDTH, OPTION, DISPOSED, ABORTED
   */
  async loss(
    ids: Tensor,
    targets: Tensor,
    options: WidthOptions & CallOptions & { readonly state?: ModelState | undefined } = {},
  ): Promise<Tensor> {
    refuseUnknownKeys(options, [...WIDTH_OPTION_KEYS, ...CALL_OPTION_KEYS, 'state'], 'loss');
    const { ids: data, batch, length } = idInput(ids, this.vocabSize);
    const { ids: goals, ...goalShape } = idInput(targets, this.vocabSize, 'targets', -1);
    if (goalShape.batch !== batch || goalShape.length !== length) {
      throw new MatMambaError('SHAPE', `targets: expected (${batch}, ${length}), got (${goalShape.batch}, ${goalShape.length})`);
    }
    const { y } = await this.#run(data, batch, length, this.#widths(options), { kind: 'loss' }, options, { targets: goals });
    return new Tensor(y!, [batch, length], 'f32');
  }

  /**
   * Continues a prompt (text, or ids) and yields text as it becomes whole.
   * @throws TOKEN, OPTION, WIDTH, WEIGHTS, DISPOSED, ABORTED at the first piece
   */
  async *generate(
    prompt: string | ArrayLike<number>,
    options: GenerateOptions = {},
  ): AsyncGenerator<GeneratedPiece, void, undefined> {
    const tokenizer = options.tokenizer ?? (await this.#tokenizerFor(prompt));
    using sequence = this.sequence(options);
    yield* generate(sequence, tokenizer, prompt, options);
  }

  /** @internal A sequence of its own at one width; `generate` and the command line's clock are built on it. @throws WIDTH */
  sequence(width: WidthOptions, onProfile?: CallOptions['onProfile']): NextTokenModel & Disposable {
    const dims = this.#widths(width);
    const state = this.createState();
    const run: RunPiece = (ids, head, more, signal) =>
      this.#run(ids, 1, ids.length, dims, head, { state, signal, onProfile }, more);
    const draws = !('sample' in this.runtime.backend.capabilities().unsupported);
    return { ...nextTokens(this.vocabSize, run, draws), [Symbol.dispose]: () => state.dispose() };
  }

  protected configJson(): JsonObject {
    return configToJson(this.config);
  }

  protected override companions(): Promise<Readonly<Record<string, string>>> {
    return tokenizerFiles(this.tokenizer);
  }

  /** The tokenizer for text; ids alone need none. */
  async #tokenizerFor(prompt: string | ArrayLike<number>): Promise<Tokenizer | undefined> {
    if (this.tokenizer) return this.tokenizer;
    try {
      this.tokenizer = await defaultTokenizerFor(this.config.vocabSize);
    } catch (error) {
      if (typeof prompt === 'string') throw error;
    }
    return this.tokenizer;
  }

  #widths(options: WidthOptions): number[] {
    return resolveWidths(
      options,
      this.backbone.layers.map(({ mixer }) => mixer),
      this.config.dModel,
      (i) => `backbone.layers.${i}.mixer`,
    );
  }

  /** One micro-batch of training; see `TrainableModel`. */
  traceTraining(graph: Graph, shape: TrainingShape): void {
    traceLanguageTraining(graph, this.#declared, shape);
  }

  /** Runs a long input `step` tokens at a time with carried state, and puts the wanted logits together. */
  async #inPieces(
    ids: Int32Array,
    batch: number,
    length: number,
    step: number,
    count: number | 'all',
    dims: number[],
    options: LMForwardOptions,
    lengths: Int32Array | undefined,
  ): Promise<Float32Array> {
    const own = options.state ? undefined : this.createState({ batch });
    const state = options.state ?? own;
    const wanted = count === 'all' ? length : count;
    /** One past the last token of each sequence whose logits are wanted. */
    const ends = Array.from({ length: batch }, (_, b) => (count === 'all' ? length : (lengths?.[b] ?? length)));
    const pieces: { first: number; rows: number; real: Int32Array; run: Promise<Record<string, Float32Array>> }[] = [];
    // All pieces take their turns at once, so that no other call on this state comes between them.
    for (let first = 0; first < length; first += step) {
      const size = Math.min(step, length - first);
      const piece = new Int32Array(batch * size);
      for (let b = 0; b < batch; b++) piece.set(ids.subarray(b * length + first, b * length + first + size), b * size);
      const real = Int32Array.from({ length: batch }, (_, b) => Math.max(0, Math.min(size, (lengths?.[b] ?? length) - first)));
      const isWanted = ends.some((end) => Math.max(0, end - wanted) < first + size && Math.max(0, end - 1) >= first);
      const rows = count === 'all' ? size : Math.min(count, size);
      const head: Head = isWanted ? { kind: 'logits', count: count === 'all' ? count : rows } : { kind: 'none' };
      pieces.push({
        first,
        rows,
        real,
        run: this.#run(piece, batch, size, dims, head, { ...options, state }, lengths ? { lengths: real } : {}),
      });
    }
    own?.dispose();
    const parts = await Promise.all(pieces.map(({ run }) => run));
    const V = this.vocabSize;
    const logits = new Float32Array(batch * wanted * V);
    for (const [b, end] of ends.entries()) {
      for (let i = 0; i < wanted; i++) {
        const token = Math.max(0, end - wanted + i);
        const at = Math.floor(token / step);
        const { first, rows, real } = pieces[at]!;
        const row = count === 'all' ? token - first : Math.max(0, Math.min(rows - 1, token - first + rows - real[b]!));
        logits.set(parts[at]!.y!.subarray((b * rows + row) * V, (b * rows + row + 1) * V), (b * wanted + i) * V);
      }
    }
    return logits;
  }

  /** Runs the program of this shape; `more` are its further inputs: lengths, targets, what a draw needs. */
  async #run(
    ids: Int32Array,
    batch: number,
    length: number,
    dims: readonly number[],
    head: Head,
    options: CallOptions & { readonly state?: ModelState | undefined },
    more: Readonly<Record<string, TypedArray | undefined>>,
  ): Promise<Record<string, Float32Array>> {
    throwIfAborted(options.signal);
    const slots = options.state?.slotsFor(this, batch);
    const lengths = more['lengths'] ?? (slots ? new Int32Array(batch).fill(length) : undefined);
    const key = [
      head.kind,
      head.kind === 'logits' ? head.count : '',
      batch,
      length,
      slots !== undefined,
      lengths !== undefined,
      dims,
    ].join('/');
    const shape = { batch, length, head, carried: slots !== undefined, ragged: lengths !== undefined };
    const trace = (graph: Graph, widths: readonly number[]): void =>
      traceLanguageModel(graph, this.#declared, this.#states, { ...shape, dims: widths });
    const given = { ids, slots, ...more, lengths };
    const inputs = Object.fromEntries(Object.entries(given).flatMap(([name, data]) => (data ? [[name, data] as const] : [])));
    return this.runtime.run(key, { dModel: this.config.dModel, dims, trace }, inputs, options);
  }
}

/** @throws OPTION naming the sequence */
function checkLengths(
  { lengths, state, numLastTokens = 1 }: LMForwardOptions,
  batch: number,
  length: number,
): Int32Array | undefined {
  if (!lengths) return undefined;
  if (lengths.length !== batch) throw new MatMambaError('SHAPE', `lengths: expected ${batch}, got ${lengths.length}`);
  const least = state ? 0 : Math.max(1, Math.min(numLastTokens, length));
  const checked = Int32Array.from(lengths);
  const bad = checked.findIndex((n, i) => n !== lengths[i] || n < least || n > length);
  if (bad < 0) return checked;
  throw new MatMambaError('OPTION', `lengths[${bad}] is ${lengths[bad]} for ${length} tokens`, {
    hint: `a whole number from ${least} to ${length}`,
  });
}
