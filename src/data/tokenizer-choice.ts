/**
 * The tokenizer of a data folder: GPT-2's, one from a file, or a new one trained on the text. All but GPT-2's are
 * copied into the folder, so that data, training and model stay together.
 */

import { createHash } from 'node:crypto';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { writeFileAtomic } from '../checkpoint/atomic-file.ts';
import { errnoOf, fileError } from '../checkpoint/file-errors.ts';
import { MatMambaError, throwIfAborted } from '../errors.ts';
import { gpt2Tokenizer } from '../text/gpt2.ts';
import { loadTokenizer } from '../text/tokenizer.ts';
import { MOST_IDS, type TokenizerSource, tooManyIds } from './encoder.ts';
import type { InputFile } from './inputs.ts';
import type { Manifest } from './manifest.ts';
import { FILE_START, type TaskOptions, tasksOf } from './tasks.ts';
import type { RunnerOptions } from './task-runner.ts';
import { trainBytePairs } from './train-bpe.ts';
import { WorkerPool } from './worker-pool.ts';

export const TOKENIZER_FILE = 'tokenizer.json';
const CONFIG_FILE = 'tokenizer_config.json';
/** The same for any number of workers, so that all of them stop after the same task. */
const TASKS_AHEAD = 16;

export interface ChosenTokenizer {
  readonly source: TokenizerSource;
  readonly endTokenId: number;
  readonly described: Manifest['tokenizer'];
  /** Files for the data folder. */
  readonly files: ReadonlyMap<string, string>;
}

/** @throws FILE, FORMAT; TOKEN for more than 65,536 ids or a tokenizer without an end token */
export async function chooseTokenizer(path: string | undefined): Promise<ChosenTokenizer> {
  if (path === undefined || path === 'gpt2') {
    const { vocabSize, endTokenId } = await gpt2Tokenizer();
    return {
      source: { kind: 'gpt2' },
      endTokenId: endTokenId!,
      described: { name: 'gpt2', vocabSize, endTokenId: endTokenId! },
      files: new Map(),
    };
  }
  const { vocabSize, endTokenId, name } = await loadTokenizer(path);
  if (vocabSize > MOST_IDS) throw tooManyIds(name, `${vocabSize} ids`);
  if (endTokenId === undefined) {
    throw new MatMambaError('TOKEN', `${name} has no end token to put between documents`, {
      hint: "name one as 'eos_token' in a tokenizer_config.json beside it",
    });
  }
  const file = (await stat(path)).isFile() ? path : join(path, TOKENIZER_FILE);
  const json = await readFile(file, 'utf8').catch((cause: unknown) => Promise.reject(fileError(cause, 'read', file)));
  const config = await readFile(join(dirname(file), CONFIG_FILE), 'utf8').catch((cause: unknown) => {
    if (errnoOf(cause) === 'ENOENT') return undefined;
    throw fileError(cause, 'read', CONFIG_FILE);
  });
  return chosen(json, config, { name, vocabSize, endTokenId });
}

function chosen(
  json: string,
  config: string | undefined,
  about: { name: string; vocabSize: number; endTokenId: number },
): ChosenTokenizer {
  const sha256 = createHash('sha256').update(json).digest('hex');
  return {
    source: { kind: 'json', name: about.name, json },
    endTokenId: about.endTokenId,
    described: { name: about.name, file: TOKENIZER_FILE, sha256, vocabSize: about.vocabSize, endTokenId: about.endTokenId },
    files: new Map([[TOKENIZER_FILE, json], ...(config === undefined ? [] : [[CONFIG_FILE, config] as const])]),
  };
}

export interface TrainTokenizerOptions {
  readonly vocabSize: number;
  /** Text from the beginning of the inputs that is counted. */
  readonly trainBytes: number;
  readonly workers: number;
  readonly tasks: TaskOptions;
  readonly runner: Omit<RunnerOptions, 'tokenizer'>;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: { readonly textBytes: number; readonly totalBytes: number }) => void) | undefined;
}

/**
 * Trains a byte-level BPE on the beginning of the inputs. Every rank counts the same text and so gets the same tokenizer.
 * @throws what reading throws; FORMAT when there is too little text; ABORTED
 */
export async function trainTokenizer(files: readonly InputFile[], options: TrainTokenizerOptions): Promise<ChosenTokenizer> {
  const { vocabSize, trainBytes, workers, signal } = options;
  await using pool = await WorkerPool.start(workers, options.runner);
  let textBytes = 0;
  const running: Promise<{ textBytes: number }>[] = [];
  const settle = async (): Promise<void> => {
    textBytes += (await running.shift()!).textBytes;
    options.onProgress?.({ textBytes, totalBytes: trainBytes });
  };
  for (const file of files) {
    if (textBytes >= trainBytes) break;
    try {
      for await (const { work } of tasksOf(file, FILE_START, options.tasks)) {
        throwIfAborted(signal);
        const task = pool.run(work);
        task.catch(() => undefined);
        running.push(task);
        if (running.length > TASKS_AHEAD) await settle();
        if (textBytes >= trainBytes) break;
      }
    } catch (error) {
      if (!options.runner.skipBad || !(error instanceof MatMambaError) || error.code !== 'FORMAT') throw error;
    }
  }
  while (running.length > 0) await settle();
  const json = trainBytePairs(await pool.takeCounts(), vocabSize);
  return chosen(json, undefined, { name: `bpe-${vocabSize}`, vocabSize, endTokenId: 0 });
}

/**
 * The tokenizer that an earlier run trained and put into the data folder; `undefined` when it is not there any more.
 * @throws FILE
 */
export async function trainedTokenizer(folder: string, described: Manifest['tokenizer']): Promise<ChosenTokenizer | undefined> {
  const path = join(folder, TOKENIZER_FILE);
  const json = await readFile(path, 'utf8').catch((cause: unknown) => {
    if (errnoOf(cause) === 'ENOENT') return '';
    throw fileError(cause, 'read', path);
  });
  const found = chosen(json, undefined, described);
  return found.described.sha256 === described.sha256 ? found : undefined;
}

/** Puts the tokenizer's files into the data folder. @throws FILE */
export async function saveTokenizer(folder: string, { files }: ChosenTokenizer): Promise<void> {
  await mkdir(folder, { recursive: true }).catch((cause: unknown) => Promise.reject(fileError(cause, 'write', folder)));
  for (const [name, content] of files) await writeFileAtomic(join(folder, name), content);
}
