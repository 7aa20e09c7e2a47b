/**
 * Builds what browsers take: the library as ES modules without Node (dist/bundle) and the page (dist/page), both with
 * relative URLs, so that any static host serves them from any folder. Needs the kernels: npm run build.
 *   node scripts/build-web.mjs [--out FOLDER] [library] [page]
 *   node scripts/build-web.mjs --out FOLDER --entry FILE    # a page that runs one module, for tests inside browsers
 */
import { cpSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'vite';
import { withoutNode } from './without-node.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const at = (path) => `${root}${path}`;
if (!existsSync(at('src/backends/cpu/kernels-simd.wasm'))) {
  console.error('the CPU kernels are missing; build them first: npm run build');
  process.exit(1);
}

const { values, positionals: wanted } = parseArgs({
  options: { out: { type: 'string', default: at('dist') }, entry: { type: 'string' } },
  allowPositionals: true,
});
const { out, entry } = values;

const common = {
  configFile: false,
  logLevel: 'warn',
  base: './',
  resolve: {
    alias: [
      { find: /^matmamba$/, replacement: at('src/index.ts') },
      { find: /^matmamba\/browser$/, replacement: at('src/browser/index.ts') },
      { find: /^matmamba\/train$/, replacement: at('src/train/portable.ts') },
    ],
  },
  plugins: [withoutNode(root)],
  worker: { format: 'es', plugins: () => [withoutNode(root)] },
};
const output = {
  emptyOutDir: true,
  target: 'es2022',
  assetsInlineLimit: 0,
  modulePreload: { polyfill: false },
  reportCompressedSize: false,
};

if (entry) {
  await build({
    ...common,
    root,
    publicDir: false,
    build: { ...output, outDir: out, rollupOptions: { input: { entry }, output: { entryFileNames: '[name].js' } } },
  });
  writeFileSync(`${out}/index.html`, '<!doctype html><meta charset="utf-8" /><script type="module" src="./entry.js"></script>');
}
const everything = wanted.length === 0 && !entry;
if (everything || wanted.includes('library')) {
  await build({
    ...common,
    root,
    publicDir: false,
    build: {
      ...output,
      outDir: `${out}/bundle`,
      rollupOptions: {
        input: { index: at('src/index.ts'), browser: at('src/browser/index.ts'), train: at('src/train/portable.ts') },
        preserveEntrySignatures: 'strict',
        output: { entryFileNames: '[name].js' },
      },
    },
  });
}
if (everything || wanted.includes('page')) {
  await build({ ...common, root: at('web'), build: { ...output, outDir: `${out}/page` } });
  mkdirSync(`${out}/page/models`, { recursive: true });
  cpSync(at('models/books-10m'), `${out}/page/models/books-10m`, { recursive: true });
}
