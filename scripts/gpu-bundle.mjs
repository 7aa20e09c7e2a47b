/**
 * `npm run gpu:bundle`: packs what a Linux host with a GPU, but without Node and a network, needs beside a checkout into
 * one folder: `.gpu/run` (see scripts/gpu/run.sh), Node itself, the compiled package with its dependencies, and the GPU tests.
 *
 *   --out DIR     where to (default .gpu)
 *   --level N     xz level (default 9, the slowest; Node's binary is kept while Node stays the same)
 *   --dist DIR    a compiled package to pack (default dist)
 *   --with NAME   webgpu: Dawn, for tests and benchmarks through WebGPU
 *   --limit MB    largest size of all files together (default 32)
 */
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT, compileGpuTests } from './gpu/compile-tests.mjs';

const { values } = parseArgs({
  options: {
    out: { type: 'string', default: join(ROOT, '.gpu') },
    level: { type: 'string', default: '9' },
    dist: { type: 'string', default: join(ROOT, 'dist') },
    limit: { type: 'string', default: '32' },
    with: { type: 'string', multiple: true, default: [] },
  },
});
const out = resolve(values.out);
const dist = resolve(values.dist);
const limitBytes = Number(values.limit) * 1e6;

const unknown = values.with.find((name) => name !== 'webgpu');
if (unknown !== undefined) {
  console.error(`gpu:bundle: --with ${unknown}: there is webgpu`);
  process.exit(2);
}

/** Files that only people and compilers read. */
const UNUSED = /\.(d\.[cm]?ts|map|ts|md|mts|cts|tsbuildinfo|txt|html|css|lock)$|(^|\/)(LICENSE|test|tests|docs?|\.bin)$/i;

/** What else a package's run needs no part of, by paths inside it. */
const LEFT_OUT = {
  // One of GPT-2's encodings is used, and only its ES module.
  'gpt-tokenizer': /^(cjs|data|src|dist)(\/|$)|^esm\/(bpeRanks|encoding|model)\/(?!(r50k_base|gpt2)\.)/,
  zod: /^src(\/|$)|\.cjs$/,
  koffi: /^(vendor|src\/(?!koffi)|lib\/native)(\/|$)|\.(cc|hh?|c|S|asm|def)$/,
  '@huggingface/hub': /^(src|dist\/browser)(\/|$)|\.cjs$/,
  '@huggingface/tasks': /^(src|dist\/commonjs)(\/|$)/,
  webgpu: new RegExp(`^(build|dist/(?!${process.platform}-${process.arch}(/|$)))`),
};

/** Names of the packages that the compiled package loads when it runs, with what these load. */
function runtimePackages() {
  const found = new Set();
  const visit = (name, isOptional) => {
    const file = join(ROOT, 'node_modules', name, 'package.json');
    if (found.has(name) || (isOptional && !existsSync(file))) return;
    found.add(name);
    const { dependencies = {}, optionalDependencies = {} } = JSON.parse(readFileSync(file, 'utf8'));
    for (const one of Object.keys(dependencies)) if (!(one in optionalDependencies)) visit(one, false);
    for (const one of Object.keys(optionalDependencies)) visit(one, true);
  };
  const { dependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  for (const name of Object.keys(dependencies)) visit(name, false);
  // What it depends on itself only compilers and its build read.
  for (const name of values.with) found.add(name);
  return found;
}

/** A package's files without those that no run reads; of native ones only this platform's. */
function copyPackage(name, target) {
  const from = join(ROOT, 'node_modules', name);
  const foreign = new RegExp(`/(?!${process.platform}_${process.arch}/)[a-z]+_[a-z0-9]+/[^/]+\\.node$`);
  cpSync(from, join(target, 'node_modules', name), {
    recursive: true,
    filter: (path) => {
      const inside = path.slice(from.length + 1);
      return inside === '' || !(UNUSED.test(inside) || LEFT_OUT[name]?.test(inside) || foreign.test(`/${inside}`));
    },
  });
}

function hashOf(...paths) {
  const hash = createHash('sha256');
  for (const path of paths) hash.update(readFileSync(path));
  return `${hash.digest('hex')}\n`;
}

/** How xz sees jumps in machine code. */
const BRANCHES = process.arch === 'x64' ? ['--x86'] : [];

/** Node without its symbols, compressed unless the bundle has it already. */
function packNode(folder) {
  const level = values.level;
  const stamp = `${createHash('sha256').update(process.version).update(readFileSync(process.execPath)).digest('hex')}\n`;
  const target = join(out, 'node.xz');
  const source = join(out, 'node.source');
  const wanted = `${stamp}level ${level}\n`;
  if (existsSync(target) && existsSync(source) && readFileSync(source, 'utf8') === wanted) return;
  const node = join(folder, 'node');
  stripped(process.execPath, node, (file) => execFileSync(file, ['-e', ''], { stdio: 'pipe' }));
  execFileSync('xz', ['-T1', '--force', ...BRANCHES, `--lzma2=preset=${level}`, node], { stdio: 'pipe' });
  renameInto(`${node}.xz`, target);
  writeFileSync(join(out, 'node.sha256'), stamp);
  writeFileSync(source, wanted);
}

/** A binary without its symbols where `strip` makes one that `check` runs, else as it is. */
function stripped(from, to, check) {
  copyFileSync(from, to);
  try {
    execFileSync('strip', [to], { stdio: 'pipe' });
    check(to);
  } catch {
    copyFileSync(from, to);
  }
}

/** Across file systems too. */
function renameInto(from, to) {
  copyFileSync(from, `${to}.tmp`);
  renameSync(`${to}.tmp`, to);
}

function packApp(folder) {
  const app = join(folder, 'app');
  mkdirSync(app);
  compileGpuTests(app, 'dist');
  rmSync(join(app, 'package.json'));
  // What browsers take may lie there too.
  const forBrowsers = [join(dist, 'page'), join(dist, 'bundle')];
  const filter = (path) => !/\.(d\.ts|map)$/.test(path) && !forBrowsers.includes(path);
  cpSync(dist, join(app, 'dist'), { recursive: true, filter });
  for (const name of runtimePackages()) copyPackage(name, app);
  if (values.with.includes('webgpu')) {
    const dawn = join('node_modules/webgpu/dist', `${process.platform}-${process.arch}`, 'dawn.node');
    stripped(join(ROOT, dawn), join(app, dawn), (file) => execFileSync(process.execPath, ['-e', `require('${file}')`]));
  }
  copyFileSync(join(ROOT, 'scripts/gpu/resolve.mjs'), join(app, 'resolve.mjs'));
  const tar = join(folder, 'app.tar');
  const reproducible = ['--sort=name', '--owner=0', '--group=0', '--mtime=@0'];
  execFileSync('tar', [...reproducible, '-cf', tar, '-C', app, '.']);
  writeFileSync(join(out, 'app.sha256'), hashOf(tar));
  execFileSync('xz', ['-T1', ...BRANCHES, `--lzma2=preset=${values.level}`, '--force', tar]);
  renameInto(`${tar}.xz`, join(out, 'app.tar.xz'));
  return app;
}

function sizeOf(path) {
  if (!statSync(path).isDirectory()) return statSync(path).size;
  return readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0);
}

/** The largest parts, packed and what went into the app unpacked. */
function largestParts(app) {
  const packed = readdirSync(out).map((name) => [basename(name), sizeOf(join(out, name))]);
  const inside = ['dist', 'test', ...[...runtimePackages()].map((name) => `node_modules/${name}`)]
    .filter((name) => existsSync(join(app, name)))
    .map((name) => [`${name} (unpacked)`, sizeOf(join(app, name))]);
  return [...packed, ...inside].sort((a, b) => b[1] - a[1]).slice(0, 12);
}

const folder = mkdtempSync(join(tmpdir(), 'matmamba-gpu-bundle-'));
try {
  if (!existsSync(join(dist, 'index.js'))) throw new Error(`${dist} holds no compiled package: run npm run build`);
  mkdirSync(out, { recursive: true });
  packNode(folder);
  const app = packApp(folder);
  copyFileSync(join(ROOT, 'scripts/gpu/run.sh'), join(out, 'run'));
  chmodSync(join(out, 'run'), 0o755);
  const total = sizeOf(out);
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
  if (total > limitBytes) {
    const lines = largestParts(app).map(([name, bytes]) => `  ${megabytes(bytes).padStart(8)}  ${name}`);
    throw new Error(`the bundle takes ${megabytes(total)}, more than ${megabytes(limitBytes)}:\n${lines.join('\n')}`);
  }
  console.log(`${join(basename(dirname(out)), basename(out))}: ${megabytes(total)}; on the host: ${basename(out)}/run test`);
} catch (error) {
  console.error(`gpu:bundle: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
