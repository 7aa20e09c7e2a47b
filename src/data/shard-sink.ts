/**
 * Fills one shard after the other: the first may be for validation, the others for training.
 *
 * Shard numbers of several ranks interleave (rank r of n writes train shards r + 1, r + 1 + n, ...), so that they share
 * a folder without talking to each other; the validation shard is rank 0's.
 */

import { readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type Manifest, manifestName } from './manifest.ts';
import { ShardWriter, type ShardFile, removeLeftovers } from './shard-writer.ts';

export interface ShardSinkOptions {
  readonly folder: string;
  readonly rank: number;
  readonly ranks: number;
  readonly shardTokens: number;
  readonly validationTokens: number;
  readonly open?: ((path: string) => Promise<ShardFile>) | undefined;
}

export class ShardSink {
  readonly #options: ShardSinkOptions;
  readonly #manifest: Manifest;
  #writer: ShardWriter | undefined;

  /** @param manifest gets every finished shard */
  constructor(options: ShardSinkOptions, manifest: Manifest) {
    this.#options = options;
    this.#manifest = manifest;
  }

  /** Name and size of the next shard. */
  #next(): { readonly file: string; readonly split: 'train' | 'val'; readonly size: number } {
    const { rank, ranks, validationTokens, shardTokens } = this.#options;
    const validates = rank === 0 && validationTokens > 0;
    const { length } = this.#manifest.shards;
    if (validates && length === 0) return { file: shardName('val', 0), split: 'val', size: validationTokens };
    const number = rank + 1 + ranks * (length - (validates ? 1 : 0));
    return { file: shardName('train', number), split: 'train', size: shardTokens };
  }

  /** Removes shards of earlier runs that the manifest does not name, and what killed runs left behind. @throws FILE */
  async begin(): Promise<void> {
    const { folder, rank, ranks } = this.#options;
    const mine = (name: string): boolean => isShardOf(name, rank, ranks);
    const manifest = manifestName(rank, ranks);
    await removeLeftovers(folder, (name) => name === manifest || mine(name));
    const kept = new Set(this.#manifest.shards.map(({ file }) => file));
    for (const name of await readdir(folder))
      if (mine(name) && !kept.has(name)) await unlink(join(folder, name)).catch(() => undefined);
  }

  /** Writes ids up to the end of the shard; says how many, and whether that ended it. @throws FILE */
  async write(ids: Uint16Array): Promise<{ readonly taken: number; readonly full: boolean }> {
    const { folder, open } = this.#options;
    if (!this.#writer) {
      const { file, size } = this.#next();
      this.#writer = await ShardWriter.create(folder, file, size, open);
    }
    const part = ids.subarray(0, this.#writer.room);
    await this.#writer.write(part);
    const full = this.#writer.room === 0;
    if (full) await this.end();
    return { taken: part.length, full };
  }

  /** Finishes the shard that is being written, if there is one. @throws FILE */
  async end(): Promise<void> {
    const writer = this.#writer;
    if (!writer) return;
    const { file, split } = this.#next();
    const finished = await writer.finish();
    this.#writer = undefined;
    this.#manifest.shards.push({ file, split, ...finished });
    this.#manifest.tokens[split] += finished.tokens;
  }

  /** Gives up what is not finished. Never throws. */
  async discard(): Promise<void> {
    await this.#writer?.discard();
    this.#writer = undefined;
  }
}

/** `train_000001.bin` */
export function shardName(split: 'train' | 'val', number: number): string {
  return `${split}_${String(number).padStart(6, '0')}.bin`;
}

/** Whether a file name is that of a shard which this rank writes. */
export function isShardOf(name: string, rank: number, ranks: number): boolean {
  const found = /^(train|val)_(\d{6,})\.bin$/.exec(name);
  if (!found) return false;
  return found[1] === 'val' ? rank === 0 : (Number(found[2]) - 1) % ranks === rank;
}
