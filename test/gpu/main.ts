/**
 * Runs the GPU tests: `main.js [webgpu] [FILE…] [--name PATTERN]`, where a file is named by its first word (`conformance`);
 * with `webgpu` through WebGPU instead of CUDA. Ends with 0 when all passed, 1 when some failed, 77 where there is no such
 * device.
 */

import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { DeviceName } from '../../src/backends/backend.ts';
import { acquireBackend } from '../../src/backends/open.ts';
import { messageOf } from '../../src/errors.ts';
import { whyNoCuda } from '../support/cuda-device.ts';

const NO_DEVICE = 77;
const USAGE = 2;
const SUFFIX = '.test.js';

const here = fileURLToPath(new URL('./', import.meta.url));
const names = readdirSync(here).flatMap((file) => (file.endsWith(SUFFIX) ? [file.slice(0, -SUFFIX.length)] : []));

/** What only CUDA has: a device that can be filled, and groups of devices. */
const CUDA_ONLY = ['memory', 'ranks'];

/** Why the device cannot be opened, with what to do about it; undefined when it can. */
async function whatIsMissing(device: DeviceName): Promise<string | undefined> {
  const noDriver = device === 'cuda' ? await whyNoCuda() : undefined;
  if (noDriver !== undefined) return noDriver;
  try {
    const { backend, release } = await acquireBackend({ device });
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
  if (positionals[0] === 'webgpu') process.env['MATMAMBA_GPU_TEST_DEVICE'] = positionals.shift();
  const device = (process.env['MATMAMBA_GPU_TEST_DEVICE'] ?? 'cuda') as DeviceName;
  const unknown = positionals.find((name) => !names.includes(name));
  if (unknown !== undefined) {
    process.stderr.write(`there are no GPU tests '${unknown}'; there are: ${names.join(', ')}\n`);
    return USAGE;
  }
  const missing = await whatIsMissing(device);
  if (missing !== undefined) {
    process.stderr.write(`The GPU tests cannot run here: ${missing}\n`);
    return NO_DEVICE;
  }
  const usual = device === 'webgpu' ? names.filter((name) => !CUDA_ONLY.includes(name)) : names;
  const files = (positionals.length > 0 ? positionals : usual).map((name) => join(here, name + SUFFIX));
  // One file at a time: they share the device, and one of them fills it.
  const options = ['--test', '--test-concurrency=1', `--test-reporter=${join(here, 'reporter.js')}`];
  if (values.name !== undefined) options.push(`--test-name-pattern=${values.name}`);
  const { status } = spawnSync(process.execPath, [...options, ...files], { stdio: 'inherit' });
  return status ?? 1;
}

process.exitCode = await main();
