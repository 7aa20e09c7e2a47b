/**
 * The kernel module with memory that is not shared: the same code, with one bit of its memory import cleared. Atomic
 * operations are valid on either; only waiting is not, and the module leaves that to its host.
 */

import { MatMambaError } from '../../errors.ts';

const HEADER_BYTES = 8;
const IMPORT_SECTION = 2;
const KIND = { function: 0, table: 1, memory: 2, global: 3 } as const;
const SHARED_BIT = 2;

/** A copy of a module whose imported memory is not shared (WebAssembly core specification, 5.5.5). @throws INTERNAL */
export function withUnsharedMemory(module: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(module);
  let at = HEADER_BYTES;
  const number = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++]!;
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  };
  const skipName = (): void => {
    const length = number();
    at += length;
  };
  const limits = (): void => {
    const flags = bytes[at++]!;
    number();
    if (flags & 1) number();
  };
  while (at < bytes.length) {
    const section = bytes[at++]!;
    const length = number();
    const end = at + length;
    for (let left = section === IMPORT_SECTION ? number() : 0; left > 0; left--) {
      skipName();
      skipName();
      const kind = bytes[at++]!;
      if (kind === KIND.memory) {
        bytes[at] = bytes[at]! & ~SHARED_BIT;
        return bytes;
      }
      if (kind === KIND.function) number();
      else if (kind === KIND.global) at += 2;
      else if (kind === KIND.table) {
        at++;
        limits();
      } else throw new MatMambaError('INTERNAL', `a kernel module imports something of kind ${kind}`);
    }
    at = end;
  }
  throw new MatMambaError('INTERNAL', 'the kernel module imports no memory');
}
