import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { withFolder } from '../checkpoint/testing.ts';
import { type HubDatasetOptions, parseHubInput } from './hub-dataset.ts';
import { listInputs } from './inputs.ts';
import { prepareText } from './prepare.ts';
import { jsonLines, parquetFile, sampleDocuments, sampleTokenizer, tokensOf, writeFiles } from './testing.ts';

const ID = 'owner/texts';
const COMMIT = '0123456789abcdef0123456789abcdef01234567';

/** The parts of the hub that are called: dataset info, file list, resolve (with Range). */
class FakeHub {
  readonly #files: Map<string, Uint8Array>;
  readonly downloads: { path: string; range: string | undefined }[] = [];
  /** Breaks every download off after so many bytes. */
  breakAfter = Infinity;
  readonly #server: Server;

  constructor(files: Readonly<Record<string, Uint8Array>>) {
    this.#files = new Map(Object.entries(files));
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async listen(): Promise<this> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { pathname } = new URL(request.url!, 'http://x');
    const json = (value: unknown): void =>
      void response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));
    if (pathname.startsWith(`/api/datasets/${ID}/revision/`)) return json({ id: ID, sha: COMMIT, lastModified: '2024-01-01' });
    if (pathname === `/api/datasets/${ID}/tree/${COMMIT}`)
      return json([...this.#files].map(([path, data]) => listing(path, data)));
    const prefix = `/datasets/${ID}/resolve/${COMMIT}/`;
    const path = decodeURIComponent(pathname.slice(prefix.length));
    const data = pathname.startsWith(prefix) ? this.#files.get(path) : undefined;
    if (!data) return void response.writeHead(404, { 'X-Error-Code': 'RepoNotFound' }).end();
    const { range } = request.headers;
    this.downloads.push({ path, range });
    const start = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0);
    response.writeHead(range ? 206 : 200, {
      'Content-Length': data.length - start,
      ...(range ? { 'Content-Range': `bytes ${start}-${data.length - 1}/${data.length}` } : {}),
    });
    if (start + this.breakAfter >= data.length) response.end(data.subarray(start));
    else response.write(data.subarray(start, start + this.breakAfter), () => setTimeout(() => response.destroy(), 20));
  }
}

function listing(path: string, data: Uint8Array): object {
  const sha256 = createHash('sha256').update(data).digest('hex');
  return {
    type: 'file',
    path,
    size: data.length,
    oid: 'f'.repeat(40),
    lfs: { oid: sha256, size: data.length, pointerSize: 130 },
  };
}

async function withHub(body: (hub: FakeHub, folder: string, options: HubDatasetOptions) => Promise<void>): Promise<void> {
  const documents = [0, 1, 2].map((seed) => sampleDocuments(10, seed));
  await withFolder(async (folder) => {
    await writeFiles(folder, { 'tokenizer.json': sampleTokenizer() });
    await using hub = await new FakeHub({
      'README.md': Buffer.from('# texts'),
      'data/b.parquet': await parquetFile(documents[1]!),
      'data/a 1.parquet': await parquetFile(documents[0]!),
      'more/c.jsonl': Buffer.from(jsonLines(documents[2]!)),
      'photo.png': Buffer.from('no'),
    }).listen();
    await body(hub, folder, { cacheDir: join(folder, 'cache'), endpoint: hub.endpoint, timeoutMs: 2000, retries: 2 });
  });
}

describe('hub datasets', () => {
  test('names are taken apart', () => {
    expect(parseHubInput('hub:owner/name')).toEqual({ id: 'owner/name', revision: 'main', glob: undefined });
    expect(parseHubInput('hub:owner/name/')).toEqual({ id: 'owner/name', revision: 'main', glob: undefined });
    expect(parseHubInput('hub:owner/name@v1/a/*.parquet')).toEqual({ id: 'owner/name', revision: 'v1', glob: 'a/*.parquet' });
    for (const bad of ['hub:owner', 'hub:', 'hub:a/../b', 'hub:owner/name@../x/y'])
      expect(() => parseHubInput(bad)).toThrow(/names no dataset/);
  });

  test('are listed by glob or folder, and downloaded when their turn comes', async () => {
    await withHub(async (hub, folder, options) => {
      const names = async (input: string): Promise<string[]> =>
        (await listInputs([input], options)).map(({ name }) => name.split('/').slice(2).join('/'));
      expect(await names(`hub:${ID}/data/*.parquet`)).toEqual(['data/a 1.parquet', 'data/b.parquet']);
      expect(await names(`hub:${ID}/more`)).toEqual(['more/c.jsonl']);
      expect(await names(`hub:${ID}/**/*.{jsonl,parquet}`)).toEqual(['data/a 1.parquet', 'data/b.parquet', 'more/c.jsonl']);
      await expect(names(`hub:${ID}/none/*`)).rejects.toMatchObject({ code: 'FILE' });
      expect(hub.downloads).toEqual([]);
      const base = { tokenizer: join(folder, 'tokenizer.json'), validationTokens: 0, workers: 0 };
      const { manifest } = await prepareText({
        ...base,
        inputs: [`hub:${ID}/**/*.{jsonl,parquet}`],
        out: join(folder, 'out'),
        hub: options,
      });
      expect(manifest.counts.documents).toBe(30);
      expect(manifest.inputs[0]!.name).toBe(`hub:${ID}@${COMMIT}/data/a 1.parquet`);
      expect(hub.downloads.length).toBe(3);
      // Offline, the same from the cache.
      const offline = { cacheDir: options.cacheDir, localFilesOnly: true };
      await prepareText({ ...base, inputs: [`hub:${ID}/**/*.{jsonl,parquet}`], out: join(folder, 'again'), hub: offline });
      expect(await tokensOf(join(folder, 'again'))).toEqual(await tokensOf(join(folder, 'out')));
      expect(hub.downloads.length).toBe(3);
      await expect(listInputs(['hub:owner/other'], offline)).rejects.toMatchObject({ code: 'NETWORK' });
    });
  });

  test('a download that breaks off goes on where it stopped', async () => {
    await withHub(async (hub, _, options) => {
      hub.breakAfter = 300;
      const [file] = await listInputs([`hub:${ID}/more`], options);
      const [first, second] = await Promise.all([file!.locate(), file!.locate()]);
      expect(second).toBe(first);
      expect(hub.downloads.slice(0, 3).map(({ range }) => range)).toEqual([undefined, 'bytes=300-', 'bytes=600-']);
    });
  });
});
