/**
 * A pickle reader that can build data and nothing else: no code runs, whatever the file says.
 *
 * It is the pickle machine (protocols 2 to 5, the opcodes that torch.save and Python's C pickler emit) with two doors to
 * the outside, both the caller's: `classOf` is the allow-list that names must be on, `persistent` makes what a
 * persistent id stands for. A name that is not on the list ends the reading with UNSAFE. Every limit below bounds memory
 * by a small multiple of the input.
 *
 * Python -> here: None null, int number (bigint past 2^53), tuple a frozen array, list an array, dict a Map, set a Set,
 * bytes Uint8Array. Keys of a Map are compared as JavaScript does.
 */

import { MatMambaError } from '../errors.ts';

/**
 * A name the allow-list knows. `reduce` is what calling it with arguments gives; it reports through `charge` how many
 * values it copies, because one instruction may name the same large argument again and again.
 */
export interface PickleClass {
  readonly qualifiedName: string;
  reduce(args: readonly unknown[], charge: (values: number) => void): unknown;
}

/** An instance of an inert class: kept so that the rest of the file can be read, never used. */
export class PickleObject {
  readonly qualifiedName: string;
  state: unknown;
  constructor(qualifiedName: string) {
    this.qualifiedName = qualifiedName;
  }
}

export interface PickleOptions {
  /** What errors call the pickle. */
  readonly name: string;
  /** The allow-list; undefined refuses the name. */
  classOf(qualifiedName: string): PickleClass | undefined;
  /** The object behind a persistent id. */
  persistent(id: unknown): unknown;
}

const MAX_BYTES = 64 * 2 ** 20;
const MAX_STACK = 1_000_000;
const MAX_MEMO = 2_000_000;
const MAX_OBJECTS = 2_000_000;
const MAX_INTEGER_BYTES = 256;

const MARK = Symbol('mark');
const text = new TextDecoder('utf-8', { fatal: true });

/** Whether a value is what a tuple became. */
export function isTuple(value: unknown): value is readonly unknown[] {
  return Array.isArray(value) && Object.isFrozen(value);
}

/** Stack, memo and position of one pickle being read. */
class Machine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #options: PickleOptions;
  readonly #memo = new Map<number, unknown>();
  readonly #stack: unknown[] = [];
  #at = 0;
  #objects = 0;

  constructor(bytes: Uint8Array, options: PickleOptions) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#options = options;
    if (bytes.byteLength > MAX_BYTES) throw this.#error(`is ${bytes.byteLength} bytes, more than ${MAX_BYTES}`);
  }

  /** Runs to STOP and returns what is on top. */
  run(): unknown {
    for (;;) {
      const opcode = this.#byte();
      if (opcode === 0x2e) return this.#pop();
      this.#step(opcode);
      if (this.#stack.length > MAX_STACK) throw this.#error(`stacks more than ${MAX_STACK} values`);
    }
  }

  #step(opcode: number): void {
    const stack = this.#stack;
    switch (opcode) {
      case 0x80: {
        // PROTO
        const protocol = this.#byte();
        if (protocol < 2 || protocol > 5) throw this.#error(`has protocol ${protocol}; 2 to 5 are known`);
        return;
      }
      case 0x95: // FRAME
        if (this.#uint64() > this.#bytes.byteLength - this.#at) throw this.#error('has a frame longer than itself');
        return;
      case 0x28:
        stack.push(MARK);
        return;
      case 0x30:
        this.#popAny();
        return; // POP
      case 0x31:
        this.#popMark();
        return;
      case 0x32:
        stack.push(this.#top());
        return; // DUP
      case 0x4e:
        stack.push(null);
        return; // NONE
      case 0x88:
        stack.push(true);
        return;
      case 0x89:
        stack.push(false);
        return;
      case 0x4a:
        stack.push(this.#view.getInt32(this.#take(4), true));
        return; // BININT
      case 0x4b:
        stack.push(this.#byte());
        return;
      case 0x4d:
        stack.push(this.#view.getUint16(this.#take(2), true));
        return;
      case 0x8a:
        stack.push(this.#integer(this.#byte()));
        return; // LONG1
      case 0x8b:
        stack.push(this.#integer(this.#uint32()));
        return;
      case 0x47:
        stack.push(this.#view.getFloat64(this.#take(8), false));
        return; // BINFLOAT
      case 0x8c:
        stack.push(this.#string(this.#byte()));
        return; // SHORT_BINUNICODE
      case 0x58:
        stack.push(this.#string(this.#uint32()));
        return;
      case 0x8d:
        stack.push(this.#string(this.#uint64()));
        return;
      case 0x55:
        stack.push(this.#string(this.#byte()));
        return; // SHORT_BINSTRING, Python 2's str
      case 0x54:
        stack.push(this.#string(this.#uint32()));
        return;
      case 0x43:
        stack.push(this.#rawBytes(this.#byte()));
        return; // SHORT_BINBYTES
      case 0x42:
        stack.push(this.#rawBytes(this.#uint32()));
        return;
      case 0x8e:
      case 0x96:
        stack.push(this.#rawBytes(this.#uint64()));
        return; // BINBYTES8, BYTEARRAY8
      case 0x5d:
        stack.push(this.#made([]));
        return; // EMPTY_LIST
      case 0x29:
        stack.push(Object.freeze([]));
        return;
      case 0x7d:
        stack.push(this.#made(new Map()));
        return;
      case 0x8f:
        stack.push(this.#made(new Set()));
        return;
      case 0x6c:
        stack.push(this.#made(this.#popMark()));
        return; // LIST
      case 0x74:
        stack.push(this.#made(Object.freeze(this.#popMark())));
        return; // TUPLE
      case 0x85:
      case 0x86:
      case 0x87:
        stack.push(this.#made(this.#tuple(opcode - 0x84)));
        return; // TUPLE1 to 3
      case 0x91:
        stack.push(this.#made(new Set(this.#popMark())));
        return; // FROZENSET
      case 0x64: {
        // DICT
        const items = this.#popMark();
        stack.push(this.#made(new Map()));
        this.#setItems(items);
        return;
      }
      case 0x61:
        this.#append([this.#pop()]);
        return; // APPEND
      case 0x65:
        this.#append(this.#popMark());
        return;
      case 0x90:
        this.#addItems(this.#popMark());
        return;
      case 0x73: {
        // SETITEM
        const value = this.#pop();
        this.#setItems([this.#pop(), value]);
        return;
      }
      case 0x75:
        this.#setItems(this.#popMark());
        return;
      case 0x63: {
        // GLOBAL
        const module = this.#line();
        stack.push(this.#classOf(module, this.#line()));
        return;
      }
      case 0x93: {
        // STACK_GLOBAL
        const name = this.#pop();
        stack.push(this.#classOf(this.#pop(), name));
        return;
      }
      case 0x69: {
        // INST: a class by name and its arguments from the mark on
        const module = this.#line();
        const callee = this.#classOf(module, this.#line());
        stack.push(this.#reduce(callee, Object.freeze(this.#popMark())));
        return;
      }
      case 0x52:
      case 0x81: {
        // REDUCE, NEWOBJ
        const args = this.#pop();
        stack.push(this.#reduce(this.#pop(), args));
        return;
      }
      case 0x92: {
        // NEWOBJ_EX: keyword arguments are for classes we keep without looking inside
        this.#pop();
        const args = this.#pop();
        stack.push(this.#reduce(this.#pop(), args));
        return;
      }
      case 0x62: {
        // BUILD: attributes of an object; only inert objects keep them
        const state = this.#pop();
        const target = this.#top();
        if (target instanceof PickleObject) target.state = state;
        return;
      }
      case 0x51:
        stack.push(this.#made(this.#options.persistent(this.#pop())));
        return; // BINPERSID
      case 0x71:
        this.#put(this.#byte());
        return;
      case 0x72:
        this.#put(this.#uint32());
        return;
      case 0x94:
        this.#put(this.#memo.size);
        return; // MEMOIZE
      case 0x68:
        stack.push(this.#get(this.#byte()));
        return;
      case 0x6a:
        stack.push(this.#get(this.#uint32()));
        return;
      default: {
        const shown = opcode > 0x20 && opcode < 0x7f ? `'${String.fromCharCode(opcode)}'` : `0x${opcode.toString(16)}`;
        throw this.#error(`holds the instruction ${shown} at byte ${this.#at - 1}, which torch.save does not write`);
      }
    }
  }

  #error(problem: string): MatMambaError {
    return new MatMambaError('FORMAT', `${this.#options.name} ${problem}`, {
      hint: 'the file is damaged or was not written by torch.save',
    });
  }

  /** Steps over `length` bytes and returns where they start. */
  #take(length: number): number {
    const start = this.#at;
    if (length > this.#bytes.byteLength - start)
      throw this.#error(`ends at byte ${this.#bytes.byteLength}, in the middle of a value`);
    this.#at = start + length;
    return start;
  }

  #byte(): number {
    return this.#bytes[this.#take(1)]!;
  }

  #uint32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  #uint64(): number {
    return Number(this.#view.getBigUint64(this.#take(8), true));
  }

  #rawBytes(length: number): Uint8Array {
    const start = this.#take(length);
    return this.#bytes.slice(start, start + length);
  }

  #string(length: number): string {
    const start = this.#take(length);
    return this.#decode(this.#bytes.subarray(start, start + length));
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw this.#error('ends in the middle of a name');
    const line = this.#decode(this.#bytes.subarray(this.#at, end));
    this.#at = end + 1;
    return line;
  }

  #decode(bytes: Uint8Array): string {
    try {
      return text.decode(bytes);
    } catch {
      throw this.#error(`holds text that is not UTF-8 before byte ${this.#at}`);
    }
  }

  /** A little-endian two's complement integer. */
  #integer(length: number): number | bigint {
    if (length > MAX_INTEGER_BYTES) throw this.#error(`holds an integer of ${length} bytes`);
    const start = this.#take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#bytes[start + i]!);
    if (length > 0) value = BigInt.asIntN(8 * length, value);
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value;
  }

  /** Counts a new container, so that one-byte instructions cannot fill the memory. */
  #made<T>(value: T): T {
    this.#charge(1);
    return value;
  }

  readonly #charge = (values: number): void => {
    this.#objects += values;
    if (this.#objects > MAX_OBJECTS) throw this.#error(`makes more than ${MAX_OBJECTS} objects`);
  };

  #popAny(): unknown {
    if (this.#stack.length === 0) throw this.#error(`takes a value that is not there at byte ${this.#at - 1}`);
    return this.#stack.pop();
  }

  #pop(): unknown {
    const value = this.#popAny();
    if (value === MARK) throw this.#error(`takes a value that is not there at byte ${this.#at - 1}`);
    return value;
  }

  #top(): unknown {
    const value = this.#stack.at(-1);
    if (this.#stack.length === 0 || value === MARK) throw this.#error(`uses a value that is not there at byte ${this.#at - 1}`);
    return value;
  }

  #popMark(): unknown[] {
    const mark = this.#stack.lastIndexOf(MARK);
    if (mark < 0) throw this.#error(`closes a group that was not opened at byte ${this.#at - 1}`);
    const items = this.#stack.splice(mark);
    items.shift();
    return items;
  }

  #tuple(length: number): readonly unknown[] {
    const items: unknown[] = [];
    for (let i = 0; i < length; i++) items.unshift(this.#pop());
    return Object.freeze(items);
  }

  #append(items: readonly unknown[]): void {
    const list = this.#top();
    if (list instanceof PickleObject) return;
    if (!Array.isArray(list) || Object.isFrozen(list))
      throw this.#error(`appends to something that is no list at byte ${this.#at - 1}`);
    for (const item of items) list.push(item);
  }

  #addItems(items: readonly unknown[]): void {
    const set = this.#top();
    if (!(set instanceof Set)) throw this.#error(`adds to something that is no set at byte ${this.#at - 1}`);
    for (const item of items) set.add(item);
  }

  #setItems(items: readonly unknown[]): void {
    const map = this.#top();
    if (map instanceof PickleObject) return;
    if (!(map instanceof Map) || items.length % 2 !== 0)
      throw this.#error(`sets entries of something that is no dict at byte ${this.#at - 1}`);
    for (let i = 0; i < items.length; i += 2) map.set(items[i], items[i + 1]);
  }

  #classOf(module: unknown, name: unknown): PickleClass {
    if (typeof module !== 'string' || typeof name !== 'string') throw this.#error('names a class by something that is no text');
    const qualifiedName = `${module}.${name}`;
    const known = this.#options.classOf(qualifiedName);
    if (known) return known;
    throw new MatMambaError(
      'UNSAFE',
      `${this.#options.name} asks for '${printable(qualifiedName)}', which is not a tensor; nothing was run`,
      {
        hint: 'save only the weights, torch.save(model.state_dict(), path), or convert the file to safetensors where you trust it',
      },
    );
  }

  #reduce(callee: unknown, args: unknown): unknown {
    if (!isClass(callee)) throw this.#error(`calls something that is no class at byte ${this.#at - 1}`);
    if (!isTuple(args)) throw this.#error(`calls ${callee.qualifiedName} without a tuple of arguments`);
    return this.#made(callee.reduce(args, this.#charge));
  }

  #put(index: number): void {
    this.#memo.set(index, this.#top());
    if (this.#memo.size > MAX_MEMO) throw this.#error(`remembers more than ${MAX_MEMO} values`);
  }

  #get(index: number): unknown {
    if (!this.#memo.has(index)) throw this.#error(`recalls value ${index}, which it never stored`);
    return this.#memo.get(index);
  }
}

function isClass(value: unknown): value is PickleClass {
  return typeof value === 'object' && value !== null && 'qualifiedName' in value && 'reduce' in value;
}

/** A name from a hostile file, fit for a terminal. */
function printable(name: string): string {
  return name.replace(/[^\x20-\x7e]/g, '?').slice(0, 120);
}

/**
 * Reads one pickle.
 * @throws UNSAFE for a name that is not on the allow-list; FORMAT for anything malformed or beyond the limits
 */
export function readPickle(bytes: Uint8Array, options: PickleOptions): unknown {
  return new Machine(bytes, options).run();
}
