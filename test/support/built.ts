/** The package as a user's process sees it: compiled once, apart from `dist`, for tests that start their own Node. */

import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** Compiles `src` and returns the URL of its index; test files that run side by side name folders of their own. */
export function buildPackage(name = 'matmamba-test'): string {
  const target = join(root, 'node_modules/.cache', name);
  const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc');
  mkdirSync(join(target, 'backends/cpu'), { recursive: true });
  rmSync(join(target, 'index.js'), { force: true });
  const { stdout } = spawnSync(process.execPath, [
    tsc,
    '-p',
    join(root, 'tsconfig.build.json'),
    '--outDir',
    target,
    '--declaration',
    'false',
    '--sourceMap',
    'false',
  ]);
  // Type errors have a check of their own; files are written all the same.
  if (!existsSync(join(target, 'index.js'))) throw new Error(`the package could not be compiled: ${String(stdout)}`);
  for (const name of ['kernels-relaxed.wasm', 'kernels-simd.wasm'])
    copyFileSync(join(root, 'src/backends/cpu', name), join(target, 'backends/cpu', name));
  return pathToFileURL(join(target, 'index.js')).href;
}

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

/** Runs a module's text in a Node process of its own; it is killed, with code null, after `limitMs`. */
export async function runScript(
  script: string,
  limitMs = 30_000,
  flags: readonly string[] = [],
  environment: Readonly<Record<string, string>> = {},
): Promise<Outcome> {
  const start = performance.now();
  const child = spawn(process.execPath, [...flags, '--input-type=module', '-e', script], {
    cwd: root,
    env: { ...process.env, NODE_OPTIONS: '', ...environment },
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), limitMs);
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => (output[name] += text));
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  clearTimeout(timer);
  return { code, ...output, ms: performance.now() - start };
}
