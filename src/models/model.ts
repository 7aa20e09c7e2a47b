/** What block, language model and vision model have in common: weights in and out, saving, memory, disposal. */

import { type Capabilities, type ModelDType, tensorDType } from '../backends/backend.ts';
import {
  type CheckpointFormat,
  type JsonObject,
  PIECE_BYTES,
  type TensorToSave,
  formatPythonJson,
  safetensorsBlob,
  saveTensors,
  writeFileAtomic,
} from '../checkpoint/index.ts';
import { MatMambaError, refuseUnknownKeys } from '../errors.ts';
import { type TypedArray, bytesOf, fromFloat32 } from '../tensor/dtype.ts';
import { int4RowBytes, packInt4 } from '../tensor/int4.ts';
import { Tensor, sizeOf } from '../tensor/tensor.ts';
import type { ParameterDeclaration } from './parameters.ts';
import type { ModelRuntime } from './runtime.ts';
import { QUANTISATION, SCALE_SUFFIX, checkTensors, tensorWeights } from './weight-sources.ts';

export interface SaveModelOptions {
  /** `safetensors` (default), or `pytorch` for the original implementation. */
  readonly format?: CheckpointFormat | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The parameters of a model by name, and other names of the same tensors (tied weights). */
export interface ParameterSet {
  readonly declared: ReadonlyMap<string, ParameterDeclaration>;
  readonly aliases: ReadonlyMap<string, string>;
}

export function parameterSet(
  declarations: readonly ParameterDeclaration[],
  aliases: Readonly<Record<string, string>> = {},
): ParameterSet {
  return { declared: new Map(declarations.map((one) => [one.name, one])), aliases: new Map(Object.entries(aliases)) };
}

export interface MemoryReport {
  /** Weights as they are stored. */
  readonly weightBytes: number;
  /** Activations and programs. */
  readonly workBytes: number;
}

export abstract class Model implements AsyncDisposable {
  /** @internal What the model runs on; trainers work through it. */
  readonly runtime: ModelRuntime;
  /** @internal */
  readonly parameters: ParameterSet;

  protected constructor(runtime: ModelRuntime, parameters: ParameterSet) {
    this.runtime = runtime;
    this.parameters = parameters;
  }

  /** The original's `config.json` fields. */
  protected abstract configJson(): JsonObject;

  /** What it computes in, and how matrices are stored. */
  get dtype(): ModelDType {
    return this.runtime.dtype;
  }

  /** Number of parameters, tied weights once. */
  get parameterCount(): number {
    return [...this.parameters.declared.values()].reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  }

  capabilities(): Capabilities {
    return this.runtime.backend.capabilities();
  }

  memory(): MemoryReport {
    return { weightBytes: this.runtime.weightBytes, workBytes: this.runtime.workBytes };
  }

  /**
   * All tensors under the original's names, tied names included. Elements are fetched from the device when a tensor is
   * first read; int8 and int4 weights come dequantised as float32.
   */
  stateDict(): Record<string, Tensor> {
    const tensors: Record<string, Tensor> = {};
    for (const declaration of this.parameters.declared.values()) {
      const dtype = tensorDType(this.runtime.weight(declaration.name).storage);
      const fetch = (): TypedArray | Promise<TypedArray> => {
        const values = this.runtime.read(declaration);
        return values instanceof Promise ? values.then((later) => fromFloat32(dtype, later)) : fromFloat32(dtype, values);
      };
      tensors[declaration.name] = new Tensor(fetch, declaration.shape, dtype);
    }
    for (const [alias, name] of this.parameters.aliases) tensors[alias] = tensors[name]!;
    return tensors;
  }

  /**
   * Replaces all weights. Tied names need to be given once.
   * @throws WEIGHTS for missing, unknown or not finite tensors, SHAPE; then nothing has changed
   */
  async loadStateDict(tensors: Readonly<Record<string, Tensor>>): Promise<void> {
    const { declared, aliases } = this.parameters;
    const aliasOf = new Map([...aliases].map(([alias, name]) => [name, alias]));
    const nameOf = (name: string): string => (name in tensors ? name : (aliasOf.get(name) ?? name));
    const found = new Map(Object.entries(tensors));
    for (const name of declared.keys()) {
      const tensor = tensors[nameOf(name)];
      if (tensor) found.set(name, tensor);
    }
    checkTensors(found, declared, aliases, 'the state dict');
    const sourceOf = tensorWeights(tensors, nameOf);
    // Checks all before anything is written; without waiting, so that the new weights take their turn now.
    for (const declaration of declared.values()) void sourceOf(declaration).rows(0, declaration.shape[0]!);
    await this.runtime.replace([...declared.values()], sourceOf);
  }

  /**
   * Writes `config.json` and the weights as they are stored: float32, bfloat16, half, or int8 and int4 with float32
   * scales (in the pytorch format these are written as float32).
   * @throws FILE when the folder cannot be written; earlier files stay as they were
   */
  async savePretrained(folder: string, options: SaveModelOptions = {}): Promise<void> {
    refuseUnknownKeys(options, ['format', 'signal'], 'savePretrained');
    const { format = 'safetensors', signal } = options;
    if (format !== 'safetensors' && format !== 'pytorch') {
      throw new MatMambaError('OPTION', `there is no format '${String(format)}'`, { hint: "formats: 'safetensors', 'pytorch'" });
    }
    const { mkdir } = await import('node:fs/promises');
    await mkdir(folder, { recursive: true }).catch((cause: unknown) => {
      throw new MatMambaError('FILE', `cannot make the folder ${folder}`, { cause });
    });
    const { tensors, metadata } = await this.#contents(format);
    await saveTensors(folder, format, tensors, { metadata, ...(signal ? { signal } : {}) });
    await writeFileAtomic(`${folder}/config.json`, this.#configText());
    for (const [name, text] of Object.entries(await this.companions())) await writeFileAtomic(`${folder}/${name}`, text);
  }

  /** What `savePretrained` writes as safetensors, in memory: the files by name. For browsers, which have no folders. */
  async files(): Promise<Readonly<Record<string, Blob>>> {
    const { tensors, metadata } = await this.#contents('safetensors');
    const companions = Object.entries(await this.companions()).map(([name, text]) => [name, new Blob([text])]);
    return {
      'config.json': new Blob([this.#configText()]),
      'model.safetensors': await safetensorsBlob(tensors, metadata),
      ...(Object.fromEntries(companions) as Record<string, Blob>),
    };
  }

  /** Texts of the files beside the weights by name, such as the tokenizer's. @throws FILE */
  protected async companions(): Promise<Readonly<Record<string, string>>> {
    return {};
  }

  #configText(): string {
    return `${formatPythonJson(this.configJson(), 4)}\n`;
  }

  async #contents(
    format: CheckpointFormat,
  ): Promise<{ readonly tensors: TensorToSave[]; readonly metadata: Readonly<Record<string, string>> }> {
    const tensors: TensorToSave[] = [];
    for (const declaration of this.parameters.declared.values())
      tensors.push(...(await this.#tensorsToSave(declaration, format)));
    for (const [alias, name] of this.parameters.aliases) {
      const { dtype, shape } = tensors.find((tensor) => tensor.name === name)!;
      tensors.push({ name: alias, dtype, shape, aliasOf: name, chunks: () => [] });
    }
    const isQuantised = (this.dtype === 'int8' || this.dtype === 'int4') && format === 'safetensors';
    return { tensors, metadata: { format: 'pt', ...(isQuantised ? { quantisation: QUANTISATION[this.dtype] } : {}) } };
  }

  async dispose(): Promise<void> {
    await this.runtime.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  async #tensorsToSave(declaration: ParameterDeclaration, format: CheckpointFormat): Promise<TensorToSave[]> {
    const { name, shape } = declaration;
    const weight = this.runtime.weight(name);
    const rows = shape[0]!;
    const columns = sizeOf(shape.slice(1));
    /** Pieces of the rows, so that saving a model does not hold it twice. */
    async function* pieces(
      rowBytes: number,
      read: (first: number, count: number) => Promise<ArrayBufferView>,
    ): AsyncIterable<Uint8Array> {
      const piece = Math.max(1, Math.floor(PIECE_BYTES / rowBytes));
      for (let first = 0; first < rows; first += piece) {
        const part = await read(first, Math.min(piece, rows - first));
        yield new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
      }
    }
    if ((weight.storage === 'int8' || weight.storage === 'int4') && format === 'safetensors') {
      const packed = weight.storage === 'int4';
      const groups = (await weight.readInt8(0, 1)).scales.length;
      const values = async (first: number, count: number) => {
        const { values: numbers } = await weight.readInt8(first, count);
        return packed ? packInt4(numbers, columns) : numbers;
      };
      const scales = async (first: number, count: number) => (await weight.readInt8(first, count)).scales;
      return [
        packed
          ? { name, dtype: 'u8', shape: [rows, int4RowBytes(columns)], chunks: () => pieces(columns, values) }
          : { name, dtype: 'i8', shape, chunks: () => pieces(columns, values) },
        { name: name + SCALE_SUFFIX, dtype: 'f32', shape: [rows, groups], chunks: () => pieces(columns, scales) },
      ];
    }
    const dtype = tensorDType(weight.storage);
    const values = async (first: number, count: number) => fromFloat32(dtype, await weight.read(first, count));
    return [{ name, dtype, shape, chunks: () => pieces(bytesOf(dtype) * columns, values) }];
  }
}
