/** What the tests of several processes share. */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));

export function compileDistributed(): string {
  return compileSources(['src/distributed/index.ts', 'src/distributed/mpi-worker.js']);
}

/** Compiles files of `src` and what they import to a folder where they find their dependencies. */
export function compileSources(files: readonly string[]): string {
  const folder = mkdtempSync(join(tmpdir(), 'matmamba-ranks-'));
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'), 'junction');
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  const flags =
    '--ignoreConfig --noCheck --module nodenext --target es2022 --allowJs --allowImportingTsExtensions --rewriteRelativeImportExtensions';
  execFileSync(
    process.execPath,
    [join(root, 'node_modules/typescript/bin/tsc'), ...flags.split(' '), '--rootDir', 'src', '--outDir', folder, ...files],
    {
      cwd: root,
    },
  );
  return folder;
}
