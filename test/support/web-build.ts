/** The page and the browser library, built once for the test files of a run that need them. */

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** Builds into a folder of its own, apart from `dist`. @throws Error with what Vite said */
export async function buildWeb(target = 'bundle-test'): Promise<{ readonly library: string; readonly page: string }> {
  const folder = await run(target);
  return { library: `${folder}/bundle`, page: `${folder}/page` };
}

/** A folder with a page that runs one module of test/browser. @throws Error with what Vite said */
export function buildBrowserTest(name: string): Promise<string> {
  return run(name, '--entry', `${root}test/browser/${name}.ts`);
}

async function run(target: string, ...more: readonly string[]): Promise<string> {
  if (!existsSync(`${root}src/backends/cpu/kernels-simd.wasm`)) throw new Error('the CPU kernels are missing: npm run build');
  const folder = `${root}node_modules/.cache/matmamba-web-${target}`;
  await promisify(execFile)(process.execPath, [`${root}scripts/build-web.mjs`, '--out', folder, ...more], { cwd: root });
  return folder;
}
