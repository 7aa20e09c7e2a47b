/**
 * CUDA C to libraries of the host by g++: the emulator's runtime once, and each distinct source with emulator.h and the
 * prelude in front. Libraries are kept in the temporary folder under a hash of all that they are made from.
 */

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MatMambaError } from '../../../src/errors.ts';
import { CUDA_PRELUDE } from '../../../src/ops/cuda-prelude.ts';

const here = fileURLToPath(new URL('.', import.meta.url));
const text = (name: string): string => readFileSync(join(here, name), 'utf8');
const RUNTIME = ['runtime.cpp', 'memory.cpp', 'collectives.cpp'];
const RUNTIME_HEADERS = ['abi.h', 'runtime.h', 'fibers.h', 'traps.h'];
const COMMON = ['-std=c++20', '-shared', '-fPIC', '-fno-strict-aliasing', '-fwrapv', '-U_FORTIFY_SOURCE'];
const RUNTIME_FLAGS = [...COMMON, '-O3', '-march=native', '-Wno-psabi'];
/**
 * The traps: misaligned accesses, indices beyond arrays. Line tables name the place. Products and sums contract to fused
 * operations where the processor has them, as on a GPU.
 */
const KERNEL_FLAGS = [
  ...COMMON,
  '-O1',
  '-march=native',
  '-ffp-contract=fast',
  '-Wno-psabi',
  '-g1',
  '-w',
  '-fvisibility=hidden',
  '-fno-exceptions',
  '-fno-rtti',
  '-fno-ipa-reference',
  '-fstack-clash-protection',
  '-fsanitize=alignment,bounds,integer-divide-by-zero',
  '-fsanitize-undefined-trap-on-error',
  '-DMATMAMBA_EMULATED',
];
const PRELUDE_LINES = 500_000;

function run(command: string, args: readonly string[]): Promise<{ status: number | string; output: string }> {
  return new Promise((resolve) => {
    execFile(command, args, { maxBuffer: 1 << 26 }, (error, stdout, stderr) =>
      resolve({ status: error ? (error.code ?? 1) : 0, output: stdout + stderr }),
    );
  });
}

/** The version line of g++. @throws DEVICE without it */
export async function compilerVersion(): Promise<string> {
  const { status, output } = await run('g++', ['--version']);
  if (status === 0) return output.split('\n')[0]!;
  throw new MatMambaError('DEVICE', `the CUDA emulator needs g++, which is not there (${status})`, {
    hint: 'install g++ 11 or later; without it the CUDA kernels are tested on a GPU only',
  });
}

function folder(): string {
  const path = join(tmpdir(), `matmamba-cuda-emulator-${userInfo().uid}`);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  return path;
}

/** Files that several processes make at once appear whole. */
async function make(name: string, flags: readonly string[], sources: readonly string[], what: string): Promise<string> {
  const path = join(folder(), name);
  if (existsSync(path)) return path;
  const partial = `${path}.${process.pid}`;
  const { status, output } = await run('g++', [...flags, '-o', partial, ...sources, '-lm', '-ldl']);
  if (status !== 0) {
    const lines = output.split('\n').filter((line) => line.trim() !== '');
    throw new MatMambaError('DEVICE', `${what} does not compile for the emulator:\n${lines.slice(0, 40).join('\n')}`);
  }
  renameSync(partial, path);
  return path;
}

const hash = (...parts: readonly string[]): string => createHash('sha256').update(parts.join('\0')).digest('hex').slice(0, 24);

/** Path of the runtime's library. */
export function makeRuntime(version: string, defines: readonly string[] = []): Promise<string> {
  const flags = [...RUNTIME_FLAGS, ...defines];
  const key = hash(version, ...flags, ...[...RUNTIME, ...RUNTIME_HEADERS].map(text));
  return make(
    `runtime-${key}.so`,
    flags,
    RUNTIME.map((name) => join(here, name)),
    'the runtime',
  );
}

/** The C++ text of a kernel's library. */
export function kernelText(source: string): string {
  const body = source
    .replace(/extern\s+"C"\s+__global__/g, '__global__')
    .replace(
      /extern\s+((?:__align__\s*\(\s*\w+\s*\)\s*)?)__shared__\s+(?:__align__\s*\(\s*\w+\s*\)\s*)?([\w\s]+?)\s+(\w+)\s*\[\s*\]\s*;/g,
      '$2 *&$3 = ($2 *&)emu_dynamic_shared;',
    );
  const bare = body.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, '').replace(/__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)/g, '');
  const entries = [...new Set([...bare.matchAll(/__global__\s+void\s+(\w+)\s*\(/g)].map((match) => match[1]!))];
  return [
    text('abi.h'),
    'extern "C" char __start_emu_shared[] __attribute__((weak, visibility("hidden")));',
    'extern "C" char __stop_emu_shared[] __attribute__((weak, visibility("hidden")));',
    'namespace {',
    text('emulator.h'),
    `#line ${PRELUDE_LINES + 1} "prelude"`,
    CUDA_PRELUDE,
    '#line 1 "source"',
    body,
    '#line 1 "entries"',
    ...entries.map((entry, i) => `void emu_call_${i}(void **arguments) { emu_call(${entry}, arguments); }`),
    `const EmuEntry emu_entries[] = {${entries.map((entry, i) => `{"${entry}", emu_call_${i}, emu_parameters(${entry})}, `).join('')}};`,
    '}',
    `extern "C" __attribute__((visibility("default"))) EmuModule emu_module = {&emu, &emu_dynamic_shared, emu_entries, ${entries.length},`,
    '__start_emu_shared, __stop_emu_shared};\n',
  ].join('\n');
}

/** Paths of the sources' libraries, a few compilers at a time. */
export async function makeKernels(version: string, sources: readonly string[]): Promise<string[]> {
  const paths: string[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    for (let i = next++; i < sources.length; i = next++) {
      const whole = kernelText(sources[i]!);
      const name = `kernel-${hash(version, ...KERNEL_FLAGS, whole)}`;
      const path = join(folder(), `${name}.cpp`);
      if (!existsSync(join(folder(), `${name}.so`))) {
        writeFileSync(`${path}.${process.pid}`, whole);
        renameSync(`${path}.${process.pid}`, path);
      }
      paths[i] = await make(`${name}.so`, KERNEL_FLAGS, [path], `a kernel source (${path})`);
    }
  };
  await Promise.all(Array.from({ length: Math.min(availableParallelism(), sources.length) }, work));
  return paths;
}

/** The runtime's words with the lines of the kernel that they name, and with the place of a trap. */
export async function explain(message: string, source: string): Promise<string> {
  let words = message;
  const trap = /\[(.*)\+(0x[0-9a-f]+)\]/.exec(message);
  if (trap) {
    const { output } = await run('addr2line', ['-i', '-e', trap[1]!, trap[2]!]);
    const frames = [...output.matchAll(/(prelude|source):(\d+)/g)].map(([, where, line]) =>
      where === 'prelude' ? `line ${Number(line) - PRELUDE_LINES} of the prelude` : `line ${line} of the source`,
    );
    words = message.replace(trap[0], frames.length > 0 ? `at ${frames.join(', called by ')}` : '(in no kernel line)');
  }
  return words.replace(/line (\d+) of the (prelude|source)/g, (whole, line: string, where: string) => {
    const found = (where === 'prelude' ? CUDA_PRELUDE : source).split('\n')[Number(line) - 1]?.trim();
    return found ? `${whole} \`${found}\`` : whole;
  });
}
