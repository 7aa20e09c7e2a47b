/** Two to four ranks that find each other by torchrun's variables, with the sources compiled to plain JavaScript first. */

import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { type Server, createServer } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compileDistributed } from './testing.ts';

const job = fileURLToPath(new URL('./fixtures/mpi-job.mjs', import.meta.url));
const HERE = hostname();

interface Ended {
  readonly code: number | null;
  readonly output: string;
  /** What it printed as JSON. */
  readonly said: Record<string, unknown> | undefined;
}

/** A port that nobody listens at. */
async function freePort(): Promise<number> {
  const server: Server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe('ranks without MPI', () => {
  let folder = '';
  beforeAll(() => {
    folder = compileDistributed();
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  function start(scenario: string, variables: Record<string, string>): { child: ChildProcess; ended: Promise<Ended> } {
    const child = spawn(process.execPath, [job, join(folder, 'distributed/index.js'), scenario], {
      env: { ...process.env, MASTER_ADDR: 'localhost', ...variables },
    });
    let [output, errors] = ['', ''];
    child.stdout.on('data', (bytes: Buffer) => (output += bytes.toString()));
    child.stderr.on('data', (bytes: Buffer) => (errors += bytes.toString()));
    const ended = new Promise<Ended>((resolve) => {
      child.on('close', (code) => {
        const line = output.split('\n').find((text) => text.startsWith('{'));
        resolve({
          code,
          output: output + errors,
          said: line === undefined ? undefined : (JSON.parse(line) as Record<string, unknown>),
        });
      });
    });
    return { child, ended };
  }

  /** All ranks of a job, but for those that never come. */
  async function run(
    scenario: string,
    size = 2,
    absent: readonly number[] = [],
    more: Record<string, string> = {},
  ): Promise<Ended[]> {
    const port = await freePort();
    // Rank 0 last: the others must wait for it.
    const ranks = Array.from({ length: size }, (_, i) => size - 1 - i).filter((rank) => !absent.includes(rank));
    const variables = { WORLD_SIZE: String(size), MASTER_PORT: String(port), ...more };
    const ended = await Promise.all(ranks.map((rank) => start(scenario, { RANK: String(rank), ...variables }).ended));
    return ended.reverse();
  }

  const outputs = (ranks: readonly Ended[]): string => ranks.map(({ output }) => output).join('\n');

  it.each([2, 3, 4])('sums odd lengths, doubles and shared memory over %i ranks', async (size) => {
    const ranks = await run('sums', size);
    for (const { code, said } of ranks) {
      expect(code, outputs(ranks)).toBe(0);
      expect(said!['failures']).toEqual([]);
      expect(said!['double']).toBe(size + ((size * (size - 1)) / 2) * 2 ** -40);
      expect(said!['shared']).toBe((size * (size + 1)) / 2);
    }
  });

  it('sums and copies what goes in pieces, and refuses a rank that does not exist', async () => {
    const large = await run('large');
    for (const { said } of large) expect(said, outputs(large)).toMatchObject({ wrong: 0, last: 10 });
    const copied = await run('broadcast');
    for (const { said } of copied)
      expect(said, outputs(copied)).toMatchObject({ weights: [1, 1], bytes: [0, 7], refused: 'OPTION' });
  });

  it.each([2, 3])('gives the same bits every time and on each of %i ranks, in buckets too', async (size) => {
    const all = [await run('repeats', size), await run('buckets', size)];
    for (const ranks of all) {
      expect(
        ranks.every(({ code }) => code === 0),
        outputs(ranks),
      ).toBe(true);
      expect(new Set(ranks.flatMap(({ said }) => said!['hashes'] as string[])).size).toBe(1);
    }
  });

  it('is a group of one too', async () => {
    const [only] = await run('sums', 1);
    expect(only, only!.output).toMatchObject({ code: 0, said: { failures: [], double: 1 } });
  });

  it.each([
    ['throws', 'TypeError: the loss is made of cheese'],
    ['aborts', 'the disk is full'],
    ['exits', 'it ended with exit code 3'],
    ['leaves', 'it ended before the others'],
  ])('a rank that %s breaks the group and is named', async (scenario, reason) => {
    const [first, second, third] = await run(scenario, 3);
    const words = `rank 1 of 3 on host ${HERE} ends the job: ${reason}`;
    expect(second!.output).toContain(words);
    for (const other of [first!, third!]) {
      expect(other.code, other.output).not.toBe(0);
      expect(other.output).toContain(words);
    }
  });

  it('a rank that is killed is named by the others', async () => {
    const [first, , third] = await run('killed', 3);
    for (const other of [first!, third!]) {
      expect(other.code, other.output).not.toBe(0);
      expect(other.output).toContain(`rank 1 of 3 on host ${HERE} is gone`);
    }
  });

  it('rank 0 that is killed is named too', async () => {
    const [, second] = await run('firstKilled', 2);
    expect(second!.output).toContain(`rank 0 of 2 on host ${HERE} is gone`);
    expect(second!.code).not.toBe(0);
  });

  it('tells those that wait for something else that a rank is gone', async () => {
    const [first, , third] = await run('lost', 3);
    for (const other of [first!, third!])
      expect(other.said?.['lost'], other.output).toBe(`rank 1 of 3 on host ${HERE} is gone: its connection was closed`);
  });

  it('a rank that does not arrive in time is waited for no longer', async () => {
    const [first] = await run('late', 2);
    expect(first!.code).not.toBe(0);
    expect(first!.output).toContain(`rank 0 of 2 on host ${HERE}: the other ranks did not arrive within 1 seconds`);
  });

  it('ranks that never come are named, and whoever waits is told', async () => {
    const [first, second] = await run('late', 4, [2, 3]);
    expect(first!.output).toMatch(/rank 0 of 4 on host \S+: ranks 2, 3 of 4 did not come to localhost:\d+ within 1 seconds/);
    expect(second!.output).toMatch(/rank 1 of 4 on host \S+: turned away by rank 0: .*ranks 2, 3 of 4 did not come/);
    const [alone] = await run('late', 2, [0]);
    expect(alone!.output).toMatch(
      /rank 1 of 2 on host \S+: rank 0 was not reached at localhost:\d+ within 1 seconds: .*ECONNREFUSED/,
    );
  });

  it('ranks that are out of step get an error instead of a deadlock', async () => {
    const ranks = await run('outOfStep');
    expect(ranks[0]!.said?.['message']).toMatch(
      /ranks are out of step: rank 0 of 2 .* calls sum \(44 bytes\), rank 1 of 2 .* sum \(40 bytes\)/,
    );
    expect(ranks[1]!.said?.['message']).toContain('ranks are out of step');
  });

  it('two processes of one rank, and jobs of different sizes, are refused', async () => {
    const port = String(await freePort());
    const variables = { WORLD_SIZE: '3', MASTER_PORT: port };
    const places = [{ RANK: '0' }, { RANK: '1' }, { RANK: '1' }];
    const ended = await Promise.all(places.map((place) => start('late', { ...variables, ...place }).ended));
    expect(ended[0]!.output).toMatch(/both say that they are rank 1/);
    const other = String(await freePort());
    const sizes = [
      { RANK: '0', WORLD_SIZE: '2' },
      { RANK: '1', WORLD_SIZE: '4' },
    ];
    const refused = await Promise.all(sizes.map((place) => start('late', { MASTER_PORT: other, ...place }).ended));
    expect(refused[0]!.output).toMatch(/rank 1 on host \S+ was started as one of 4 processes/);
  });

  it('a port that is taken is an error with its number', async () => {
    const server = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
    const { port } = server.address() as { port: number };
    const ended = await Promise.all(
      ['0', '1'].map((RANK) => start('sums', { RANK, WORLD_SIZE: '2', MASTER_PORT: String(port) }).ended),
    );
    server.close();
    expect(ended[0]!.output).toContain(`cannot listen at localhost:${port}`);
    expect(ended[0]!.output).toContain('EADDRINUSE');
    expect(ended[1]!.output).toContain(`rank 0 at localhost:${port} hung up`);
  });
});
