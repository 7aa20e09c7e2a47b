/**
 * A program's dispatches ready to be encoded: kernels compiled or being compiled, constants and tables in buffers of
 * their own, bind groups made anew when the arena or the pool of states has moved.
 */

import { MatMambaError } from '../../errors.ts';
import {
  type WebGpuCommand,
  type WebGpuCopy,
  type WebGpuDispatch,
  type Workgroups,
  packConstants,
} from '../../ops/webgpu-kernel.ts';
import { BUFFER_USAGE, type CompiledKernel, DeviceBuffer, type WebGpuDevice } from './device.ts';

/** Where constants and tables may begin in a buffer that is bound. */
const BINDING_ALIGN_BYTES = 256;
const MOST_WORKGROUPS = 65535;

/** The buffers that move. */
export interface MovingBuffers {
  readonly arena: GPUBuffer;
  readonly states: GPUBuffer;
}

/** A buffer that is bound whole, or where a table lies in the tables' buffer. */
type Bound = WholeBuffer | { readonly tableAt: number; readonly bytes: number };

type WholeBuffer = WebGpuCopy['from'];

interface EncodedDispatch {
  readonly kind: 'dispatch';
  readonly kernel: CompiledKernel;
  readonly label: string;
  readonly workgroups: Workgroups;
  readonly bindings: readonly Bound[];
  /** Where its constants lie, and their bytes; none: 0. */
  readonly constantsAt: number;
  readonly constantsBytes: number;
}
type Encoded = EncodedDispatch | Exclude<WebGpuCommand, WebGpuDispatch>;

/** Bytes placed one after another, each from a multiple of 256 on; what is equal is placed once. */
class Packed {
  #pieces: { at: number; bytes: Uint8Array }[] = [];
  readonly #byHash = new Map<number, { at: number; bytes: Uint8Array }[]>();
  bytes = 0;

  place(bytes: Uint8Array): number {
    const hash = hashOf(bytes);
    const alike = this.#byHash.get(hash) ?? [];
    const known = alike.find((piece) => isSame(piece.bytes, bytes));
    if (known) return known.at;
    const piece = { at: this.bytes, bytes };
    this.#byHash.set(hash, [...alike, piece]);
    this.#pieces.push(piece);
    this.bytes += Math.ceil(bytes.length / BINDING_ALIGN_BYTES) * BINDING_ALIGN_BYTES;
    return piece.at;
  }

  /** All of it; pieces are forgotten. */
  take(): Uint8Array<ArrayBuffer> {
    const all = new Uint8Array(this.bytes);
    for (const { at, bytes } of this.#pieces) all.set(bytes, at);
    this.#pieces = [];
    this.#byHash.clear();
    return all;
  }
}

/** FNV-1a. */
function hashOf(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

export class Commands {
  readonly #device: WebGpuDevice;
  readonly #encoded: Encoded[] = [];
  /** What each command is a part of, for profiles. */
  readonly parts: number[] = [];
  readonly #constants = new Packed();
  readonly #tables = new Packed();
  #constantsBuffer: DeviceBuffer | undefined;
  #tablesBuffer: DeviceBuffer | undefined;
  #pipelines: readonly (GPUComputePipeline | undefined)[] | undefined;
  #groups: readonly (GPUBindGroup | undefined)[] = [];

  constructor(device: WebGpuDevice) {
    this.#device = device;
  }

  get length(): number {
    return this.#encoded.length;
  }
  /** Bytes of constants and tables. */
  get bytes(): number {
    return this.#constants.bytes + this.#tables.bytes;
  }

  /** Appends a command; its kernel begins to compile. */
  add(part: number, what: string, command: WebGpuCommand): void {
    this.#encoded.push(command.kind === 'dispatch' ? this.#dispatch(command, what) : command);
    this.parts.push(part);
  }

  /** Resolves when everything is compiled and placed. @throws DEVICE, MEMORY */
  async prepare(): Promise<void> {
    if (this.#pipelines) return;
    const pipelines = await Promise.all(
      this.#encoded.map(async (command) => (command.kind === 'dispatch' ? command.kernel.ready : undefined)),
    );
    const place = async (packed: Packed, label: string, usage: number): Promise<DeviceBuffer | undefined> => {
      if (packed.bytes === 0) return undefined;
      const buffer = await this.#device.allocate(packed.bytes, label, usage | BUFFER_USAGE.copyTarget);
      this.#device.gpu.queue.writeBuffer(buffer.gpu, 0, packed.take());
      return buffer;
    };
    this.#constantsBuffer ??= await place(this.#constants, 'constants', BUFFER_USAGE.uniform);
    this.#tablesBuffer ??= await place(this.#tables, 'constant tables', BUFFER_USAGE.storage);
    this.#pipelines = pipelines;
  }

  /** Binds the buffers where they lie now. */
  bind(moving: MovingBuffers): void {
    const constants = this.#constantsBuffer?.gpu;
    this.#groups = this.#encoded.map((command) => {
      if (command.kind !== 'dispatch') return undefined;
      const { kernel, label, bindings, constantsAt, constantsBytes } = command;
      const entries: GPUBindGroupEntry[] = bindings.map((bound, binding) => {
        if (typeof bound === 'object' && 'tableAt' in bound) {
          const { tableAt: offset, bytes: size } = bound;
          return { binding, resource: { buffer: this.#tablesBuffer!.gpu, offset, size } };
        }
        return { binding, resource: { buffer: bufferOf(bound, moving) } };
      });
      if (constantsBytes > 0) {
        const resource = { buffer: constants!, offset: constantsAt, size: Math.ceil(constantsBytes / 16) * 16 };
        entries.push({ binding: entries.length, resource });
      }
      return this.#device.gpu.createBindGroup({ layout: kernel.layout, entries, label });
    });
  }

  /** Encodes commands `from .. to` into as few passes as copies between them allow. */
  encode(
    encoder: GPUCommandEncoder,
    moving: MovingBuffers,
    from: number,
    to: number,
    timestamps?: GPUComputePassTimestampWrites,
  ): void {
    let pass: GPUComputePassEncoder | undefined;
    let current: GPUComputePipeline | undefined;
    for (let i = from; i < to; i++) {
      const command = this.#encoded[i]!;
      if (command.kind === 'dispatch') {
        if (!pass) {
          pass = encoder.beginComputePass(timestamps ? { timestampWrites: timestamps } : {});
          current = undefined;
        }
        const pipeline = this.#pipelines![i]!;
        if (pipeline !== current) pass.setPipeline(pipeline);
        current = pipeline;
        pass.setBindGroup(0, this.#groups[i]!);
        const [x, y = 1, z = 1] = command.workgroups;
        pass.dispatchWorkgroups(x, y, z);
        continue;
      }
      pass?.end();
      pass = undefined;
      if (command.kind === 'clear') {
        encoder.clearBuffer(bufferOf(command.storage, moving), 4 * command.offset, 4 * command.count);
      } else {
        const { from: source, fromOffset, to: target, toOffset, count } = command;
        encoder.copyBufferToBuffer(bufferOf(source, moving), 4 * fromOffset, bufferOf(target, moving), 4 * toOffset, 4 * count);
      }
    }
    pass?.end();
  }

  dispose(): void {
    this.#constantsBuffer?.free();
    this.#tablesBuffer?.free();
    this.#groups = [];
  }

  #dispatch(dispatch: WebGpuDispatch, what: string): EncodedDispatch {
    const label = `${dispatch.entry} of ${what}`;
    if (dispatch.workgroups.some((count) => !(count! >= 1 && count! <= MOST_WORKGROUPS))) {
      throw new MatMambaError('INTERNAL', `${label}: ${dispatch.workgroups.join(' x ')} workgroups`);
    }
    const kernel = this.#device.kernel(dispatch, label);
    const constants = packConstants(dispatch.constants);
    const bindings = dispatch.bindings.map(({ storage }): Bound => {
      if (typeof storage !== 'object' || !('table' in storage)) return storage;
      return { tableAt: this.#tables.place(bytesOf(storage.table)), bytes: storage.table.byteLength };
    });
    const constantsAt = constants.length > 0 ? this.#constants.place(constants) : 0;
    return {
      kind: 'dispatch',
      kernel,
      label,
      workgroups: dispatch.workgroups,
      bindings,
      constantsAt,
      constantsBytes: constants.length,
    };
  }
}

function bufferOf(storage: WholeBuffer, moving: MovingBuffers): GPUBuffer {
  if (storage === 'arena' || storage === 'states') return moving[storage];
  if (storage instanceof DeviceBuffer) return storage.gpu;
  throw new MatMambaError('INTERNAL', 'a binding names no buffer');
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
