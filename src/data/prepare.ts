/**
 * Text to token files: reads documents from files of many kinds, tokenises them on all cores, and writes shards.
 *
 * The ids are one long stream, a pure function of inputs and options, that is cut every `shardTokens` tokens. After
 * every shard the manifest says where in the inputs the next one begins, so a run that was killed goes on there and
 * ends with the same bytes as an unbroken one.
 */

import { mkdir, readdir } from 'node:fs/promises';
import { fileError } from '../checkpoint/file-errors.ts';
import { MatMambaError, throwIfAborted } from '../errors.ts';
import { type InputFile, listInputs } from './inputs.ts';
import { type Manifest, MANIFEST_VERSION, checkSameWork, manifestName, readManifest, writeManifest } from './manifest.ts';
import { type PrepareSettings, type PrepareTextOptions, settingsOf } from './prepare-options.ts';
import { ShardSink, isShardOf } from './shard-sink.ts';
import { FILE_START, type Position, type Task, tasksOf } from './tasks.ts';
import type { TaskResult } from './task-runner.ts';
import { type ChosenTokenizer, chooseTokenizer, saveTokenizer, trainTokenizer, trainedTokenizer } from './tokenizer-choice.ts';
import { WorkerPool } from './worker-pool.ts';

export interface PrepareTextResult {
  readonly manifest: Manifest;
  /** What encoded: see `encoder.ts`. */
  readonly engine: string;
  readonly workers: number;
  /** Of this run alone. */
  readonly textBytes: number;
  readonly tokens: number;
  readonly seconds: number;
  /** It went on with what an earlier run had begun. */
  readonly resumed: boolean;
}

const NOTED_SKIPS = 100;

/**
 * Tokenises text into a folder of shards (`val_000000.bin`, `train_000001.bin`, ...) with a manifest; goes on where an
 * earlier run with the same options stopped.
 * @throws OPTION for other options than the folder's data was begun with; FORMAT naming file and line or row group;
 *   TOKEN for a tokenizer with more than 65,536 ids; FILE (also for a full disk), NETWORK, ABORTED
 */
export async function prepareText(options: PrepareTextOptions): Promise<PrepareTextResult> {
  const settings = settingsOf(options);
  const { rank, ranks, workers, recorded } = settings;
  const { out, signal } = options;
  throwIfAborted(signal);
  // Ends downloads that were begun ahead when this call ends.
  using ended = new Ended();
  const hubSignal = signal ? AbortSignal.any([signal, ended.signal]) : ended.signal;
  const all = await listInputs(options.inputs, { ...options.hub, format: options.format, signal: hubSignal });
  const files = all.filter((_, i) => i % ranks === rank);
  const name = manifestName(rank, ranks);
  await mkdir(out, { recursive: true }).catch((cause: unknown) => Promise.reject(fileError(cause, 'write', out)));
  const old = options.force ? undefined : await readManifest(out, name);
  const tokenizer = await tokenizerFor(settings, all, old);
  const about = {
    options: recorded,
    tokenizer: tokenizer.described,
    inputs: files.map(({ name, bytes, fingerprint }) => ({ name, bytes, fingerprint })),
  };
  if (old) await checkSameWork(out, old, about);
  else if (!options.force) await checkNoShards(out, rank, ranks);
  const manifest: Manifest = old ?? {
    format: 'matmamba text data',
    version: MANIFEST_VERSION,
    complete: false,
    ...about,
    shards: [],
    tokens: { train: 0, val: 0 },
    counts: { documents: 0, emptyDocuments: 0, textBytes: 0, skipped: 0 },
    skipped: [],
  };
  const start = performance.now();
  await using pool = await WorkerPool.start(manifest.complete ? 0 : workers, {
    ...settings.runner,
    tokenizer: tokenizer.source,
    endTokenId: tokenizer.endTokenId,
  });
  const engine = await pool.engine();
  const report = (done: { textBytes: number; tokens: number }): PrepareTextResult => ({
    manifest,
    engine,
    workers: pool.size,
    ...done,
    seconds: (performance.now() - start) / 1000,
    resumed: old !== undefined,
  });
  if (manifest.complete) return report({ textBytes: 0, tokens: 0 });
  if (!old) {
    await saveTokenizer(out, tokenizer);
    await writeManifest(out, name, manifest);
  }
  return report(await new Preparation(settings, files, manifest, pool).run());
}

class Ended implements Disposable {
  readonly #controller = new AbortController();
  readonly signal = this.#controller.signal;

  [Symbol.dispose](): void {
    this.#controller.abort();
  }
}

/** Refuses a folder with shards that no manifest tells of: they are somebody else's. @throws FILE */
async function checkNoShards(folder: string, rank: number, ranks: number): Promise<void> {
  const found = (await readdir(folder)).find((name) => isShardOf(name, rank, ranks));
  if (found === undefined) return;
  throw new MatMambaError('FILE', `${folder} holds ${found}, but no manifest that tells how it was made`, {
    hint: 'choose another folder, or replace it with --force',
  });
}

async function tokenizerFor(
  settings: PrepareSettings,
  files: readonly InputFile[],
  old: Manifest | undefined,
): Promise<ChosenTokenizer> {
  const { options, tasks, workers, runner } = settings;
  if (options.trainBpe === undefined) return chooseTokenizer(options.tokenizer);
  const trained = old && (await trainedTokenizer(options.out, old.tokenizer));
  if (trained) return trained;
  return trainTokenizer(files, {
    vocabSize: options.trainBpe,
    trainBytes: settings.recorded['trainBpeBytes'] as number,
    workers,
    tasks,
    runner: { ...runner, endTokenId: 0 },
    signal: options.signal,
    onProgress: ({ textBytes, totalBytes }) => options.onProgress?.({ stage: 'train-bpe', textBytes, totalBytes, tokens: 0 }),
  });
}

interface Running {
  readonly input: number;
  readonly task: Task;
  readonly result: Promise<TaskResult>;
}

/** One run: sends tasks to the workers, takes their results in order, fills shards. */
class Preparation {
  readonly #settings: PrepareSettings;
  readonly #files: readonly InputFile[];
  readonly #manifest: Manifest;
  readonly #pool: WorkerPool;
  readonly #sink: ShardSink;
  readonly #running: Running[] = [];
  readonly #totalBytes: number;
  /** Where this run began, and of its first task the tokens that earlier shards hold. */
  readonly #from: { readonly input: number; readonly position: Position };
  #tokensDone: number;
  #textBytes = 0;
  #tokens = 0;

  constructor(settings: PrepareSettings, files: readonly InputFile[], manifest: Manifest, pool: WorkerPool) {
    const { rank, ranks, shardTokens, validationTokens, options } = settings;
    this.#settings = settings;
    this.#files = files;
    this.#manifest = manifest;
    this.#pool = pool;
    this.#sink = new ShardSink(
      { folder: options.out, rank, ranks, shardTokens, validationTokens, open: options.internals?.openShard },
      manifest,
    );
    const { input, tokensDone, ...position } = manifest.next ?? { input: 0, tokensDone: 0, ...FILE_START };
    this.#from = { input, position };
    this.#tokensDone = tokensDone;
    this.#totalBytes = files.slice(input).reduce((sum, { bytes }) => sum + bytes, 0);
  }

  async run(): Promise<{ readonly textBytes: number; readonly tokens: number }> {
    const { signal } = this.#settings.options;
    try {
      await this.#sink.begin();
      for (let input = this.#from.input; input < this.#files.length; input++) {
        await this.#readFile(input);
        throwIfAborted(signal);
      }
      while (this.#running.length > 0) await this.#takeResult();
      await this.#complete();
    } finally {
      await this.#sink.discard();
    }
    return { textBytes: this.#textBytes, tokens: this.#tokens };
  }

  async #readFile(input: number): Promise<void> {
    const { options, tasks } = this.#settings;
    const file = this.#files[input]!;
    // The next file of a hub dataset arrives while this one is read.
    this.#files[input + 1]?.locate().catch(() => undefined);
    const from = input === this.#from.input ? this.#from.position : FILE_START;
    try {
      for await (const task of tasksOf(file, from, tasks)) {
        throwIfAborted(options.signal);
        const result = this.#pool.run(task.work);
        result.catch(() => undefined); // Reported when its turn comes.
        this.#running.push({ input, task, result });
        if (this.#running.length > 2 * this.#pool.size) await this.#takeResult();
      }
    } catch (error) {
      // What was read before the damage counts, so it must be in order.
      while (this.#running.length > 0) await this.#takeResult();
      if (!this.#settings.runner.skipBad || !(error instanceof MatMambaError) || error.code !== 'FORMAT') throw error;
      this.#skip([{ where: file.name, reason: error.message.split('\n')[0]! }]);
    }
  }

  /** Takes the oldest result. @throws what its task threw */
  async #takeResult(): Promise<void> {
    const { input, task, result } = this.#running.shift()!;
    const { ids, documents, emptyDocuments, textBytes, skipped } = await result;
    const { counts } = this.#manifest;
    let done = this.#tokensDone;
    this.#tokensDone = 0;
    this.#tokens += ids.length - done;
    this.#textBytes += textBytes;
    while (done < ids.length) {
      const { taken, full } = await this.#sink.write(ids.subarray(done));
      done += taken;
      // The task that a shard ends in is counted when it is done: a run that goes on here does it again.
      if (full) await this.#save({ ...this.#manifest, next: { input, ...task.position, tokensDone: done } });
    }
    counts.documents += documents;
    counts.emptyDocuments += emptyDocuments;
    counts.textBytes += textBytes;
    this.#skip(skipped);
    this.#progress(input, task);
  }

  #skip(skipped: readonly { where: string; reason: string }[]): void {
    const { counts, skipped: noted } = this.#manifest;
    for (const { where, reason } of skipped) {
      counts.skipped++;
      if (noted.length < NOTED_SKIPS) noted.push({ where, reason });
      this.#settings.options.onWarning?.(`left out: ${reason.includes(where) ? reason : `${where}: ${reason}`}`);
    }
  }

  #progress(input: number, task: Task): void {
    const before = this.#files.slice(this.#from.input, input).reduce((sum, { bytes }) => sum + bytes, 0);
    const share = (before + task.readBytes) / Math.max(1, this.#totalBytes);
    const totalBytes = share > 0 ? Math.max(this.#textBytes, Math.round(this.#textBytes / share)) : 0;
    this.#settings.options.onProgress?.({ stage: 'tokenise', textBytes: this.#textBytes, totalBytes, tokens: this.#tokens });
  }

  async #complete(): Promise<void> {
    await this.#sink.end();
    this.#manifest.complete = true;
    delete this.#manifest.next;
    await this.#save(this.#manifest);
    const { tokens } = this.#manifest;
    if (tokens.train > 0 || this.#files.length === 0) return;
    this.#settings.options.onWarning?.(
      tokens.val > 0
        ? `all ${tokens.val} tokens went to the validation shard: give a smaller --validation-tokens to have some to train on`
        : 'the inputs hold no text',
    );
  }

  async #save(manifest: Manifest): Promise<void> {
    const { options, rank, ranks } = this.#settings;
    await writeManifest(options.out, manifestName(rank, ranks), manifest);
  }
}
