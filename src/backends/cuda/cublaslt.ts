/**
 * Matrix products by cuBLASLt. Which of its algorithms a shape gets is measured once and kept on disk by device and
 * library version, so that later runs take the same one and repeat bit for bit.
 */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MatMambaError } from '../../errors.ts';
import { type CudaElement, ELEMENT_BYTES, type GemmLaunch, type GemmOperand } from '../../ops/cuda-kernel.ts';
import { cacheFolder, writeCacheFile } from './cache-file.ts';
import type { DriverApi } from './driver-api.ts';
import { type NativeArgument, type NativeLibrary, loadLibrary } from './libraries.ts';

const TYPES: Readonly<Partial<Record<CudaElement, number>>> = { f32: 0, f16: 2, bf16: 14 };
const COMPUTE = { f32: 68, tf32: 77 } as const;
const OPERATION = { none: 0, transpose: 1 } as const;
const DESCRIPTION_ATTRIBUTE = { transposeA: 3, transposeB: 4 } as const;
const LAYOUT_ATTRIBUTE = { batchCount: 5, batchStride: 6 } as const;
const PREFERENCE_ATTRIBUTE = { workspaceBytes: 1, alignments: [5, 6, 7, 8] } as const;
/** cublasLtMatmulHeuristicResult_t: the algorithm (64 bytes), its workspace size, status, waves, reserved. */
const RESULT_BYTES = 96;
const ALGORITHM_BYTES = 64;

export const WORKSPACE_BYTES = 64 * 2 ** 20;
/** Algorithms that are tried for a shape, and how often each. */
const CANDIDATES = 8;
const REPEATS = 3;

/** A product ready to be put on a stream. */
export interface Product {
  run(stream: bigint): void;
  free(): void;
}

/** Chosen algorithms by shape, base64. */
type Choices = Record<string, string>;

export class CublasLt {
  readonly version: string;
  readonly #library: NativeLibrary;
  readonly #api: DriverApi;
  readonly #handle: bigint;
  readonly #workspace: bigint;
  readonly #path: string;
  /** Device and library version: what a choice holds for. */
  readonly #device: string;
  readonly #choices: Choices;
  readonly #cell = new BigUint64Array(2);
  readonly #alpha = Float32Array.of(1);
  #changed = false;

  private constructor(
    library: NativeLibrary,
    api: DriverApi,
    handle: bigint,
    version: string,
    workspace: bigint,
    device: string,
    choices: Choices,
  ) {
    this.#library = library;
    this.#api = api;
    this.#handle = handle;
    this.version = version;
    this.#workspace = workspace;
    this.#path = join(cacheFolder(), `products-${device}.json`);
    this.#device = device;
    this.#choices = choices;
  }

  /** `workspace`: WORKSPACE_BYTES of device memory. @throws DEVICE without cuBLASLt */
  static async load(api: DriverApi, deviceName: string, workspace: bigint): Promise<CublasLt> {
    const library = await loadLibrary('cublasLt');
    const cell = new BigUint64Array(1);
    const status = library.bind('cublasLtCreate', 'uint64_t')(library.address(cell));
    if (status !== 0) throw new MatMambaError('DEVICE', `cublasLtCreate failed with status ${status}`);
    const version = String(library.bind('cublasLtGetVersion', '')());
    const device = `${deviceName.replaceAll(/[^\w]+/g, '-')}-${version}`;
    const kept = await readFile(join(cacheFolder(), `products-${device}.json`), 'utf8').then(
      (text) => JSON.parse(text) as Choices,
      () => ({}),
    );
    return new CublasLt(library, api, cell[0]!, version, workspace, device, kept);
  }

  /** The algorithms that were chosen so far. */
  get choices(): Readonly<Choices> {
    return this.#choices;
  }

  /** Takes over choices of an earlier run, so that this one repeats it. */
  adopt(choices: Readonly<Choices>): void {
    Object.assign(this.#choices, choices);
  }

  /** Keeps new choices on disk. */
  async save(): Promise<void> {
    if (!this.#changed) return;
    this.#changed = false;
    await writeCacheFile(this.#path, JSON.stringify(this.#choices));
  }

  dispose(): void {
    this.#library.bind('cublasLtDestroy', 'uint64_t')(this.#handle);
  }

  /** Describes a product and chooses its algorithm; may run it a few times on `stream`. @throws DEVICE */
  prepare(launch: GemmLaunch, tf32: boolean, stream: bigint): Product {
    const { m, n, k, a, b, d, accumulate = false, batch = 1 } = launch;
    const address = (view: ArrayBufferView): bigint => this.#library.address(view);
    const owned: (() => void)[] = [];
    const free = (): void => {
      for (const release of owned.splice(0)) release();
    };
    try {
      const compute = tf32 && a.element === 'f32' && b.element === 'f32' ? COMPUTE.tf32 : COMPUTE.f32;
      this.#call('cublasLtMatmulDescCreate', 'uint64_t, int, int', address(this.#cell), compute, TYPES.f32!);
      const description = this.#cell[0]!;
      owned.push(() => this.#call('cublasLtMatmulDescDestroy', 'uint64_t', description));
      // Row-major products are column-major ones of the transposes: d' = b' a'.
      this.#attribute('cublasLtMatmulDescSetAttribute', description, DESCRIPTION_ATTRIBUTE.transposeA, operation(b));
      this.#attribute('cublasLtMatmulDescSetAttribute', description, DESCRIPTION_ATTRIBUTE.transposeB, operation(a));
      const layout = (operand: GemmOperand, rows: number, columns: number): bigint => {
        this.#call(
          'cublasLtMatrixLayoutCreate',
          'uint64_t, int, uint64_t, uint64_t, int64_t',
          address(this.#cell),
          TYPES[operand.element]!,
          rows,
          columns,
          operand.stride,
        );
        const made = this.#cell[0]!;
        owned.push(() => this.#call('cublasLtMatrixLayoutDestroy', 'uint64_t', made));
        if (batch > 1) {
          this.#attribute('cublasLtMatrixLayoutSetAttribute', made, LAYOUT_ATTRIBUTE.batchCount, Int32Array.of(batch));
          const stride = BigInt64Array.of(BigInt(operand.batchStride ?? 0));
          this.#attribute('cublasLtMatrixLayoutSetAttribute', made, LAYOUT_ATTRIBUTE.batchStride, stride);
        }
        return made;
      };
      const layouts = [
        b.transposed ? layout(b, k, n) : layout(b, n, k),
        a.transposed ? layout(a, m, k) : layout(a, k, m),
        layout(d, n, m),
      ] as const;
      const beta = Float32Array.of(accumulate ? 1 : 0);
      const put = (algorithm: Uint8Array, to: bigint, onStream: bigint): void =>
        this.#call(
          'cublasLtMatmul',
          'uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t',
          this.#handle,
          description,
          address(this.#alpha),
          b.pointer,
          layouts[0],
          a.pointer,
          layouts[1],
          address(beta),
          to,
          layouts[2],
          to,
          layouts[2],
          address(algorithm),
          this.#workspace,
          WORKSPACE_BYTES,
          onStream,
        );
      const key = `${this.#device} ${shapeKey(launch, compute)}`;
      const kept = this.#choices[key];
      let algorithm: Uint8Array | undefined = kept === undefined ? undefined : new Uint8Array(Buffer.from(kept, 'base64'));
      if (!algorithm) {
        const found = this.#heuristics(launch, description, layouts);
        algorithm = this.#fastest(launch, found, put, stream);
        this.#choices[key] = Buffer.from(algorithm).toString('base64');
        this.#changed = true;
      }
      const chosen = algorithm;
      return { run: (onStream) => put(chosen, d.pointer, onStream), free };
    } catch (error) {
      free();
      throw error;
    }
  }

  /** Algorithms that fit the operands and the workspace, the library's favourite first. @throws DEVICE when there is none */
  #heuristics(
    { m, n, k, a, b, d }: GemmLaunch,
    description: bigint,
    [lb, la, ld]: readonly [bigint, bigint, bigint],
  ): Uint8Array[] {
    const address = (view: ArrayBufferView): bigint => this.#library.address(view);
    this.#call('cublasLtMatmulPreferenceCreate', 'uint64_t', address(this.#cell));
    const preference = this.#cell[0]!;
    try {
      const set = 'cublasLtMatmulPreferenceSetAttribute';
      this.#attribute(set, preference, PREFERENCE_ATTRIBUTE.workspaceBytes, BigUint64Array.of(BigInt(WORKSPACE_BYTES)));
      for (const [i, operand] of [b, a, d, d].entries()) {
        this.#attribute(set, preference, PREFERENCE_ATTRIBUTE.alignments[i]!, Uint32Array.of(alignmentOf(operand)));
      }
      const results = new Uint8Array(CANDIDATES * RESULT_BYTES);
      const count = new Int32Array(1);
      const status = this.#library.bind(
        'cublasLtMatmulAlgoGetHeuristic',
        'uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, int, uint64_t, uint64_t',
      )(this.#handle, description, lb, la, ld, ld, preference, CANDIDATES, address(results), address(count));
      if (status !== 0 || count[0] === 0) {
        throw new MatMambaError(
          'DEVICE',
          `cuBLASLt ${this.version} has no algorithm for a ${m} x ${k} by ${k} x ${n} product of ${a.element} and ${b.element} (status ${status})`,
        );
      }
      return Array.from({ length: count[0]! }, (_, i) => results.slice(i * RESULT_BYTES, i * RESULT_BYTES + ALGORITHM_BYTES));
    } finally {
      this.#call('cublasLtMatmulPreferenceDestroy', 'uint64_t', preference);
    }
  }

  /** Times each algorithm on the operands as they lie; sums that go to an accumulated result go elsewhere meanwhile. */
  #fastest(
    { m, d, accumulate, batch = 1 }: GemmLaunch,
    algorithms: readonly Uint8Array[],
    put: (algorithm: Uint8Array, to: bigint, stream: bigint) => void,
    stream: bigint,
  ): Uint8Array {
    if (algorithms.length === 1) return algorithms[0]!;
    const api = this.#api;
    let to = d.pointer;
    if (accumulate) {
      const bytes = ELEMENT_BYTES[d.element] * (m * d.stride + (batch - 1) * (d.batchStride ?? 0));
      api.call('cuMemAlloc_v2', api.cell, bytes);
      to = api.result();
    }
    const events = [0, 1].map(() => {
      api.call('cuEventCreate', api.cell, 0);
      return api.result();
    }) as [bigint, bigint];
    const ms = new Float32Array(1);
    let best = { algorithm: algorithms[0]!, ms: Infinity };
    try {
      for (const algorithm of algorithms) {
        try {
          put(algorithm, to, stream);
          api.call('cuEventRecord', events[0], stream);
          for (let i = 0; i < REPEATS; i++) put(algorithm, to, stream);
        } catch {
          continue;
        }
        api.call('cuEventRecord', events[1], stream);
        api.call('cuStreamSynchronize', stream);
        api.call('cuEventElapsedTime', api.address(ms), ...events);
        if (ms[0]! < best.ms) best = { algorithm, ms: ms[0]! };
      }
    } finally {
      for (const event of events) api.call('cuEventDestroy_v2', event);
      if (accumulate) api.call('cuMemFree_v2', to);
    }
    return best.algorithm;
  }

  #attribute(setter: string, object: bigint, attribute: number, value: ArrayBufferView): void {
    this.#call(setter, 'uint64_t, int, uint64_t, uint64_t', object, attribute, this.#library.address(value), value.byteLength);
  }

  #call(name: string, parameters: string, ...args: readonly NativeArgument[]): void {
    this.#api.activate();
    const status = this.#library.bind(name, parameters)(...args);
    if (status === 0) return;
    throw new MatMambaError('DEVICE', `${this.#api.device}: ${name} failed with status ${status} (cuBLASLt ${this.version})`);
  }
}

function operation({ transposed = false }: GemmOperand): Int32Array {
  return Int32Array.of(transposed ? OPERATION.transpose : OPERATION.none);
}

/** Largest power of two up to 256 that divides address and row length in bytes. */
function alignmentOf({ pointer, element, stride }: GemmOperand): number {
  let alignment = 256;
  const rowBytes = stride * ELEMENT_BYTES[element];
  while (alignment > 1 && (pointer % BigInt(alignment) !== 0n || rowBytes % alignment !== 0)) alignment /= 2;
  return alignment;
}

function shapeKey({ m, n, k, a, b, d, accumulate, batch = 1 }: GemmLaunch, compute: number): string {
  const operand = (one: GemmOperand): string =>
    `${one.element}${one.transposed ? 't' : ''}/${one.stride}/${alignmentOf(one)}${batch > 1 ? `/${one.batchStride ?? 0}` : ''}`;
  return [m, n, k, batch, operand(a), operand(b), operand(d), accumulate ? 1 : 0, compute].join(' ');
}
