/**
 * Training by torchrun's variables: a group of one speaks NCCL and changes no bit, sharded or not, in steps that run whole
 * and in others; with several GPUs, that many ranks train as one does.
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadLibrary } from '../../src/backends/cuda/libraries.ts';
import { messageOf } from '../../src/errors.ts';
import type { Tensor } from '../../src/index.ts';
import { checkClose, checkSame, checkThat } from '../support/close.ts';
import { countDevices } from '../support/cuda-device.ts';
import { readTensors } from '../support/golden.ts';
import { DEVICE, available } from './harness.ts';

const STEPS = 8;

/** Why there is no NCCL; the CPU needs none. */
const missing =
  DEVICE === 'cuda'
    ? await loadLibrary('nccl').then(
        () => undefined,
        (error: unknown) => messageOf(error),
      )
    : undefined;
const skip = missing ?? false;

const scratch = mkdtempSync(join(tmpdir(), 'matmamba-gpu-ranks-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Runs `training-run.ts` in so many processes, or with 0 in one that no launcher started; what they printed. */
async function run(out: string, size: number, ...flags: readonly string[]): Promise<string> {
  const script = fileURLToPath(new URL('./training-run.js', import.meta.url));
  const environment: NodeJS.ProcessEnv = { ...process.env, NCCL_DEBUG: 'VERSION' };
  delete environment['NODE_TEST_CONTEXT'];
  const port = String(await freePort());
  const outputs = Array.from({ length: Math.max(1, size) }, async (_, rank) => {
    const numbers = { RANK: String(rank), LOCAL_RANK: String(rank), WORLD_SIZE: String(size) };
    const place = size > 0 ? { ...numbers, MASTER_ADDR: '127.0.0.1', MASTER_PORT: port } : {};
    const child = spawn(process.execPath, [script, join(scratch, out), ...flags], { env: { ...environment, ...place } });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (part: Buffer) => (output += part.toString()));
    const code = await new Promise((resolve) => child.on('close', resolve));
    checkThat(code === 0, `rank ${rank} of ${size} ended with code ${String(code)}: ${output}`);
    return output;
  });
  return (await Promise.all(outputs)).join('');
}

function lastFolder(out: string): string {
  const folder = join(scratch, out, 'checkpoints');
  return join(folder, readdirSync(folder).sort().at(-1)!);
}

/** Weights and moments of the last checkpoint. */
function lastOf(out: string): Buffer[] {
  return ['model.safetensors', 'optimizer/model.safetensors'].map((name) => readFileSync(join(lastFolder(out), name)));
}

const weightsOf = (out: string): Promise<Record<string, Tensor>> => readTensors(join(lastFolder(out), 'model.safetensors'));

function checkSameRuns(got: string, expected: string): void {
  for (const [i, file] of lastOf(got).entries()) checkSame(file, lastOf(expected)[i]!, i === 0 ? 'weights' : 'moments');
}

for (const dtype of available(['f32', 'bf16-mixed'])) {
  for (const cut of [[], ['cut']]) {
    const name = [dtype, ...cut].join('-');
    void test(`a group of one trains to the same bits through NCCL, ${name}`, { skip }, async () => {
      const flags = [dtype, String(STEPS), ...cut];
      await run(`alone-${name}`, 0, ...flags);
      for (const [out, ...shard] of [[`group-${name}`], [`sharded-${name}`, 'shard']] as [string, ...string[]][]) {
        const printed = await run(out, 1, ...flags, ...shard);
        checkThat(DEVICE !== 'cuda' || printed.includes('NCCL version'), `NCCL ran: ${printed}`);
        checkSameRuns(out, `alone-${name}`);
      }
    });
  }
}

const devices = DEVICE === 'cuda' ? await countDevices() : 2;
const ranks = devices >= 4 ? 4 : 2;

void test(`${ranks} ranks train the same, sharded or not`, { skip: skip || (devices < 2 && 'there is one GPU') }, async () => {
  for (const [out, ...shard] of [['several'], ['several-sharded', 'shard'], ['several-again']] as [string, ...string[]][]) {
    await run(out, ranks, 'f32', String(STEPS), ...shard);
  }
  checkSameRuns('several-again', 'several');
  // Norms add up in another order when sharded, so the last bits may differ.
  const sharded = await weightsOf('several-sharded');
  for (const [name, tensor] of Object.entries(await weightsOf('several'))) {
    checkClose(sharded[name]!.toFloat32(), tensor.toFloat32(), 1e-4, name);
  }
});
