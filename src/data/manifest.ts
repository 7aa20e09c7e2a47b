/**
 * `manifest.json` of a data folder: what its shards were made from and how, their hashes, and, while they are being
 * made, where to go on.
 *
 * Invariants: replaced as a whole after every shard, so it never names a shard that is not there; holds no times and no
 * machine names, so a broken and resumed run ends with the same bytes as an unbroken one.
 */

import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { writeFileAtomic } from '../checkpoint/atomic-file.ts';
import { errnoOf, fileError } from '../checkpoint/file-errors.ts';
import { MatMambaError, messageOf } from '../errors.ts';

export const MANIFEST_VERSION = 1;

const count = z.number().int().nonnegative();
const countsSchema = z.object({ documents: count, emptyDocuments: count, textBytes: count, skipped: count });
const shardSchema = z.object({
  file: z.string(),
  split: z.enum(['train', 'val']),
  tokens: count,
  bytes: count,
  sha256: z.string(),
});

const schema = z.object({
  format: z.literal('matmamba text data'),
  version: z.literal(MANIFEST_VERSION),
  complete: z.boolean(),
  /** Everything that decides about the bytes of the shards. */
  options: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
  tokenizer: z.object({
    name: z.string(),
    file: z.string().optional(),
    sha256: z.string().optional(),
    vocabSize: count,
    endTokenId: count,
  }),
  inputs: z.array(z.object({ name: z.string(), bytes: count, fingerprint: z.string() })),
  shards: z.array(shardSchema),
  /** Of the shards, and of all that is in them. */
  tokens: z.object({ train: count, val: count }),
  counts: countsSchema,
  /** What was left out, the first hundred. */
  skipped: z.array(z.object({ where: z.string(), reason: z.string() })),
  /** Where the next shard begins: a task of an input file, and how many of its tokens are in shards already. */
  next: z
    .object({ input: count, offset: count, line: count, group: count, continued: z.boolean(), tokensDone: count })
    .optional(),
});

export type Manifest = z.output<typeof schema>;
export type Counts = z.output<typeof countsSchema>;

/** The manifest's name; every rank of several writes its own. */
export function manifestName(rank: number, ranks: number): string {
  return ranks === 1 ? 'manifest.json' : `manifest-${rank}-of-${ranks}.json`;
}

/** The manifest of a folder; `undefined` when there is none. @throws FILE, FORMAT */
export async function readManifest(folder: string, name = 'manifest.json'): Promise<Manifest | undefined> {
  const path = join(folder, name);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return undefined;
    throw fileError(cause, 'read', path);
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    const reason =
      cause instanceof z.ZodError ? `${cause.issues[0]!.path.join('.')}: ${cause.issues[0]!.message}` : messageOf(cause);
    throw new MatMambaError('FORMAT', `${path} is not a manifest of text data: ${reason}`, {
      cause,
      hint: 'choose another folder, or start over with --force',
    });
  }
}

export async function writeManifest(folder: string, name: string, manifest: Manifest): Promise<void> {
  await writeFileAtomic(join(folder, name), `${JSON.stringify(manifest, null, 2)}\n`);
}

/**
 * Refuses to go on with data that was begun in another way.
 * @throws OPTION naming the first difference; FILE when a finished shard is missing or has another size
 */
export async function checkSameWork(
  folder: string,
  old: Manifest,
  now: Pick<Manifest, 'options' | 'tokenizer' | 'inputs'>,
): Promise<void> {
  const difference = differenceOf(old, now);
  if (difference !== undefined) {
    throw new MatMambaError('OPTION', `${folder} holds data that was begun in another way: ${difference}`, {
      hint: 'give the same options and inputs to go on with it, choose another folder, or start over with --force',
    });
  }
  for (const { file, bytes } of old.shards) {
    const size = await stat(join(folder, file)).then(
      (stats) => stats.size,
      () => undefined,
    );
    if (size === bytes) continue;
    throw new MatMambaError(
      'FILE',
      `${join(folder, file)} ${size === undefined ? 'is missing' : `has ${size} bytes, not ${bytes}`}, which the manifest names`,
      {
        hint: 'put it back, or start over with --force',
      },
    );
  }
}

function differenceOf(old: Manifest, now: Pick<Manifest, 'options' | 'tokenizer' | 'inputs'>): string | undefined {
  for (const key of new Set([...Object.keys(old.options), ...Object.keys(now.options)])) {
    if (old.options[key] !== now.options[key])
      return `${key} was ${JSON.stringify(old.options[key])}, now ${JSON.stringify(now.options[key])}`;
  }
  if (JSON.stringify(old.tokenizer) !== JSON.stringify(now.tokenizer))
    return `the tokenizer was ${old.tokenizer.name}, now it is ${now.tokenizer.name} or another version`;
  if (old.inputs.length !== now.inputs.length) return `there were ${old.inputs.length} input files, now ${now.inputs.length}`;
  for (const [i, was] of old.inputs.entries()) {
    const is = now.inputs[i]!;
    if (was.name !== is.name) return `input ${i + 1} was ${was.name}, now ${is.name}`;
    if (was.fingerprint !== is.fingerprint || was.bytes !== is.bytes) return `${is.name} has changed`;
  }
  return undefined;
}
