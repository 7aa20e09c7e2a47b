/**
 * Runs the GPU tests: `main.js [FILE…] [--name PATTERN]`, where a file is named by its first word (`conformance`). Ends
 * with 0 when all passed, 1 when some failed, 77 where there is no CUDA device.
 */

import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { acquireBackend } from '../../src/backends/open.ts';
import { messageOf } from '../../src/errors.ts';
import { whyNoCuda } from '../support/cuda-device.ts';

const NO_DEVICE = 77;
const USAGE = 2;
const SUFFIX = '.test.js';

const here = fileURLToPath(new URL('./', import.meta.url));
const names = readdirSync(here).flatMap((file) => (file.endsWith(SUFFIX) ? [file.slice(0, -SUFFIX.length)] : []));

/** Why the device cannot be opened, with what to do about it; undefined when it can. */
async function whatIsMissing(): Promise<string | undefined> {
  if ((process.env['MATMAMBA_GPU_TEST_DEVICE'] ?? 'cuda') !== 'cuda') return undefined;
  const noDriver = await whyNoCuda();
  if (noDriver !== undefined) return noDriver;
  try {
    const { backend, release } = await acquireBackend({ device: 'cuda' });
    const { summary, facts } = backend.capabilities();
    const lines = Object.entries({ device: summary, ...facts }).map(([name, value]) => `${name.padEnd(14)}${value}\n`);
    process.stdout.write(`${lines.join('')}\n`);
    await release();
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { name: { type: 'string' } } });
  const unknown = positionals.find((name) => !names.includes(name));
  if (unknown !== undefined) {
    process.stderr.write(`there are no GPU tests '${unknown}'; there are: ${names.join(', ')}\n`);
    return USAGE;
  }
  const missing = await whatIsMissing();
  if (missing !== undefined) {
    process.stderr.write(`The GPU tests cannot run here: ${missing}\n`);
    return NO_DEVICE;
  }
  const files = (positionals.length > 0 ? positionals : names).map((name) => join(here, name + SUFFIX));
  // One file at a time: they share the device, and one of them fills it.
  const options = ['--test', '--test-concurrency=1', `--test-reporter=${join(here, 'reporter.js')}`];
  if (values.name !== undefined) options.push(`--test-name-pattern=${values.name}`);
  const { status } = spawnSync(process.execPath, [...options, ...files], { stdio: 'inherit' });
  return status ?? 1;
}

process.exitCode = await main();
