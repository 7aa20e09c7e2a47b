/** `npm run test:gpu -- [FILE…] [--name PATTERN]`: compiles the GPU tests beside the built package and runs them here. */
import { spawnSync } from 'node:child_process';
import { rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT, compileGpuTests } from './compile-tests.mjs';

const target = join(ROOT, 'node_modules/.cache/matmamba-gpu');
compileGpuTests(target, join(ROOT, 'dist'));
rmSync(join(target, 'test/golden'), { recursive: true, force: true });
symlinkSync(join(ROOT, 'test/golden'), join(target, 'test/golden'));
const { status } = spawnSync(process.execPath, [join(target, 'test/gpu/main.js'), ...process.argv.slice(2)], {
  stdio: 'inherit',
});
process.exitCode = status ?? 1;
