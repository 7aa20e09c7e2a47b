/**
 * The memory of the CPU backend: one WebAssembly memory, shared where there is a team of workers, and an allocator of 256-byte aligned blocks in it.
 * Blocks are kept in address order; free neighbours are joined. Growing never moves anything: the engine reserves the
 * whole address space at the start.
 */

import { MatMambaError } from '../../errors.ts';

export const WASM_PAGE_BYTES = 65536;
export const MAXIMUM_PAGES = 65536;
export const INITIAL_PAGES = 64;
const BLOCK_ALIGN_BYTES = 256;
/** Below this lie the module's own constants. */
const HEAP_BASE_BYTES = 1 << 20;

/** The least address space that is asked for, where a device reserves no more. */
const LEAST_PAGES = 4096;

interface Block {
  pointer: number;
  bytes: number;
  free: boolean;
}

export class Heap {
  readonly memory: WebAssembly.Memory;
  readonly #blocks: Block[] = [
    { pointer: HEAP_BASE_BYTES, bytes: INITIAL_PAGES * WASM_PAGE_BYTES - HEAP_BASE_BYTES, free: true },
  ];
  #usedBytes = 0;

  /** Bytes that the address space leaves to models. */
  readonly limitBytes: number;

  /** @throws MEMORY where not even a small address space can be reserved */
  constructor({ shared = true }: { readonly shared?: boolean } = {}) {
    const { memory, pages } = reserve(shared);
    this.memory = memory;
    this.limitBytes = pages * WASM_PAGE_BYTES - HEAP_BASE_BYTES - WASM_PAGE_BYTES;
  }

  /** Bytes in blocks that are taken. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /**
   * Takes a block of at least `size` bytes; its content is what was there before.
   * @throws MEMORY when the 4 GiB address space or the machine has no room
   */
  allocate(size: number, purpose: string): number {
    const bytes = Math.max(BLOCK_ALIGN_BYTES, Math.ceil(size / BLOCK_ALIGN_BYTES) * BLOCK_ALIGN_BYTES);
    let best: Block | undefined;
    for (const block of this.#blocks) {
      if (block.free && block.bytes >= bytes && (!best || block.bytes < best.bytes)) best = block;
    }
    best ??= this.#grow(bytes, purpose);
    if (best.bytes > bytes) {
      const rest = { pointer: best.pointer + bytes, bytes: best.bytes - bytes, free: true };
      this.#blocks.splice(this.#blocks.indexOf(best) + 1, 0, rest);
      best.bytes = bytes;
    }
    best.free = false;
    this.#usedBytes += bytes;
    return best.pointer;
  }

  free(pointer: number): void {
    const at = this.#blocks.findIndex((block) => block.pointer === pointer && !block.free);
    if (at < 0) throw new MatMambaError('INTERNAL', `no block at ${pointer}`);
    const block = this.#blocks[at]!;
    block.free = true;
    this.#usedBytes -= block.bytes;
    for (const i of [at, at - 1]) {
      const left = this.#blocks[i];
      const right = this.#blocks[i + 1];
      if (left?.free && right?.free) {
        left.bytes += right.bytes;
        this.#blocks.splice(i + 1, 1);
      }
    }
  }

  /** Views of a block; made anew at each call, since a view does not see later growth. */
  bytes(pointer: number, length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, pointer, length);
  }
  floats(pointer: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, pointer, length);
  }
  ints(pointer: number, length: number): Int32Array {
    return new Int32Array(this.memory.buffer, pointer, length);
  }

  #grow(bytes: number, purpose: string): Block {
    let last = this.#blocks.at(-1)!;
    const missing = bytes - (last.free ? last.bytes : 0);
    const pages = Math.ceil(missing / WASM_PAGE_BYTES);
    try {
      this.memory.grow(pages);
    } catch (cause) {
      throw new MatMambaError(
        'MEMORY',
        `no room for ${formatMiB(bytes)} of ${purpose}: ${formatMiB(this.#usedBytes)} are in use`,
        {
          hint: 'the CPU backend addresses 4 GiB: load with dtype bf16 or int8, use a smaller batch, or dispose of other models',
          cause,
        },
      );
    }
    if (!last.free) {
      last = { pointer: last.pointer + last.bytes, bytes: 0, free: true };
      this.#blocks.push(last);
    }
    last.bytes += pages * WASM_PAGE_BYTES;
    return last;
  }
}

/** The whole 32-bit address space, or as much of it as the device gives: phones reserve less. */
function reserve(shared: boolean): { memory: WebAssembly.Memory; pages: number } {
  for (let pages = MAXIMUM_PAGES; ; pages /= 2) {
    try {
      return { memory: new WebAssembly.Memory({ initial: INITIAL_PAGES, maximum: pages, shared }), pages };
    } catch (cause) {
      if (pages <= LEAST_PAGES) throw new MatMambaError('MEMORY', 'no address space can be reserved for models', { cause });
    }
  }
}

function formatMiB(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
