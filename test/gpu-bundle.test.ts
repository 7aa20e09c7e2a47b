/** The bundle for GPU hosts: it is small enough, and runs from its own Node without node_modules and dist in reach. */

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildPackage } from './support/built.ts';
import { SOFTWARE_ADAPTER } from './support/webgpu-device.ts';
import { whyNoCuda } from './support/cuda-device.ts';

const LIMIT_BYTES = 32e6;
const NO_DEVICE = 77;
const root = fileURLToPath(new URL('../', import.meta.url));

function hasTools(): boolean {
  try {
    for (const tool of ['xz', 'tar']) execFileSync(tool, ['--version'], { stdio: 'ignore' });
    return process.platform === 'linux';
  } catch {
    return false;
  }
}

describe.skipIf(!hasTools())('the bundle for GPU hosts (skipped without Linux, tar and xz)', () => {
  const folder = mkdtempSync(join(tmpdir(), 'matmamba-bundle-'));
  const bundle = join(folder, '.gpu');
  const environment = {
    PATH: '/usr/bin:/bin',
    HOME: folder,
    MATMAMBA_GPU_HOME: join(folder, 'home'),
    MATMAMBA_CHECKOUT: root,
    VK_ICD_FILENAMES: process.env['VK_ICD_FILENAMES'] ?? SOFTWARE_ADAPTER,
  };

  function run(...words: string[]): { status: number | null; stdout: string; stderr: string } {
    return spawnSync(join(bundle, 'run'), words, { cwd: folder, env: environment, encoding: 'utf8' });
  }

  let dist = '';

  function make(...options: string[]): { status: number | null; stderr: string } {
    // The lowest level takes seconds where the highest takes most of a minute, for a tenth of the size.
    const words = [
      join(root, 'scripts/gpu-bundle.mjs'),
      '--out',
      bundle,
      '--dist',
      dist,
      '--with',
      'webgpu',
      '--level',
      '1',
      ...options,
    ];
    return spawnSync(process.execPath, words, { encoding: 'utf8' });
  }

  beforeAll(() => {
    dist = dirname(fileURLToPath(buildPackage('matmamba-bundle-test')));
    const { status, stderr } = make();
    if (status !== 0) throw new Error(stderr);
  }, 60_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('is below its limit', () => {
    const bytes = readdirSync(bundle).reduce((sum, name) => sum + statSync(join(bundle, name)).size, 0);
    expect(bytes).toBeLessThan(LIMIT_BYTES);
  });

  test('above it, the largest parts are named', () => {
    const { status, stderr } = make('--limit', '20');
    expect(status).toBe(1);
    expect(stderr).toMatch(/takes \d+\.\d MB, more than 20\.0 MB:\n +\d+\.\d MB {2}node\.xz\n/);
  });

  test('carries Node', () => {
    const { status, stdout, stderr } = run('node', '-p', 'process.execPath + " " + process.version');
    expect(stderr).toBe('');
    expect(stdout).toBe(`${join(folder, 'home/node/node')} ${process.version}\n`);
    expect(status).toBe(0);
  });

  test('scripts find the package and every dependency', () => {
    const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { dependencies: object };
    const names = ['matmamba', 'matmamba/train', 'gpt-tokenizer/encoding/r50k_base', ...Object.keys(dependencies)];
    const wanted = names.filter((name) => name !== 'gpt-tokenizer');
    const script = join(folder, 'script.mjs');
    const line = 'console.log(name, Object.keys(await import(name)).length > 0)';
    writeFileSync(script, `for (const name of ${JSON.stringify(wanted)}) ${line};\n`);
    const { stdout, stderr } = run('node', script);
    expect(stderr).toBe('');
    expect(stdout).toBe(wanted.map((name) => `${name} true\n`).join(''));
  });

  test('carries the command line, which finds the checkout’s model', () => {
    const { status, stdout, stderr } = run('matmamba', 'generate', 'The great', '--max-tokens', '3', '--ignore-end');
    expect(status, stderr).toBe(0);
    expect(stdout).toContain('The great');
  });

  test('its tests say that there is no CUDA driver', async (context) => {
    if ((await whyNoCuda()) === undefined) return context.skip('there is one');
    const { status, stderr } = run('test');
    expect(stderr).toMatch(/^The GPU tests cannot run here: .*CUDA/);
    expect(status).toBe(NO_DEVICE);
  });

  test('its tests through WebGPU run, or say that there is no adapter', () => {
    const { status, stdout, stderr } = run('test', 'webgpu', 'conformance', '--name', '^add,');
    if (status === NO_DEVICE) expect(stderr).toContain('no WebGPU adapter');
    else expect(stdout, stderr).toContain('1 passed, 0 failed');
  }, 60_000);

  test('an unknown command is refused', () => {
    const { status, stderr } = run('tset');
    expect(stderr).toContain("no command 'tset'");
    expect(status).toBe(2);
  });
});
