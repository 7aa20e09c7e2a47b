/**
 * From what a user names (files, folders, globs, hub datasets) to a sorted list of input files.
 *
 * The order is part of the result: named order first, paths inside a folder, glob or dataset by their characters, so
 * every machine makes the same shards.
 */

import { createHash } from 'node:crypto';
import { open, readdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileError } from '../checkpoint/file-errors.ts';
import { MatMambaError } from '../errors.ts';
import { type Compression, compressionOf } from './byte-stream.ts';
import { type HubDatasetOptions, HUB_PREFIX, listHubDataset } from './hub-dataset.ts';

export type InputFormat = 'parquet' | 'jsonl' | 'text';

export interface InputFile {
  /** As messages and the manifest name it. */
  readonly name: string;
  readonly format: InputFormat;
  readonly compression: Compression;
  readonly bytes: number;
  /** Tells whether the content is still the same. */
  readonly fingerprint: string;
  /** Where it lies; downloads it first when it is on the hub. @throws NETWORK, FILE */
  readonly locate: () => Promise<string>;
}

const FORMATS: Readonly<Record<string, InputFormat>> = {
  parquet: 'parquet',
  parq: 'parquet',
  jsonl: 'jsonl',
  ndjson: 'jsonl',
  json: 'jsonl',
  txt: 'text',
  text: 'text',
  md: 'text',
};
const KNOWN = '.parquet, .jsonl, .ndjson, .json (one object a line), .txt, .md; all but Parquet also with .gz, .xz or .zst';

/** Format and compression that a name says. */
export function formatOf(name: string): { readonly format: InputFormat; readonly compression: Compression } | undefined {
  const { compression, rest } = compressionOf(name);
  const format = FORMATS[(/\.([^./\\]+)$/.exec(rest)?.[1] ?? '').toLowerCase()];
  return format === undefined || (format === 'parquet' && compression !== 'none') ? undefined : { format, compression };
}

export interface ListInputsOptions extends HubDatasetOptions {
  /** Reads files of any name as this. */
  readonly format?: InputFormat | undefined;
}

/**
 * Every file that the inputs name.
 * @throws FILE when one is missing or nothing matches, OPTION for an unknown kind of file, NETWORK
 */
export async function listInputs(inputs: readonly string[], options: ListInputsOptions = {}): Promise<InputFile[]> {
  const files: InputFile[] = [];
  for (const input of inputs) {
    if (input.startsWith(HUB_PREFIX)) files.push(...(await hubFiles(input, options)));
    else files.push(...(await localFiles(input, options.format)));
  }
  const seen = new Set<string>();
  for (const { name } of files) {
    if (seen.has(name))
      throw new MatMambaError('OPTION', `${name} is named twice`, { hint: 'its text would be in the data twice: name it once' });
    seen.add(name);
  }
  return files;
}

async function localFiles(input: string, format: InputFormat | undefined): Promise<InputFile[]> {
  const stats = await stat(input).catch((cause: unknown) => {
    if (hasWildcard(input)) return undefined;
    throw fileError(cause, 'read', input);
  });
  if (stats?.isFile()) return [await localFile(input, format, stats.size)];
  const paths = stats ? (await walk(input)).filter((path) => format !== undefined || formatOf(path)) : await expandGlob(input);
  if (paths.length === 0) {
    throw new MatMambaError('FILE', stats ? `the folder ${input} holds no text files` : `no file matches ${input}`, {
      hint: `known files: ${KNOWN}`,
    });
  }
  return Promise.all(paths.map((path) => localFile(path, format)));
}

async function localFile(path: string, format: InputFormat | undefined, size?: number): Promise<InputFile> {
  const found = kindOf(path, format);
  const bytes = size ?? (await stat(path).catch((cause: unknown) => Promise.reject(fileError(cause, 'read', path)))).size;
  return { name: path, ...found, bytes, fingerprint: await fingerprint(path, bytes), locate: async () => path };
}

/** @throws OPTION for a name that says nothing */
function kindOf(
  name: string,
  format: InputFormat | undefined,
): { readonly format: InputFormat; readonly compression: Compression } {
  const found = format
    ? { format, compression: format === 'parquet' ? ('none' as const) : compressionOf(name).compression }
    : formatOf(name);
  if (found) return found;
  throw new MatMambaError('OPTION', `${name}: the name does not say what kind of file it is`, {
    hint: `known: ${KNOWN}; or say it with --format`,
  });
}

const FINGERPRINT_BYTES = 2 ** 16;

/** A hash of the size, the first and the last bytes: sees a file that was replaced, without reading it whole. */
async function fingerprint(path: string, size: number): Promise<string> {
  const hash = createHash('sha256').update(String(size));
  try {
    await using file = await open(path, 'r');
    for (const position of size > FINGERPRINT_BYTES ? [0, size - FINGERPRINT_BYTES] : [0]) {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(FINGERPRINT_BYTES), 0, FINGERPRINT_BYTES, position);
      hash.update(buffer.subarray(0, bytesRead));
    }
  } catch (cause) {
    throw fileError(cause, 'read', path);
  }
  return hash.digest('hex').slice(0, 32);
}

async function hubFiles(input: string, options: ListInputsOptions): Promise<InputFile[]> {
  const matches = (glob: string): ((path: string) => boolean) => {
    const pattern = globPattern(glob);
    // A folder of the dataset stands for everything in it.
    return (path) =>
      (options.format !== undefined || formatOf(path) !== undefined) &&
      (pattern.test(path) || path.startsWith(`${glob.replace(/\/+$/, '')}/`));
  };
  const { files, name } = await listHubDataset(input, matches, options);
  if (files.length === 0)
    throw new MatMambaError('FILE', `the dataset ${name} holds no text files that match`, { hint: `known files: ${KNOWN}` });
  return files.map(({ name, path, bytes, hash, locate }) => {
    const { format, compression } = kindOf(path, options.format);
    return { name, format, compression, bytes, fingerprint: hash, locate };
  });
}

/** Every file below a folder, sorted; names that start with a dot are left out. */
async function walk(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((cause: unknown) =>
    Promise.reject(fileError(cause, 'list', folder)),
  );
  const paths: string[] = [];
  for (const entry of entries) {
    if (entry.name.startsWith('.')) continue;
    const path = join(folder, entry.name);
    const kind = entry.isSymbolicLink() ? await stat(path).catch(() => undefined) : entry;
    if (kind?.isDirectory()) paths.push(...(await walk(path)));
    else if (kind?.isFile()) paths.push(path);
  }
  return paths.sort(byCharacters);
}

export const byCharacters = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

export function hasWildcard(path: string): boolean {
  return /[*?[{]/.test(path);
}

/** Files that match a glob: everything below its last folder without wildcards is looked at. */
async function expandGlob(glob: string): Promise<string[]> {
  const parts = glob.split('/');
  const fixed = parts.slice(0, parts.findIndex(hasWildcard)).join('/');
  const root = fixed === '' ? (glob.startsWith('/') ? '/' : '.') : fixed;
  const pattern = globPattern(resolve(root, parts.slice(parts.findIndex(hasWildcard)).join('/')));
  const isFolder = await stat(root).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
  return isFolder ? (await walk(root)).filter((path) => pattern.test(resolve(path))) : [];
}

/** A glob as a pattern: `*` and `?` stay inside a folder, `**` does not, `{a,b}` is either, `[a-z]` is one of these. */
export function globPattern(glob: string): RegExp {
  let source = '';
  let braces = 0;
  for (let at = 0; at < glob.length; at++) {
    const character = glob[at]!;
    const set = character === '[' ? /^\[(!|\^)?([^\]/]+)\]/.exec(glob.slice(at)) : null;
    if (glob.startsWith('**/', at)) [source, at] = [`${source}(?:[^/]+/)*`, at + 2];
    else if (glob.startsWith('**', at)) [source, at] = [`${source}.*`, at + 1];
    else if (character === '*') source += '[^/]*';
    else if (character === '?') source += '[^/]';
    else if (set) [source, at] = [`${source}[${set[1] ? '^' : ''}${set[2]!.replaceAll('\\', '\\\\')}]`, at + set[0].length - 1];
    else if (character === '{') [source, braces] = [`${source}(?:`, braces + 1];
    else if (character === '}' && braces > 0) [source, braces] = [`${source})`, braces - 1];
    else if (character === ',' && braces > 0) source += '|';
    else source += character.replace(/[\\^$.*+?()[\]{}|/]/, '\\$&');
  }
  return new RegExp(`^${source}${')'.repeat(braces)}$`);
}
