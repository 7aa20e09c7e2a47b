/**
 * Compiles test/gpu and what it takes from test/support to plain JavaScript, for Node's own test runner. The result
 * lies in a folder that stands for the repository: its `src` is a link to the compiled package.
 */
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** Fills `target/test`; `dist` is the link's text, seen from `target`. */
export function compileGpuTests(target, dist) {
  for (const name of ['test', 'src']) rmSync(join(target, name), { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc');
  const options = ['--outDir', target, '--declaration', 'false', '--sourceMap', 'false'];
  try {
    execFileSync(process.execPath, [tsc, '-p', join(ROOT, 'test/gpu/tsconfig.json'), ...options], { stdio: 'pipe' });
  } catch (error) {
    throw new Error(`the GPU tests do not compile:\n${error.stdout}${error.stderr}`, { cause: error });
  }
  rmSync(join(target, 'src'), { recursive: true, force: true });
  symlinkSync(dist, join(target, 'src'));
  writeFileSync(join(target, 'package.json'), '{ "type": "module" }\n');
}
