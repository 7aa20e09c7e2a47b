/** A model's folder behind a URL: its small files and its weights, each fetched once and kept. */

import { MatMambaError } from '../../errors.ts';
import { openShards, openCheckpointSource } from '../checkpoint.ts';
import { LAYOUTS } from '../layout.ts';
import { type ByteSource, blobSource } from '../source.ts';
import type { Checkpoint } from '../types.ts';
import { type DownloadOptions, type FetchProgress, download } from './download.ts';

export interface UrlFolderOptions extends Omit<DownloadOptions, 'onProgress'> {
  readonly onProgress?: ((progress: FetchProgress & { readonly file: string }) => void) | undefined;
}

export class UrlFolder {
  /** Ends in a slash. */
  readonly url: string;
  readonly #options: UrlFolderOptions;

  constructor(url: string, options: UrlFolderOptions) {
    this.url = url.endsWith('/') ? url : `${url}/`;
    this.#options = options;
  }

  /** A file's bytes, or undefined where there is none. @throws NETWORK, ABORTED */
  async file(name: string): Promise<Blob | undefined> {
    const { onProgress, ...rest } = this.#options;
    const url = new URL(name, this.url).href;
    return download(url, { ...rest, onProgress: onProgress && ((progress) => onProgress({ file: name, ...progress })) });
  }

  /** The weights, in the first layout that is there. @throws FILE, NETWORK, FORMAT, UNSAFE, ABORTED */
  async openWeights(): Promise<Checkpoint> {
    const { signal } = this.#options;
    const source = async (name: string): Promise<ByteSource | undefined> => {
      const blob = await this.file(name);
      return blob && blobSource(blob, new URL(name, this.url).href);
    };
    for (const layout of LAYOUTS) {
      const single = await source(layout.single);
      if (single) return openCheckpointSource(single, { signal });
      const index = await source(layout.index);
      if (!index) continue;
      const shard = async (name: string): Promise<ByteSource> => {
        const found = await source(name);
        if (found) return found;
        throw new MatMambaError('FILE', `${this.url} lacks ${name}, which its index names`);
      };
      return openShards(index, shard, layout, { signal });
    }
    throw new MatMambaError('FILE', `${this.url} holds no weights`, {
      hint: `looked for ${LAYOUTS.flatMap(({ single, index }) => [single, index]).join(', ')}`,
    });
  }
}
