/**
 * Compiles the CPU kernels to WebAssembly, once with relaxed SIMD and once without, beside their TypeScript and into
 * dist. A module whose sources have not changed is left as it is.
 */
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import asc from 'assemblyscript/asc';

const source = 'src/backends/cpu';
const target = 'dist/backends/cpu';
const files = readdirSync('src', { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.as.ts'))
  .sort();
const hash = createHash('sha256').update(readFileSync(new URL(import.meta.url)));
for (const file of files) hash.update(file).update(readFileSync(join('src', file)));
const digest = hash.digest('hex');

const stamp = join(source, 'kernels.wasm.sha256');
const variants = { 'kernels-relaxed.wasm': 'simd,relaxed-simd,threads', 'kernels-simd.wasm': 'simd,threads' };
const fresh =
  existsSync(stamp) &&
  readFileSync(stamp, 'utf8') === digest &&
  Object.keys(variants).every((name) => existsSync(join(source, name)));
if (!fresh) {
  for (const [name, features] of Object.entries(variants)) {
    const { error, stderr } = await asc.main([
      join(source, 'kernels.as.ts'),
      '--outFile',
      join(source, `${name}.tmp`),
      '--enable',
      features,
      ...'-O3 --noAssert --runtime stub --sharedMemory --importMemory --initialMemory 64 --maximumMemory 65536 --disableWarning'.split(
        ' ',
      ),
    ]);
    if (error) {
      console.error(stderr.toString());
      process.exit(1);
    }
    renameSync(join(source, `${name}.tmp`), join(source, name));
  }
  writeFileSync(stamp, digest);
}
mkdirSync(target, { recursive: true });
for (const name of Object.keys(variants)) copyFileSync(join(source, name), join(target, name));
