/** The tokenizer files that lie beside a model's weights, and their copy when the model is saved elsewhere. */

import { writeFileAtomic } from '../checkpoint/index.ts';
import { MatMambaError, messageOf } from '../errors.ts';
import { type Tokenizer, loadTokenizer, tokenizerFromJson } from '../text/index.ts';
import type { OpenModel } from './load.ts';

const TOKENIZER_FILES = ['tokenizer.json', 'tokenizer_config.json'] as const;

/** The files that a tokenizer was loaded from, so that saving a model can take them along; undefined where there is none. */
const origins = new WeakMap<Tokenizer, (name: string) => Promise<string | undefined>>();

/** The folder's tokenizer, or undefined when it has none (the published models hold none). @throws FORMAT */
export async function loadFolderTokenizer(folder: string): Promise<Tokenizer | undefined> {
  const { stat } = await import('node:fs/promises');
  if (!(await stat(`${folder}/${TOKENIZER_FILES[0]}`).catch(() => undefined))) return undefined;
  const tokenizer = await loadTokenizer(folder);
  origins.set(tokenizer, (name) => readText(`${folder}/${name}`));
  return tokenizer;
}

/** The tokenizer beside an open model, or undefined when it has none. @throws FORMAT, NETWORK */
export async function loadModelTokenizer({ folder, fetched }: OpenModel): Promise<Tokenizer | undefined> {
  if (!fetched) return loadFolderTokenizer(folder);
  const blobs = await Promise.all(TOKENIZER_FILES.map(async (name) => [name, await fetched(name)] as const));
  const [json, config] = await Promise.all(blobs.map(([name, blob]) => parse(blob, folder + name)));
  if (json === undefined) return undefined;
  const tokenizer = tokenizerFromJson(json, config, folder.split('/').at(-2) || folder);
  const byName = new Map<string, Blob | undefined>(blobs);
  origins.set(tokenizer, async (name) => byName.get(name)?.text());
  return tokenizer;
}

async function parse(blob: Blob | undefined, name: string): Promise<unknown> {
  if (!blob) return undefined;
  try {
    return JSON.parse(await blob.text()) as unknown;
  } catch (cause) {
    throw new MatMambaError('FORMAT', `${name} is not valid JSON: ${messageOf(cause)}`, { cause });
  }
}

/** The files of a tokenizer that came from a folder, by name. @throws FILE */
export async function tokenizerFiles(tokenizer: Tokenizer | undefined): Promise<Readonly<Record<string, string>>> {
  const textOf = tokenizer && origins.get(tokenizer);
  const files: Record<string, string> = {};
  for (const name of textOf ? TOKENIZER_FILES : []) {
    const text = await textOf!(name);
    if (text !== undefined) files[name] = text;
  }
  return files;
}

/** Writes them into another folder. @throws FILE */
export async function saveTokenizerFiles(tokenizer: Tokenizer | undefined, folder: string): Promise<void> {
  for (const [name, text] of Object.entries(await tokenizerFiles(tokenizer))) await writeFileAtomic(`${folder}/${name}`, text);
}

async function readText(path: string): Promise<string | undefined> {
  const { readFile } = await import('node:fs/promises');
  return readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw new MatMambaError('FILE', `cannot read ${path}`, { cause: error });
  });
}
