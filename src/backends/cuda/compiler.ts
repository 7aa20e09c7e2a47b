/**
 * CUDA C to machine code by NVRTC, cached on disk by what it was made from (source, architecture, compiler version), so
 * that a second start compiles nothing.
 */

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MatMambaError } from '../../errors.ts';
import { CUDA_PRELUDE } from '../../ops/cuda-prelude.ts';
import { cacheFolder, writeCacheFile } from './cache-file.ts';
import { type NativeLibrary, loadLibrary } from './libraries.ts';

export class Compiler {
  readonly version: string;
  readonly #library: NativeLibrary;
  readonly #architecture: string;
  readonly #folder: string | null;
  readonly #compiled = new Map<string, Promise<Uint8Array>>();

  private constructor(library: NativeLibrary, architecture: string, version: string, folder: string | null) {
    this.#library = library;
    // Hopper's own instructions are in the `a` variant only.
    this.#architecture = architecture === 'sm_90' ? 'sm_90a' : architecture;
    this.version = version;
    this.#folder = folder;
  }

  /** `folder`: where compiled kernels are kept; null: nowhere. @throws DEVICE without NVRTC */
  static async load(architecture: string, folder: string | null = cacheFolder()): Promise<Compiler> {
    const library = await loadLibrary('nvrtc');
    const numbers = new Int32Array(2);
    library.bind('nvrtcVersion', 'uint64_t, uint64_t')(
      library.address(numbers.subarray(0, 1)),
      library.address(numbers.subarray(1, 2)),
    );
    return new Compiler(library, architecture, numbers.join('.'), folder);
  }

  /** The cubin of a source, with the prelude in front. @throws DEVICE with the compiler's log */
  compile(source: string): Promise<Uint8Array> {
    let made = this.#compiled.get(source);
    if (!made) this.#compiled.set(source, (made = this.#load(source)));
    return made;
  }

  async #load(source: string): Promise<Uint8Array> {
    const text = CUDA_PRELUDE + source;
    const key = createHash('sha256').update(`${this.version} ${this.#architecture}\n${text}`).digest('hex');
    const path = this.#folder === null ? undefined : join(this.#folder, `${key}.cubin`);
    const kept = path === undefined ? undefined : await readFile(path).catch(() => undefined);
    if (kept && kept.length > 0) return kept;
    const cubin = await this.#run(text);
    if (path !== undefined) await writeCacheFile(path, cubin);
    return cubin;
  }

  async #run(text: string): Promise<Uint8Array> {
    const { bind, address } = this.#library;
    const cell = new BigUint64Array(1);
    const at = address(cell);
    const check = (call: string, status: number): void => {
      if (status !== 0) throw new MatMambaError('DEVICE', `NVRTC ${this.version}: ${call} failed with status ${status}`);
    };
    const [code, name] = [Buffer.from(`${text}\0`), Buffer.from('kernel.cu\0')];
    check(
      'nvrtcCreateProgram',
      bind('nvrtcCreateProgram', 'uint64_t, uint64_t, uint64_t, int, uint64_t, uint64_t')(
        at,
        address(code),
        address(name),
        0,
        0n,
        0n,
      ),
    );
    const program = cell[0]!;
    try {
      const options = [`--gpu-architecture=${this.#architecture}`, '--std=c++17', '-default-device', '-lineinfo'].map((option) =>
        Buffer.from(`${option}\0`),
      );
      const pointers = BigUint64Array.from(options, (option) => address(option));
      const status = await this.#library.background(
        'nvrtcCompileProgram',
        'uint64_t, int, uint64_t',
        program,
        options.length,
        address(pointers),
      );
      if (status !== 0) throw this.#logOf(program, text);
      check('nvrtcGetCUBINSize', bind('nvrtcGetCUBINSize', 'uint64_t, uint64_t')(program, at));
      const cubin = new Uint8Array(Number(cell[0]!));
      check('nvrtcGetCUBIN', bind('nvrtcGetCUBIN', 'uint64_t, uint64_t')(program, address(cubin)));
      return cubin;
    } finally {
      cell[0] = program;
      bind('nvrtcDestroyProgram', 'uint64_t')(at);
    }
  }

  #logOf(program: bigint, text: string): MatMambaError {
    const { bind, address } = this.#library;
    const cell = new BigUint64Array(1);
    bind('nvrtcGetProgramLogSize', 'uint64_t, uint64_t')(program, address(cell));
    const log = Buffer.alloc(Number(cell[0]!) + 1);
    bind('nvrtcGetProgramLog', 'uint64_t, uint64_t')(program, address(log));
    const entry = /extern "C"[^(]*?(\w+)\s*\(/.exec(text)?.[1] ?? 'a kernel';
    return new MatMambaError(
      'DEVICE',
      `NVRTC ${this.version} refused ${entry}:\n${log.toString('utf8').replaceAll('\0', '').trim()}`,
    );
  }
}
