/** Two and three ranks under mpirun, with the sources compiled to plain JavaScript first. */

import { execFile, execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compileDistributed } from './testing.ts';

const job = fileURLToPath(new URL('./fixtures/mpi-job.mjs', import.meta.url));

function hasMpirun(): boolean {
  try {
    execFileSync('mpirun', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

interface Outcome {
  readonly code: number;
  readonly output: string;
  readonly seconds: number;
  /** What each rank printed, rank 0 first. */
  readonly ranks: Record<string, unknown>[];
}

/** `MATMAMBA_REQUIRE=mpi` turns the skip into a failure. */
const required = (process.env['MATMAMBA_REQUIRE'] ?? '').split(',').includes('mpi');

describe.skipIf(!required && !hasMpirun())('MPI (skipped where mpirun is missing: apt-get install openmpi-bin)', () => {
  let folder = '';
  beforeAll(() => {
    folder = compileDistributed();
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  function run(scenario: string, ranks = 2, library?: string): Promise<Outcome> {
    const module = join(folder, 'distributed/index.js');
    const asRoot = { OMPI_ALLOW_RUN_AS_ROOT: '1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1' };
    const words = [
      '--oversubscribe',
      '-n',
      String(ranks),
      process.execPath,
      job,
      module,
      scenario,
      ...(library ? [library] : []),
    ];
    const start = performance.now();
    return new Promise((resolve) => {
      execFile('mpirun', words, { env: { ...process.env, ...asRoot }, timeout: 50_000 }, (error, stdout, stderr) => {
        const lines = stdout.split('\n').filter((line) => line.startsWith('{'));
        resolve({
          code: typeof error?.code === 'number' ? error.code : error ? -1 : 0,
          output: stdout + stderr,
          seconds: (performance.now() - start) / 1000,
          ranks: lines
            .map((line) => JSON.parse(line) as Record<string, unknown>)
            .sort((a, b) => Number(a['rank']) - Number(b['rank'])),
        });
      });
    });
  }

  it.each([2, 3])('sums odd lengths, doubles and shared memory over %i ranks', async (size) => {
    const { ranks, output } = await run('sums', size);
    expect(ranks, output).toHaveLength(size);
    for (const { failures, double, shared } of ranks) {
      expect(failures).toEqual([]);
      expect(double).toBe(size + ((size * (size - 1)) / 2) * 2 ** -40);
      expect(shared).toBe((size * (size + 1)) / 2);
    }
  });

  it('sums more than 2^24 numbers', async () => {
    const { ranks, output } = await run('large');
    expect(ranks, output).toMatchObject([
      { wrong: 0, last: 10 },
      { wrong: 0, last: 10 },
    ]);
  });

  it('broadcasts from any rank, and refuses a rank that does not exist', async () => {
    const { ranks, output } = await run('broadcast');
    const expected = { weights: [1, 1], bytes: [0, 7], refused: 'OPTION' };
    expect(ranks, output).toMatchObject([expected, expected]);
  });

  it.each([2, 3])('gives the same bits every time and on each of %i ranks', async (size) => {
    const { ranks, output } = await run('repeats', size);
    expect(ranks, output).toHaveLength(size);
    expect(new Set(ranks.flatMap(({ hashes }) => hashes as string[])).size).toBe(1);
  });

  it('sums buckets the same whatever the order in which gradients become ready', async () => {
    const { ranks, output } = await run('buckets');
    expect(ranks, output).toHaveLength(2);
    expect(ranks.every(({ untouched, count }) => untouched === true && count === 5)).toBe(true);
    expect(new Set(ranks.flatMap(({ hashes }) => hashes as string[])).size).toBe(1);
  });

  it("leaves the engine's traps alone", async () => {
    const { ranks, output } = await run('traps');
    expect(ranks, output).toMatchObject([{ name: 'RuntimeError' }, { name: 'RuntimeError' }]);
  });

  it.each([
    ['throws', 'TypeError: the loss is made of cheese'],
    ['rejects', 'RangeError: nobody caught me'],
    ['aborts', 'the disk is full'],
    ['exits', 'it ended with exit code 3'],
    ['leaves', 'it ended before the others'],
  ])('a rank that %s ends the job and is named', async (scenario, reason) => {
    const { code, output, seconds } = await run(scenario);
    expect(code, output).not.toBe(0);
    expect(output).toContain(`rank 1 of 2 on host ${hostname()} ends the job: ${reason}`);
    expect(seconds).toBeLessThan(15);
  });

  it('a rank that is killed ends the job: the launcher names it', async () => {
    const { code, output, seconds } = await run('killed');
    expect(code, output).not.toBe(0);
    expect(output).toMatch(/rank 1 .*on node \S+ exited on signal 9/);
    expect(seconds).toBeLessThan(15);
  });

  it('a rank that does not arrive in time is waited for no longer', async () => {
    const { code, output } = await run('late');
    expect(code).not.toBe(0);
    expect(output).toContain('rank 0 of 2');
    expect(output).toContain('the other ranks did not arrive within 1 seconds');
  });

  it('ranks that are out of step get an error instead of a deadlock', async () => {
    const { ranks, output } = await run('outOfStep');
    expect(ranks, output).toHaveLength(2);
    expect(ranks[0]?.['message']).toContain('rank 0 of 2');
    expect(ranks[0]?.['message']).toContain('ranks are out of step: this one calls sum (44 bytes)');
  });

  it('says what to install when the library is missing', async () => {
    const { code, output } = await run('sums', 2, 'libmpi-of-nobody.so');
    expect(code).not.toBe(0);
    expect(output).toContain('no MPI library can be used: libmpi-of-nobody.so');
    expect(output).toContain('apt-get install openmpi-bin');
  });
});
