/** A model's folder where there is no file system: behind a URL, each file fetched once and kept, or files in memory. */

import { MatMambaError } from '../../errors.ts';
import { openShards, openCheckpointSource } from '../checkpoint.ts';
import { LAYOUTS } from '../layout.ts';
import { type ByteSource, blobSource } from '../source.ts';
import type { Checkpoint } from '../types.ts';
import { type DownloadOptions, type FetchProgress, download } from './download.ts';

export interface UrlFolderOptions extends Omit<DownloadOptions, 'onProgress'> {
  readonly onProgress?: ((progress: FetchProgress & { readonly file: string }) => void) | undefined;
}

/** Files by name, which need be in no file system. */
export interface FileFolder {
  /** A URL that ends in a slash, or what to call it in messages. */
  readonly name: string;
  /** A file's bytes, or undefined where there is none. */
  file(name: string): Promise<Blob | undefined>;
}

export class UrlFolder implements FileFolder {
  /** Ends in a slash. */
  readonly name: string;
  readonly #options: UrlFolderOptions;

  constructor(url: string, options: UrlFolderOptions) {
    this.name = url.endsWith('/') ? url : `${url}/`;
    this.#options = options;
  }

  /** @throws NETWORK, ABORTED */
  async file(name: string): Promise<Blob | undefined> {
    const { onProgress, ...rest } = this.#options;
    const url = new URL(name, this.name).href;
    return download(url, { ...rest, onProgress: onProgress && ((progress) => onProgress({ file: name, ...progress })) });
  }
}

/** Files in memory, or ones that a person chose. */
export function memoryFolder(files: Readonly<Record<string, Blob>>): FileFolder {
  return { name: 'the given files/', file: async (name) => (Object.hasOwn(files, name) ? files[name] : undefined) };
}

/** The weights of a folder, in the first layout that is there. @throws FILE, NETWORK, FORMAT, UNSAFE, ABORTED */
export async function openFolderWeights(folder: FileFolder, signal: AbortSignal | undefined): Promise<Checkpoint> {
  const source = async (name: string): Promise<ByteSource | undefined> => {
    const blob = await folder.file(name);
    return blob && blobSource(blob, folder.name + name);
  };
  for (const layout of LAYOUTS) {
    const single = await source(layout.single);
    if (single) return openCheckpointSource(single, { signal });
    const index = await source(layout.index);
    if (!index) continue;
    const shard = async (name: string): Promise<ByteSource> => {
      const found = await source(name);
      if (found) return found;
      throw new MatMambaError('FILE', `${folder.name} lacks ${name}, which its index names`);
    };
    return openShards(index, shard, layout, { signal });
  }
  throw new MatMambaError('FILE', `${folder.name} holds no weights`, {
    hint: `looked for ${LAYOUTS.flatMap(({ single, index }) => [single, index]).join(', ')}`,
  });
}
