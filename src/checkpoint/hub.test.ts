import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { openCheckpoint } from './checkpoint.ts';
import { type DownloadProgress, type ResolveModelOptions, resolveModel } from './hub.ts';
import { saveTensors } from './save.ts';
import { sample, withFolder } from './testing.ts';

const ID = 'owner/model';
const COMMIT = '0123456789abcdef0123456789abcdef01234567';

interface Seen {
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}

/** The parts of the hub that are called: model info, file list, resolve (with Range). `act` may answer first. */
class FakeHub {
  readonly files: Map<string, Uint8Array>;
  readonly seen: Seen[] = [];
  act: (request: IncomingMessage, response: ServerResponse) => boolean = () => false;
  readonly #server: Server;

  constructor(files: Record<string, Uint8Array | string>) {
    this.files = new Map(
      Object.entries(files).map(([name, data]) => [name, typeof data === 'string' ? new TextEncoder().encode(data) : data]),
    );
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Requests for one file. */
  requests(name: string): Seen[] {
    return this.seen.filter(({ path }) => path.endsWith(`/${name}`));
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
    const path = new URL(request.url!, 'http://x').pathname;
    this.seen.push({ path, range: request.headers.range, authorization: request.headers.authorization });
    if (this.act(request, response)) return;
    if (path.startsWith(`/api/models/${ID}/revision/`))
      return json(response, { id: ID, sha: COMMIT, lastModified: '2024-01-01' });
    if (path === `/api/models/${ID}/tree/${COMMIT}`)
      return json(
        response,
        [...this.files].map(([name, data]) => listing(name, data)),
      );
    const name = path.slice(`/${ID}/resolve/${COMMIT}/`.length);
    const data = path.startsWith(`/${ID}/resolve/${COMMIT}/`) ? this.files.get(name) : undefined;
    if (!data) {
      response.writeHead(404, { 'X-Error-Code': 'RepoNotFound' }).end();
      return;
    }
    sendRange(request, response, data);
  }
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));
}

function startOf(request: IncomingMessage): number {
  return Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
}

function sendRange(request: IncomingMessage, response: ServerResponse, data: Uint8Array, stopAt = data.length): void {
  const start = startOf(request);
  response.writeHead(request.headers.range ? 206 : 200, {
    'Content-Length': data.length - start,
    ...(request.headers.range ? { 'Content-Range': `bytes ${start}-${data.length - 1}/${data.length}` } : {}),
  });
  const part = data.subarray(start, stopAt);
  if (stopAt === data.length) response.end(part);
  else response.write(part);
}

function listing(path: string, data: Uint8Array): object {
  const git = createHash('sha1').update(`blob ${data.length}\0`).update(data).digest('hex');
  const large = data.length > 10_000;
  const lfs = { oid: createHash('sha256').update(data).digest('hex'), size: data.length, pointerSize: 130 };
  return {
    type: 'file',
    path,
    size: data.length,
    oid: large ? 'f'.repeat(40) : git,
    ...(large ? { lfs, xetHash: 'e'.repeat(64) } : {}),
  };
}

const WEIGHTS = sample('w', 'u8', [1_000_000]);
let weightsFile: Uint8Array | undefined;

/** A hub with a model, and a cache folder. */
async function withHub(
  body: (hub: FakeHub, options: ResolveModelOptions & { cacheDir: string }) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    if (!weightsFile) {
      await saveTensors(join(folder, 'm'), 'safetensors', [WEIGHTS]);
      weightsFile = await readFile(join(folder, 'm', 'model.safetensors'));
    }
    await using hub = await new FakeHub({
      'config.json': '{"d_model": 128}',
      'tokenizer.json': '{}',
      'tokenizer_config.json': '{}',
      'README.md': '# model',
      'pytorch_model.bin': 'not wanted',
      'training.log': 'not wanted',
      'model.safetensors': weightsFile,
    }).listen();
    await body(hub, { cacheDir: join(folder, 'cache'), endpoint: hub.endpoint, timeoutMs: 300, retries: 2 });
  });
}

/** An address where nobody listens any more. */
async function closedEndpoint(): Promise<string> {
  await using hub = await new FakeHub({}).listen();
  return hub.endpoint;
}

async function expectWeights(folder: string): Promise<void> {
  const checkpoint = await openCheckpoint(folder);
  expect(Buffer.compare(await checkpoint.entries.get('w')!.read(), WEIGHTS.bytes)).toBe(0); // toEqual takes seconds for a million bytes
  await checkpoint.close();
}

afterEach(() => vi.unstubAllEnvs());

describe('resolveModel', () => {
  test('a folder wins; what is neither folder nor id is explained', async () => {
    await withFolder(async (folder) => {
      expect(await resolveModel(folder)).toEqual({ folder, source: 'folder' });
      await writeFile(join(folder, 'x.pt'), '');
      await expect(resolveModel(join(folder, 'x.pt'))).rejects.toMatchObject({
        code: 'FILE',
        hint: expect.stringMatching(/folder that holds it/),
      });
      for (const id of ['./missing', 'gpt2', 'a/b/c', '../x/y', ''])
        await expect(resolveModel(id)).rejects.toMatchObject({ code: 'FILE' });
      await expect(resolveModel(ID, { cachedir: folder } as object)).rejects.toMatchObject({
        code: 'OPTION',
        hint: "did you mean 'cacheDir'?",
      });
      await expect(resolveModel(ID, { revision: '../../x' })).rejects.toMatchObject({ code: 'OPTION' });
      await expect(resolveModel(ID, { endpoint: 'ftp://x' })).rejects.toMatchObject({ code: 'OPTION' });
    });
  });

  test('downloads only what is needed, in the shared cache layout, then works offline', async () => {
    await withHub(async (hub, options) => {
      const progress: DownloadProgress[] = [];
      const model = await resolveModel(ID, { ...options, progressCallback: (p) => progress.push(p) });
      const storage = join(options.cacheDir, 'models--owner--model');
      expect(model).toEqual({ folder: join(storage, 'snapshots', COMMIT), source: 'hub', commit: COMMIT });
      expect((await readdir(model.folder)).sort()).toEqual([
        'config.json',
        'model.safetensors',
        'tokenizer.json',
        'tokenizer_config.json',
      ]);
      expect(await readFile(join(storage, 'refs', 'main'), 'utf8')).toBe(COMMIT);
      await expectWeights(model.folder);
      const last = progress.findLast(({ file }) => file === 'model.safetensors')!;
      expect(last).toEqual({ file: 'model.safetensors', loadedBytes: weightsFile!.length, totalBytes: weightsFile!.length });

      const before = hub.seen.length;
      expect(await resolveModel(ID, { ...options, localFilesOnly: true })).toMatchObject({
        folder: model.folder,
        source: 'cache',
      });
      expect(await resolveModel(ID, { ...options, revision: COMMIT })).toMatchObject({ source: 'cache' });
      vi.stubEnv('HF_HUB_OFFLINE', '1');
      expect(await resolveModel(ID, options)).toMatchObject({ source: 'cache' });
      expect(hub.seen.length).toBe(before);
      vi.unstubAllEnvs();
      // Online, an unchanged model costs one request, and a hub that is down none that matter.
      expect(await resolveModel(ID, options)).toMatchObject({ source: 'cache' });
      expect(hub.seen.length).toBe(before + 1);
      expect(await resolveModel(ID, { ...options, endpoint: await closedEndpoint() })).toMatchObject({ source: 'cache' });
    });
  });

  test("the hub's environment variables", async () => {
    await withHub(async (hub, { cacheDir }) => {
      vi.stubEnv('HF_ENDPOINT', `${hub.endpoint}/`);
      vi.stubEnv('HF_HOME', cacheDir);
      vi.stubEnv('HF_HUB_CACHE', undefined);
      vi.stubEnv('HUGGINGFACE_HUB_CACHE', undefined);
      vi.stubEnv('HF_TOKEN', 'hf_secret');
      const { folder } = await resolveModel(ID);
      expect(folder.startsWith(join(cacheDir, 'hub'))).toBe(true);
      expect(hub.seen.every(({ authorization }) => authorization === 'Bearer hf_secret')).toBe(true);
    });
  });

  test('the token does not follow a redirect to another origin', async () => {
    await withHub(async (hub, options) => {
      await using storage = await new FakeHub({}).listen();
      storage.act = (request, response) => (sendRange(request, response, weightsFile!), true);
      hub.act = (request, response) => {
        if (!request.url!.endsWith('model.safetensors')) return false;
        response.writeHead(302, { Location: `${storage.endpoint}/blob` }).end();
        return true;
      };
      const { folder } = await resolveModel(ID, { ...options, token: 'hf_secret' });
      await expectWeights(folder);
      expect(storage.seen).toHaveLength(1);
      expect(storage.seen[0]!.authorization).toBeUndefined();
    });
  });

  test('a connection cut in the middle goes on with Range, within one call', async () => {
    await withHub(async (hub, options) => {
      let cuts = 0;
      hub.act = (request, response) => {
        if (!request.url!.endsWith('model.safetensors') || cuts >= 5) return false;
        cuts++;
        const stop = startOf(request) + 150_000;
        sendRange(request, response, weightsFile!, stop);
        setTimeout(() => response.destroy(), 20);
        return true;
      };
      // Five cuts with two retries: every piece that arrives starts the count anew.
      const { folder } = await resolveModel(ID, options);
      await expectWeights(folder);
      const ranges = hub.requests('model.safetensors').map(({ range }) => range);
      expect(ranges).toHaveLength(6);
      expect(ranges[0]).toBeUndefined();
      for (const range of ranges.slice(1)) expect(range).toMatch(/^bytes=[1-9]\d*-$/);
    });
  }, 20_000);

  test('a call that broke off is resumed by the next call', async () => {
    await withHub(async (hub, options) => {
      hub.act = (request, response) => {
        if (!request.url!.endsWith('model.safetensors')) return false;
        sendRange(request, response, weightsFile!, 400_000);
        setTimeout(() => response.destroy(), 30);
        return true;
      };
      await expect(resolveModel(ID, { ...options, retries: 0 })).rejects.toMatchObject({ code: 'NETWORK' });
      const blobs = join(options.cacheDir, 'models--owner--model', 'blobs');
      const incomplete = (await readdir(blobs)).find((name) => name.endsWith('.incomplete'))!;
      const { size } = await stat(join(blobs, incomplete));
      expect(size).toBe(400_000);
      await expect(resolveModel(ID, { ...options, localFilesOnly: true })).rejects.toMatchObject({
        code: 'NETWORK',
        hint: expect.stringMatching(/HF_HUB_OFFLINE/),
      });
      hub.act = () => false;
      await expectWeights((await resolveModel(ID, options)).folder);
      expect(hub.requests('model.safetensors').at(-1)!.range).toBe(`bytes=${size}-`);
      expect((await readdir(blobs)).some((name) => name.endsWith('.incomplete'))).toBe(false);
    });
  });

  test('a server that ignores Range, and a wrong part left behind', async () => {
    await withHub(async (hub, options) => {
      await expect(
        resolveModel(ID, {
          ...options,
          retries: 0,
          progressCallback: ({ file }) => {
            if (file === 'model.safetensors') throw new Error('stop');
          },
        }),
      ).rejects.toThrow('stop');
      const blobs = join(options.cacheDir, 'models--owner--model', 'blobs');
      const blob = createHash('sha256').update(weightsFile!).digest('hex');
      await writeFile(join(blobs, `${blob}.incomplete`), new Uint8Array(1000));
      await expect(resolveModel(ID, options)).rejects.toMatchObject({
        code: 'NETWORK',
        message: expect.stringMatching(/damaged/),
      });
      await writeFile(join(blobs, `${blob}.incomplete`), new Uint8Array(1000));
      hub.act = (request) => {
        delete request.headers.range;
        return false;
      };
      await expectWeights((await resolveModel(ID, options)).folder);
    });
  });

  test.each([
    [401, '', /HF_TOKEN/],
    [403, '', /accept its conditions/],
    [404, 'RepoNotFound', /spelling of the id/],
    [404, 'RevisionNotFound', /no such revision/],
  ])('answer %i %s', async (status, code, hint) => {
    await withHub(async (hub, options) => {
      hub.act = (_request, response) => (response.writeHead(status, { 'X-Error-Code': code }).end('{}'), true);
      await expect(resolveModel(ID, options)).rejects.toMatchObject({
        code: 'NETWORK',
        message: expect.stringContaining(String(status)),
        hint: expect.stringMatching(hint),
      });
      expect(hub.seen).toHaveLength(1);
    });
  });

  test('5xx is tried again, then reported; a page that is no answer of the hub is named', async () => {
    await withHub(async (hub, options) => {
      let failures = 1;
      hub.act = (_request, response) => failures-- > 0 && (response.writeHead(503).end(), true);
      await resolveModel(ID, options);
      await withHub(async (down, others) => {
        down.act = (_request, response) => (response.writeHead(500).end(), true);
        await expect(resolveModel(ID, { ...others, retries: 1 })).rejects.toMatchObject({
          code: 'NETWORK',
          hint: expect.stringMatching(/try again later/),
        });
        expect(down.seen).toHaveLength(2);
        down.act = (_request, response) => (
          response.writeHead(200, { 'Content-Type': 'text/html' }).end('<html>log in</html>'),
          true
        );
        await expect(resolveModel(ID, others)).rejects.toMatchObject({
          code: 'NETWORK',
          hint: expect.stringMatching(/login page/),
        });
      });
    });
  });

  test.each([
    ['before the answer', '/revision/', 0],
    ['in the middle of a file', 'model.safetensors', 100_000],
  ])('a connection that stalls %s ends in time', async (_when, part, sent) => {
    await withHub(async (hub, options) => {
      hub.act = (request, response) => {
        if (!request.url!.includes(part)) return false;
        if (sent > 0 && startOf(request) === 0) sendRange(request, response, weightsFile!, sent);
        return true;
      };
      const started = performance.now();
      await expect(resolveModel(ID, { ...options, timeoutMs: 150, retries: 1 })).rejects.toMatchObject({
        code: 'NETWORK',
        message: expect.stringMatching(/sent nothing for 0\.15 s/),
      });
      expect(performance.now() - started).toBeLessThan(5000);
    });
  });

  test('nobody listens', async () => {
    await withFolder(async (folder) => {
      await expect(resolveModel(ID, { cacheDir: folder, endpoint: await closedEndpoint() })).rejects.toMatchObject({
        code: 'NETWORK',
        message: expect.stringMatching(/ECONNREFUSED/),
      });
    });
  });

  test('an abort ends it at once and the part that arrived stays', async () => {
    await withHub(async (hub, options) => {
      await expect(resolveModel(ID, { ...options, signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' });
      const controller = new AbortController();
      hub.act = (request, response) => {
        if (!request.url!.endsWith('model.safetensors')) return false;
        sendRange(request, response, weightsFile!, 200_000);
        setTimeout(() => controller.abort(), 50);
        return true;
      };
      await expect(resolveModel(ID, { ...options, timeoutMs: 60_000, signal: controller.signal })).rejects.toMatchObject({
        code: 'ABORTED',
      });
      hub.act = () => false;
      await expectWeights((await resolveModel(ID, options)).folder);
      expect(hub.requests('model.safetensors').at(-1)!.range).toBe('bytes=200000-');
    });
  });

  test('shards by their index; pytorch when there is nothing else; missing parts are named', async () => {
    await withHub(async (hub, options) => {
      const shard = weightsFile!;
      hub.files.delete('model.safetensors');
      hub.files.set(
        'model.safetensors.index.json',
        new TextEncoder().encode('{"weight_map": {"w": "model-00001-of-00001.safetensors"}}'),
      );
      await expect(resolveModel(ID, options)).rejects.toMatchObject({
        code: 'FILE',
        message: expect.stringMatching(/model-00001-of-00001/),
      });
      hub.files.set('model-00001-of-00001.safetensors', shard);
      await expectWeights((await resolveModel(ID, options)).folder);
    });
    await withHub(async (hub, options) => {
      hub.files.delete('model.safetensors');
      expect(await readdir((await resolveModel(ID, options)).folder)).toContain('pytorch_model.bin');
      hub.files.delete('pytorch_model.bin');
      await expect(resolveModel(ID, { ...options, cacheDir: join(options.cacheDir, 'b') })).rejects.toMatchObject({
        code: 'FILE',
        message: expect.stringMatching(/no weights \(it holds config\.json/),
      });
    });
  });
});
