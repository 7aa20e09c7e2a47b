/**
 * Finds and loads NVIDIA's libraries, CUDA 12 or 13. Nothing is loaded before a CUDA device is asked for. All functions
 * are bound with 64-bit integers for handles and addresses; results come back through `cell`.
 */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { MatMambaError, messageOf } from '../../errors.ts';

/** `bytes`: a struct of `declareBytes`. */
export type NativeArgument = number | bigint | string | { readonly bytes: Uint8Array };
export type NativeFunction = (...args: readonly NativeArgument[]) => number;

export interface NativeLibrary {
  readonly path: string;
  /** Binds a C function that returns an int; parameter types as koffi names them. @throws DEVICE when it is missing */
  bind(name: string, parameters: string): NativeFunction;
  /** Binds a C function that returns a C string. @throws DEVICE when it is missing */
  bindText(name: string, parameters: string): (...args: readonly NativeArgument[]) => string;
  /** Declares a C struct of so many bytes, to be passed by value. */
  declareBytes(type: string, bytes: number): void;
  /** Calls a function on another thread. */
  background(name: string, parameters: string, ...args: readonly NativeArgument[]): Promise<number>;
  /** The C string at an address. */
  text(address: bigint): string;
  /** Memory at an address, for as long as it is there. */
  memory(address: bigint, bytes: number): Uint8Array;
  /** Address of a view's first byte, for the call at hand or as long as the view lives. */
  address(view: ArrayBufferView): bigint;
}

interface Description {
  readonly names: Readonly<Record<string, readonly string[]>>;
  /** What to install when none is found. */
  readonly hint: string;
}

const TOOLKIT_HINT =
  'install the CUDA toolkit 12 or 13 (or only its nvrtc and cublas packages) and put its libraries on the loader path, ' +
  'or set CUDA_HOME to its folder';

const LIBRARIES = {
  cuda: {
    names: { linux: ['libcuda.so.1'], win32: ['nvcuda.dll'] },
    hint: 'install NVIDIA\'s driver; without an NVIDIA GPU use device "cpu"',
  },
  nvrtc: {
    names: { linux: ['libnvrtc.so.13', 'libnvrtc.so.12'], win32: ['nvrtc64_130_0.dll', 'nvrtc64_120_0.dll'] },
    hint: TOOLKIT_HINT,
  },
  cublasLt: {
    names: { linux: ['libcublasLt.so.13', 'libcublasLt.so.12'], win32: ['cublasLt64_13.dll', 'cublasLt64_12.dll'] },
    hint: TOOLKIT_HINT,
  },
  nccl: {
    names: { linux: ['libnccl.so.2'] },
    hint: 'install NCCL 2 (Debian, Ubuntu: libnccl2), or train with one process',
  },
} as const satisfies Record<string, Description>;

export type LibraryName = keyof typeof LIBRARIES;

/** Folders beside the loader's own path: CUDA_HOME or CUDA_PATH, toolkits in their usual place, pip's packages beside them. */
function folders(): string[] {
  const { CUDA_HOME, CUDA_PATH } = process.env;
  const roots = [CUDA_HOME, CUDA_PATH].filter((root) => root !== undefined && root !== '') as string[];
  const local = '/usr/local';
  const toolkits = list(local)
    .filter((name) => name === 'cuda' || name.startsWith('cuda-'))
    .toSorted()
    .map((name) => join(local, name));
  return [...roots, ...toolkits].flatMap((root) => [root, join(root, 'lib64'), join(root, 'lib'), join(root, 'bin')]);
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Types are declared once in a process. */
const declared = new Set<string>();

interface KoffiFunction extends NativeFunction {
  async(...args: readonly unknown[]): void;
}

/** Loads a library by its usual names. @throws DEVICE saying what was tried and what to install */
export async function loadLibrary(which: LibraryName): Promise<NativeLibrary> {
  const { names, hint }: Description = LIBRARIES[which];
  const koffi = (await import('koffi')).default;
  const candidates = names[process.platform] ?? [];
  const failures: string[] = [];
  for (const name of [...candidates, ...folders().flatMap((folder) => candidates.map((name) => join(folder, name)))]) {
    try {
      const library = koffi.load(name, { global: true });
      const bound = new Map<string, KoffiFunction>();
      const find = (symbol: string, parameters: string, result = 'int'): KoffiFunction => {
        let call = bound.get(symbol);
        if (call) return call;
        try {
          call = library.func(`${result} ${symbol}(${parameters || 'void'})`) as KoffiFunction;
        } catch (cause) {
          throw new MatMambaError('DEVICE', `${name} has no function ${symbol}`, { cause, hint });
        }
        bound.set(symbol, call);
        return call;
      };
      return {
        path: name,
        address: (view) => koffi.address(view),
        text: (address) => String(koffi.decode(address, 'char', -1)),
        memory: (address, bytes) => new Uint8Array(koffi.view(address, bytes)),
        bind: (symbol, parameters) => find(symbol, parameters),
        bindText: (symbol, parameters) => find(symbol, parameters, 'const char *') as unknown as () => string,
        declareBytes: (type, bytes) => {
          if (!declared.has(type)) koffi.struct(type, { bytes: koffi.array('uint8_t', bytes) });
          declared.add(type);
        },
        background: (symbol, parameters, ...args) =>
          new Promise((resolve, reject) => {
            find(symbol, parameters).async(...args, (error: unknown, result: number) =>
              error ? reject(error) : resolve(result),
            );
          }),
      };
    } catch (error) {
      if (error instanceof MatMambaError) throw error;
      failures.push(messageOf(error).split('\n')[0]!);
    }
  }
  const tried = candidates.length > 0 ? candidates.join(', ') : `nothing is known for ${process.platform}`;
  throw new MatMambaError('DEVICE', `CUDA needs a library that was not found (${tried}): ${failures[0] ?? ''}`, { hint });
}
