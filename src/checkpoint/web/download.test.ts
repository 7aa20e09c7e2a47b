/** Downloads from servers that break off, change their mind, or know no ranges. */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { download } from './download.ts';
import { type FileStore, memoryStore } from './store.ts';

const close: (() => void)[] = [];
afterEach(() => {
  for (const end of close.splice(0)) end();
});

const bytesOf = (seed: number, length = 300_000): Buffer =>
  Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 31 + seed * 7 + (i >> 8)) & 255));

interface Host {
  readonly url: string;
  readonly requests: { method: string; range: string | undefined; ifRange: string | undefined }[];
  content: Buffer;
  etag: string | undefined;
  /** Bytes after which the next answers break off. */
  breaks: number[];
  ranges: boolean;
  status: number;
  /** What happens on the server before it answers. */
  before: () => void;
}

async function host(): Promise<Host> {
  const server = createServer((request, response) => answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
  close.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const self: Host = {
    url: `http://localhost:${(server.address() as AddressInfo).port}/file`,
    requests: [],
    content: bytesOf(1),
    etag: '"one"',
    breaks: [],
    ranges: true,
    status: 200,
    before: () => {},
  };
  function answer(request: IncomingMessage, response: ServerResponse): void {
    const { range, 'if-range': ifRange } = request.headers;
    self.before();
    self.requests.push({ method: request.method!, range, ifRange: ifRange as string | undefined });
    const { content, etag } = self;
    if (self.status !== 200) return void response.writeHead(self.status).end();
    if (etag) response.setHeader('ETag', etag);
    const start = self.ranges && range && (!ifRange || ifRange === etag) ? Number(/\d+/.exec(range)![0]) : 0;
    if (start > content.length) return void response.writeHead(416).end();
    if (start > 0) response.setHeader('Content-Range', `bytes ${start}-${content.length - 1}/${content.length}`);
    response.writeHead(start > 0 ? 206 : 200, { 'Content-Length': content.length - start });
    if (request.method === 'HEAD') return void response.end();
    const limit = self.breaks.shift();
    if (limit === undefined) return void response.end(content.subarray(start));
    response.write(content.subarray(start, start + limit), () => setTimeout(() => response.destroy(), 5));
  }
  return self;
}

async function bytesFrom(url: string, store: FileStore): Promise<Buffer> {
  const blob = await download(url, { store, retries: 2 });
  return Buffer.from(await blob!.arrayBuffer());
}

describe('download', () => {
  test('is kept, and asked about only by its head', async () => {
    const server = await host();
    const store = memoryStore();
    expect((await bytesFrom(server.url, store)).equals(server.content)).toBe(true);
    expect((await bytesFrom(server.url, store)).equals(server.content)).toBe(true);
    expect(server.requests.map(({ method }) => method)).toEqual(['GET', 'HEAD']);
  });

  test('goes on where it broke off, however often, with the version it began with', async () => {
    const server = await host();
    server.breaks = [100_000, 60_000, 50_000];
    const store = memoryStore();
    expect((await bytesFrom(server.url, store)).equals(server.content)).toBe(true);
    expect(server.requests.map(({ range }) => range)).toEqual([undefined, 'bytes=100000-', 'bytes=160000-', 'bytes=210000-']);
    expect(server.requests[1]!.ifRange).toBe('"one"');
  });

  test('goes on in a later session', async () => {
    const server = await host();
    server.breaks = [100_000, 0, 0, 0, 0];
    const store = memoryStore();
    await expect(bytesFrom(server.url, store)).rejects.toMatchObject({ code: 'NETWORK' });
    server.breaks = [];
    server.requests.length = 0;
    expect((await bytesFrom(server.url, store)).equals(server.content)).toBe(true);
    expect(server.requests.map(({ range }) => range)).toEqual(['bytes=100000-']);
  });

  test('a file that changes while it is fetched is fetched anew', async () => {
    const server = await host();
    server.breaks = [100_000];
    const store = memoryStore();
    const next = bytesOf(2, 250_000);
    const told: boolean[] = [];
    const onProgress = ({ changed = false }): void => void told.push(changed);
    const running = download(server.url, { store, onProgress });
    await new Promise((resolve) => setTimeout(resolve, 60));
    Object.assign(server, { content: next, etag: '"two"' });
    expect(Buffer.from(await (await running)!.arrayBuffer()).equals(next)).toBe(true);
    expect([told[0], told.at(-1)]).toEqual([false, true]);
    expect(server.requests[1]!.ifRange).toBe('"one"');
  });

  test.each([
    ['that goes by If-Range', true],
    ['that does not', false],
  ])(
    'a file that changes again and again is given up, on a server %s',
    async (_, minds) => {
      const server = await host();
      const ask: typeof fetch = async (url, init) => {
        const headers = new Headers(init?.headers);
        if (!minds) headers.delete('If-Range');
        return fetch(url, { ...init, headers });
      };
      let version = 1;
      server.breaks = Array.from({ length: 20 }, () => 60_000);
      server.before = () => Object.assign(server, { content: bytesOf(++version), etag: `"${version}"` });
      await expect(download(server.url, { store: memoryStore(), fetch: ask })).rejects.toMatchObject({
        code: 'NETWORK',
        message: expect.stringContaining('the file changed while it was fetched'),
        hint: 'it changes again and again: try later',
      });
      expect(server.requests.length).toBeLessThan(10);
    },
    30_000,
  );

  test('so is one whose server ignores If-Range, or gives a shorter file', async () => {
    const server = await host();
    server.breaks = [100_000];
    const store = memoryStore();
    const running = download(server.url, { store });
    await new Promise((resolve) => setTimeout(resolve, 60));
    Object.assign(server, { content: bytesOf(3, 50_000), etag: undefined });
    expect((await (await running)!.arrayBuffer()).byteLength).toBe(50_000);
  });

  test('a kept file that changed on the server is fetched anew', async () => {
    const server = await host();
    const store = memoryStore();
    await bytesFrom(server.url, store);
    Object.assign(server, { content: bytesOf(4), etag: '"four"' });
    let isChanged = false;
    const blob = await download(server.url, { store, onProgress: ({ changed = false }) => void (isChanged = changed) });
    expect(Buffer.from(await blob!.arrayBuffer()).equals(server.content)).toBe(true);
    expect(isChanged).toBe(true);
  });

  test('without ranges or a version it starts over', async () => {
    const server = await host();
    server.ranges = false;
    server.breaks = [100_000];
    expect((await bytesFrom(server.url, memoryStore())).equals(server.content)).toBe(true);
    server.etag = undefined;
    server.breaks = [100_000];
    server.requests.length = 0;
    expect((await bytesFrom(server.url, memoryStore())).equals(server.content)).toBe(true);
    expect(server.requests.map(({ range }) => range)).toEqual([undefined, undefined]);
  });

  test('what is kept, or known not to be there, needs no network', async () => {
    const server = await host();
    const store = memoryStore();
    await bytesFrom(server.url, store);
    server.status = 404;
    expect(await download(`${server.url}/other`, { store })).toBeUndefined();
    const offline = async (): Promise<never> => Promise.reject(new TypeError('no network'));
    expect((await download(server.url, { store, fetch: offline }))!.size).toBe(server.content.length);
    expect(await download(`${server.url}/other`, { store, fetch: offline })).toBeUndefined();
    expect(await download(server.url, { store })).toBeUndefined();
  });

  test('errors are coded: refused, unsteady, aborted, silent', async () => {
    const server = await host();
    server.status = 403;
    await expect(download(server.url, { store: memoryStore() })).rejects.toMatchObject({ code: 'NETWORK' });
    server.status = 500;
    await expect(download(server.url, { store: memoryStore(), retries: 1 })).rejects.toThrow(/status 500/);
    server.status = 200;
    const controller = new AbortController();
    controller.abort();
    await expect(download(server.url, { store: memoryStore(), signal: controller.signal })).rejects.toMatchObject({
      code: 'ABORTED',
    });
    const silent = async (): Promise<Response> => new Response(new ReadableStream());
    await expect(download(server.url, { store: memoryStore(), fetch: silent, timeoutMs: 20, retries: 1 })).rejects.toThrow(
      /nothing came for 20 ms/,
    );
  });

  test('a store without room gives way to memory', async () => {
    const server = await host();
    const full: FileStore = {
      ...memoryStore(),
      open: async () => ({
        write: () => {
          throw new DOMException('full', 'QuotaExceededError');
        },
        truncate: () => {},
        flush: () => {},
        close: () => {},
      }),
    };
    expect((await bytesFrom(server.url, full)).equals(server.content)).toBe(true);
  });
});
