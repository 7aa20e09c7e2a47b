/** `matmamba train` in processes that torchrun's variables or MPI place: whole runs, sharded and not, and one that dies. */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildPackage } from './support/built.ts';

const STEPS = 6;

let cli = '';
let folder = '';
beforeAll(() => {
  cli = fileURLToPath(new URL('./cli/main.js', buildPackage('matmamba-test-ranks')));
  folder = mkdtempSync(join(tmpdir(), 'matmamba-ranks-'));
  const head = new Int32Array(256);
  head.set([20240520, 1, 3000]);
  const ids = Uint16Array.from({ length: 3000 }, (_, i) => (i * i + (i >> 3)) % 37);
  writeFileSync(join(folder, 'tokens.bin'), Buffer.concat([Buffer.from(head.buffer), Buffer.from(ids.buffer)]));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly code: number | null;
  readonly output: string;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** The command that trains into a folder. */
function commandOf(out: string, more: readonly string[]): string[] {
  const words = `train lm --data ${join(folder, 'tokens.bin')} --tokenizer ${folder} --out ${join(folder, out)} --d-model 32 --layers 2
    --d-state 8 --vocabulary 40 --length 16 --steps ${STEPS} --batch 4 --micro-batch 2 --lr 5e-3 --warmup 2 --levels 1,4
    --save-every 2 --threads 1 --blas off --json`;
  return [cli, ...words.split(/\s+/), ...more];
}

async function end(child: ChildProcess, onOutput: (all: string) => void = () => {}): Promise<Ended> {
  let output = '';
  child.stdout!.on('data', (bytes: Buffer) => onOutput((output += bytes.toString())));
  child.stderr!.on('data', (bytes: Buffer) => (output += bytes.toString()));
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, output };
}

/** Trains into a folder; rank 1 is killed once rank 0 has told of a step, if asked. */
async function train(out: string, size: number, more: readonly string[] = [], killAt?: number): Promise<Ended[]> {
  const port = await freePort();
  const place = { WORLD_SIZE: String(size), MASTER_ADDR: '127.0.0.1', MASTER_PORT: String(port) };
  const children = Array.from({ length: size }, (_, rank) =>
    spawn(process.execPath, commandOf(out, more), { env: { ...process.env, ...place, RANK: String(rank) } }),
  );
  const onOutput = (all: string): void => {
    if (killAt !== undefined && all.includes(`"step":${killAt},`)) children[1]!.kill('SIGKILL');
  };
  return Promise.all(children.map((child) => end(child, onOutput)));
}

function hasMpirun(): boolean {
  try {
    execFileSync('mpirun', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

const lastOf = (out: string): Buffer[] =>
  ['model.safetensors', 'optimizer/model.safetensors'].map((name) =>
    readFileSync(join(folder, out, `checkpoints/step-${String(STEPS).padStart(8, '0')}`, name)),
  );

describe('two processes without MPI', () => {
  test('train, and sharded to the same bits', async () => {
    for (const [out, more] of [
      ['plain', []],
      ['sharded', ['--shard-optimizer']],
    ] as const) {
      const ended = await train(out, 2, more);
      for (const { code, output } of ended) expect(code, output).toBe(0);
      expect(ended[0]!.output).toContain(`"step":${STEPS},`);
      // Rank 0 speaks.
      expect(ended[1]!.output).toBe('');
    }
    for (const [i, file] of lastOf('sharded').entries()) expect(file.equals(lastOf('plain')[i]!)).toBe(true);
  });

  test('one that is killed ends the job by name, and the same command goes on', async () => {
    const [first] = await train('killed', 2, ['--shard-optimizer'], 3);
    expect(first!.code, first!.output).not.toBe(0);
    expect(first!.output).toMatch(/rank 1 of 2 on host \S+ is gone/);
    const again = await train('killed', 2, ['--shard-optimizer']);
    for (const { code, output } of again) expect(code, output).toBe(0);
    expect(again[0]!.output).not.toContain('"step":1,');
    for (const [i, file] of lastOf('killed').entries()) expect(file.equals(lastOf('plain')[i]!)).toBe(true);
  });
});

const required = (process.env['MATMAMBA_REQUIRE'] ?? '').split(',').includes('mpi');

describe.skipIf(!required && !hasMpirun())('two processes under mpirun (skipped where it is missing)', () => {
  test('train sharded to the same bits as not', async () => {
    const asRoot = { OMPI_ALLOW_RUN_AS_ROOT: '1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1' };
    for (const [out, more] of [
      ['mpi', []],
      ['mpi-sharded', ['--shard-optimizer']],
    ] as const) {
      const words = ['--oversubscribe', '-n', '2', process.execPath, ...commandOf(out, more)];
      const { code, output } = await end(spawn('mpirun', words, { env: { ...process.env, ...asRoot } }));
      expect(code, output).toBe(0);
    }
    for (const [i, file] of lastOf('mpi-sharded').entries()) expect(file.equals(lastOf('mpi')[i]!)).toBe(true);
  });
});
