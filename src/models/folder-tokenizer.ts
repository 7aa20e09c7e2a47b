/** The tokenizer files that lie beside a model's weights, and their copy when the model is saved elsewhere. */

import { writeFileAtomic } from '../checkpoint/index.ts';
import { MatMambaError, messageOf } from '../errors.ts';
import { type Tokenizer, loadTokenizer, tokenizerFromJson } from '../text/index.ts';
import type { OpenModel } from './load.ts';

const TOKENIZER_FILES = ['tokenizer.json', 'tokenizer_config.json'] as const;

/** Where a tokenizer was loaded from, so that saving a model can take its files along. */
const folders = new WeakMap<Tokenizer, string>();

/** The folder's tokenizer, or undefined when it has none (the published models hold none). @throws FORMAT */
export async function loadFolderTokenizer(folder: string): Promise<Tokenizer | undefined> {
  const { stat } = await import('node:fs/promises');
  if (!(await stat(`${folder}/${TOKENIZER_FILES[0]}`).catch(() => undefined))) return undefined;
  const tokenizer = await loadTokenizer(folder);
  folders.set(tokenizer, folder);
  return tokenizer;
}

/** The tokenizer beside an open model, or undefined when it has none. @throws FORMAT, NETWORK */
export async function loadModelTokenizer({ folder, fetched }: OpenModel): Promise<Tokenizer | undefined> {
  if (!fetched) return loadFolderTokenizer(folder);
  const [json, config] = await Promise.all(TOKENIZER_FILES.map(async (name) => parse(await fetched(name), folder + name)));
  return json === undefined ? undefined : tokenizerFromJson(json, config, new URL(folder).pathname.split('/').at(-2) || folder);
}

async function parse(blob: Blob | undefined, name: string): Promise<unknown> {
  if (!blob) return undefined;
  try {
    return JSON.parse(await blob.text()) as unknown;
  } catch (cause) {
    throw new MatMambaError('FORMAT', `${name} is not valid JSON: ${messageOf(cause)}`, { cause });
  }
}

/** Copies the files of a tokenizer that came from a folder. @throws FILE */
export async function saveTokenizerFiles(tokenizer: Tokenizer | undefined, folder: string): Promise<void> {
  const from = tokenizer && folders.get(tokenizer);
  if (from === undefined) return;
  const { readFile } = await import('node:fs/promises');
  for (const name of TOKENIZER_FILES) {
    const bytes = await readFile(`${from}/${name}`).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw new MatMambaError('FILE', `cannot read ${from}/${name}`, { cause: error });
    });
    if (bytes) await writeFileAtomic(`${folder}/${name}`, bytes);
  }
}
