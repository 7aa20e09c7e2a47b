/**
 * The page's side of an engine: a worker that loads models and runs them, so that the page never waits. Every call can
 * be aborted; errors are the same `MatMambaError`s as without a worker.
 */

import type { WidthOptions } from '../elastic/granularity.ts';
import { MatMambaError, throwIfAborted } from '../errors.ts';
import type { MatMamba2VisionConfig } from '../models/config.ts';
import type { ModelSource } from '../models/load.ts';
import type { MemoryReport } from '../models/model.ts';
import type { GeneratedPiece } from '../text/index.ts';
import type { StepRecord } from '../train/trainer.ts';
import type {
  DeviceReport,
  EngineFineTuneOptions,
  EngineGenerateOptions,
  EngineModelOptions,
  EngineProgress,
  FromEngine,
  LanguageInfo,
  RequestName,
  Requests,
  ToEngine,
  VisionInfo,
} from './protocol.ts';

export interface OpenOptions extends EngineModelOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: EngineProgress) => void) | undefined;
}

interface Pending {
  readonly onEvent: (event: unknown) => void;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** What an engine talks through; a `Worker`, or anything that behaves like one. */
export interface EnginePort {
  postMessage(message: ToEngine): void;
  addEventListener(type: 'message', listener: (event: { data: FromEngine }) => void): void;
  addEventListener(type: 'error', listener: (event: { message?: string }) => void): void;
  terminate(): void;
}

export class Engine {
  readonly #port: EnginePort;
  readonly #pending = new Map<number, Pending>();
  #last = 0;
  #dead: MatMambaError | undefined;

  constructor(port: EnginePort) {
    this.#port = port;
    port.addEventListener('message', ({ data }) => this.#receive(data));
    port.addEventListener('error', ({ message }) =>
      this.#end(
        new MatMambaError('DEVICE', `the engine failed: ${message || 'its script cannot be loaded'}`, {
          hint: 'load the page again',
        }),
      ),
    );
  }

  /** Starts a worker; it must come from the page's own origin. */
  static start(): Engine {
    const worker = new Worker(new URL('./engine.worker.js', import.meta.url), { type: 'module', name: 'matmamba' });
    return new Engine(worker);
  }

  /** Devices that this project knows in browsers, and why those that cannot be used cannot. */
  devices(): Promise<readonly DeviceReport[]> {
    return this.#call('devices', {});
  }

  /**
   * A language model from the URL of its folder (relative to the page) or a hub id, whose files are fetched once and kept;
   * or from the files themselves, as `files()` gives them or a person chose them.
   * @throws NETWORK, FILE, FORMAT, UNSAFE, CONFIG, WEIGHTS, SHAPE, MEMORY, DEVICE, ABORTED
   */
  async languageModel(source: ModelSource, { signal, onProgress, ...options }: OpenOptions = {}): Promise<EngineLanguageModel> {
    const given = { source: typeof source === 'string' ? absolute(source) : source, options };
    const info = await this.#call('openLanguage', given, signal, onProgress);
    return new EngineLanguageModel((name, given, signal, onEvent) => this.#call(name, given, signal, onEvent), info);
  }

  /** A vision model from a URL or hub id, or of random weights. @throws as `languageModel` */
  async visionModel(
    source: string | { readonly config: Partial<MatMamba2VisionConfig>; readonly seed: number },
    { signal, onProgress, ...options }: OpenOptions = {},
  ): Promise<EngineVisionModel> {
    const given = { source: typeof source === 'string' ? absolute(source) : source, options };
    const info = await this.#call('openVision', given, signal, onProgress);
    return new EngineVisionModel((name, given, signal, onEvent) => this.#call(name, given, signal, onEvent), info);
  }

  /** Files that are kept on this device. */
  stored(): Promise<readonly { readonly url: string; readonly bytes: number }[]> {
    return this.#call('stored', { clear: false });
  }

  /** Removes what is kept; open models go on. */
  async clearStored(): Promise<void> {
    await this.#call('stored', { clear: true });
  }

  /** Ends the worker and all that runs in it. */
  dispose(): void {
    this.#end(new MatMambaError('DISPOSED', 'the engine was disposed'));
  }

  #call<N extends RequestName>(
    name: N,
    given: Requests[N]['given'],
    signal?: AbortSignal,
    onEvent?: (event: Requests[N]['event']) => void,
  ): Promise<Requests[N]['result']> {
    throwIfAborted(signal);
    if (this.#dead) throw this.#dead;
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      const stop = (): void => this.#port.postMessage({ id, abort: true });
      signal?.addEventListener('abort', stop, { once: true });
      const over =
        <V>(then: (value: V) => void) =>
        (value: V): void => {
          signal?.removeEventListener('abort', stop);
          then(value);
        };
      this.#pending.set(id, {
        onEvent: (event) => onEvent?.(event as Requests[N]['event']),
        resolve: over((result) => resolve(result as Requests[N]['result'])),
        reject: over(reject),
      });
      this.#port.postMessage({ id, name, given });
    });
  }

  #receive(message: FromEngine): void {
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    if ('event' in message) {
      pending.onEvent(message.event);
      return;
    }
    this.#pending.delete(message.id);
    if ('result' in message) {
      pending.resolve(message.result);
      return;
    }
    const { code, message: text, hint } = message.error;
    pending.reject(new MatMambaError(code, text, hint === undefined ? {} : { hint }));
  }

  #end(error: MatMambaError): void {
    this.#dead ??= error;
    this.#port.terminate();
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}

/** How a model asks its engine. */
type Ask = <N extends RequestName>(
  name: N,
  given: Requests[N]['given'],
  signal?: AbortSignal,
  onEvent?: (event: Requests[N]['event']) => void,
) => Promise<Requests[N]['result']>;

export interface EngineCallOptions extends WidthOptions {
  readonly signal?: AbortSignal | undefined;
}

/** A piece of text, and when it was there. */
export interface TimedPiece extends GeneratedPiece {
  /** Milliseconds since the engine began with the prompt. */
  readonly ms: number;
}

/** A language model in an engine. */
export class EngineLanguageModel {
  readonly info: LanguageInfo;
  readonly #ask: Ask;

  constructor(ask: Ask, info: LanguageInfo) {
    this.#ask = ask;
    this.info = info;
  }

  /** As `MatMambaLMHeadModel.generate`; leaving the loop stops it. @throws as there */
  async *generate(
    prompt: string | readonly number[],
    { signal, ...options }: EngineGenerateOptions & { readonly signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<TimedPiece, void, undefined> {
    const given = { model: this.info.model, prompt, options };
    yield* events<TimedPiece>((stop, onEvent) => this.#ask('generate', given, stop, onEvent), signal);
  }

  /**
   * Trains all levels of a float32 model on a text or on token ids, and yields every step; leaving the loop stops it after
   * the step that runs, and what was learned stays. The model may write meanwhile. @throws as `fineTune` of matmamba/train
   */
  async *fineTune(
    text: string | ArrayLike<number>,
    { signal, ...options }: EngineFineTuneOptions & { readonly signal?: AbortSignal | undefined },
  ): AsyncGenerator<StepRecord, void, undefined> {
    const given = { model: this.info.model, text, options };
    yield* events<StepRecord>((stop, onEvent) => this.#ask('fineTune', given, stop, onEvent), signal);
  }

  /** The model's files as they are now: `config.json`, `model.safetensors`, and the tokenizer's, if it came with one. */
  files(): Promise<Readonly<Record<string, Blob>>> {
    return this.#ask('files', { model: this.info.model });
  }

  /** Mean cross-entropy in nats of `ids[1..]`, in windows of `length` tokens. @throws TOKEN, WIDTH, ABORTED */
  loss(ids: readonly number[], length: number, { signal, ...width }: EngineCallOptions = {}): Promise<number> {
    return this.#ask('loss', { model: this.info.model, ids, length, width }, signal);
  }

  memory(): Promise<MemoryReport> {
    return this.#ask('memory', { model: this.info.model });
  }

  async dispose(): Promise<void> {
    await this.#ask('dispose', { model: this.info.model });
  }
}

/** What a request tells, as it comes; leaving the loop, or the signal, aborts the request. */
async function* events<E>(
  ask: (stop: AbortSignal, onEvent: (event: E) => void) => Promise<unknown>,
  signal: AbortSignal | undefined,
): AsyncGenerator<E, void, undefined> {
  const stop = new AbortController();
  const forward = (): void => stop.abort();
  signal?.addEventListener('abort', forward, { once: true });
  if (signal?.aborted) stop.abort();
  const told: E[] = [];
  let wake = (): void => {};
  let isOver = false;
  const run = ask(stop.signal, (event) => {
    told.push(event);
    wake();
  }).finally(() => {
    isOver = true;
    wake();
  });
  run.catch(() => {});
  try {
    for (;;) {
      yield* told.splice(0);
      if (isOver) break;
      if (told.length === 0) await new Promise<void>((resolve) => (wake = resolve));
    }
    yield* told.splice(0);
    await run;
  } finally {
    signal?.removeEventListener('abort', forward);
    stop.abort();
  }
}

/** A vision model in an engine. */
export class EngineVisionModel {
  readonly info: VisionInfo;
  readonly #ask: Ask;

  constructor(ask: Ask, info: VisionInfo) {
    this.#ask = ask;
    this.info = info;
  }

  /** Scores of one normalised image (3, S, S), and the milliseconds they took. @throws SHAPE, WIDTH, ABORTED */
  classify(
    pixels: Float32Array<ArrayBuffer>,
    { signal, ...width }: EngineCallOptions = {},
  ): Promise<{ readonly scores: Float32Array; readonly ms: number }> {
    return this.#ask('classify', { model: this.info.model, pixels, width }, signal);
  }

  async dispose(): Promise<void> {
    await this.#ask('dispose', { model: this.info.model });
  }
}

/** A path is the page's, not the worker's; a hub id stays as it is. */
function absolute(url: string): string {
  const here = (globalThis as { document?: { baseURI: string } }).document?.baseURI;
  return here && (/^\.{0,2}\//.test(url) || url.endsWith('/')) ? new URL(url, here).href : url;
}
