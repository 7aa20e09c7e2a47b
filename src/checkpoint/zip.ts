/**
 * Zip archives as torch writes them: stored (never compressed) entries, their data 64-byte aligned, zip64 at the end.
 *
 * The reader needs only the central directory and positioned reads; every range is checked against the file. The writer
 * makes one pass: sizes and CRC follow each entry in a data descriptor, padding sits in an extra field.
 * Layout: APPNOTE.TXT 6.3, sections 4.3 and 4.5.
 */

import { MatMambaError } from '../errors.ts';
import type { AtomicFile } from './atomic-file.ts';
import type { ByteSource } from './source.ts';

const LOCAL = 0x04034b50;
const DESCRIPTOR = 0x08074b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const END64 = 0x06064b50;
const LOCATOR64 = 0x07064b50;
const UINT32_MAX = 0xffffffff;
const UINT16_MAX = 0xffff;
const MAX_DIRECTORY_BYTES = 256 * 2 ** 20;
const ALIGNMENT = 64;

/** One entry. */
export interface ZipEntry {
  readonly name: string;
  readonly size: number;
  /** Compressed entries are listed but can not be read. */
  readonly compressed: boolean;
  readonly crc32: number;
  /** Where its local header is. */
  readonly headerOffset: number;
}

function damaged(file: string, problem: string): MatMambaError {
  return new MatMambaError('FORMAT', `${file}: ${problem}`, {
    hint: 'the file is truncated or damaged: download or save it again',
  });
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A 64-bit field; too large a number stays too large, which every range check refuses. */
function uint64(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}

interface Directory {
  readonly offset: number;
  readonly size: number;
  readonly count: number;
}

async function findDirectory(source: ByteSource, signal?: AbortSignal): Promise<Directory> {
  const tailLength = Math.min(source.size, 22 + UINT16_MAX);
  const tailStart = source.size - tailLength;
  const tail = viewOf(await source.read(tailStart, tailLength, signal));
  for (let at = tailLength - 22; at >= 0; at--) {
    if (tail.getUint32(at, true) !== END || at + 22 + tail.getUint16(at + 20, true) > tailLength) continue;
    const count = tail.getUint16(at + 10, true);
    const size = tail.getUint32(at + 12, true);
    const offset = tail.getUint32(at + 16, true);
    const locatorAt = tailStart + at - 20;
    if (locatorAt >= 0) {
      const locator = viewOf(await source.read(locatorAt, 20, signal));
      if (locator.getUint32(0, true) === LOCATOR64) return readEnd64(source, uint64(locator, 8), locatorAt, signal);
    }
    return { offset, size, count };
  }
  throw damaged(source.name, 'it has no zip directory at its end');
}

async function readEnd64(source: ByteSource, at: number, limit: number, signal?: AbortSignal): Promise<Directory> {
  if (at + 56 > limit) throw damaged(source.name, 'its zip64 record points outside the file');
  const record = viewOf(await source.read(at, 56, signal));
  if (record.getUint32(0, true) !== END64) throw damaged(source.name, 'its zip64 record is missing');
  return { count: uint64(record, 32), size: uint64(record, 40), offset: uint64(record, 48) };
}

/** Sizes and offset that do not fit 32 bits are in the zip64 extra field, in this order, only those. */
function readExtra64(
  view: DataView,
  start: number,
  end: number,
  fields: [size: number, stored: number, offset: number],
): boolean {
  if (!fields.includes(UINT32_MAX)) return true;
  for (let at = start; at + 4 <= end; at += 4 + view.getUint16(at + 2, true)) {
    const fieldEnd = at + 4 + view.getUint16(at + 2, true);
    if (view.getUint16(at, true) !== 1) continue;
    let from = at + 4;
    for (let i = 0; i < 3; i++) {
      if (fields[i] !== UINT32_MAX) continue;
      if (from + 8 > Math.min(fieldEnd, end)) return false;
      fields[i] = uint64(view, from);
      from += 8;
    }
    return true;
  }
  return false;
}

/**
 * The entries of an archive by name.
 * @throws FORMAT for damage, encrypted entries, repeated names
 */
export async function readZipDirectory(source: ByteSource, signal?: AbortSignal): Promise<Map<string, ZipEntry>> {
  const { offset, size, count } = await findDirectory(source, signal);
  if (offset + size > source.size || size > MAX_DIRECTORY_BYTES)
    throw damaged(source.name, 'its zip directory is not inside the file');
  if (count * 46 > size) throw damaged(source.name, `its zip directory of ${size} bytes cannot hold ${count} entries`);
  const bytes = await source.read(offset, size, signal);
  const view = viewOf(bytes);
  const decoder = new TextDecoder();
  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + 46 > size || view.getUint32(at, true) !== CENTRAL)
      throw damaged(source.name, `entry ${i} of its zip directory is damaged`);
    const nameEnd = at + 46 + view.getUint16(at + 28, true);
    const extraEnd = nameEnd + view.getUint16(at + 30, true);
    const next = extraEnd + view.getUint16(at + 32, true);
    if (next > size) throw damaged(source.name, `entry ${i} of its zip directory is damaged`);
    const name = decoder.decode(bytes.subarray(at + 46, nameEnd));
    const fields: [number, number, number] = [
      view.getUint32(at + 24, true),
      view.getUint32(at + 20, true),
      view.getUint32(at + 42, true),
    ];
    if (!readExtra64(view, nameEnd, extraEnd, fields)) throw damaged(source.name, `the zip64 field of '${name}' is damaged`);
    if (view.getUint16(at + 8, true) & 1) throw damaged(source.name, `'${name}' is encrypted`);
    const compressed = view.getUint16(at + 10, true) !== 0 || fields[0] !== fields[1];
    if (fields[2] + 30 + fields[1] > source.size) throw damaged(source.name, `'${name}' reaches past the end of the file`);
    if (entries.has(name)) throw damaged(source.name, `'${name}' is in the archive twice`);
    entries.set(name, { name, size: fields[0], compressed, crc32: view.getUint32(at + 16, true), headerOffset: fields[2] });
    at = next;
  }
  return entries;
}

/** Where an entry's bytes start. Reads its local header. @throws FORMAT, also for a compressed entry */
export async function zipDataOffset(source: ByteSource, entry: ZipEntry, signal?: AbortSignal): Promise<number> {
  if (entry.compressed) {
    throw new MatMambaError('FORMAT', `${source.name}: '${entry.name}' is compressed`, {
      hint: 'torch.save stores entries as they are; the file was zipped again by something else',
    });
  }
  const header = viewOf(await source.read(entry.headerOffset, 30, signal));
  if (header.getUint32(0, true) !== LOCAL) throw damaged(source.name, `the header of '${entry.name}' is damaged`);
  const start = entry.headerOffset + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  if (start + entry.size > source.size) throw damaged(source.name, `'${entry.name}' reaches past the end of the file`);
  return start;
}

const CRC_TABLES = /* @__PURE__ */ makeCrcTables();

/** Eight tables: the usual byte table and the same shifted by one to seven zero bytes. */
function makeCrcTables(): Uint32Array[] {
  const tables = Array.from({ length: 8 }, () => new Uint32Array(256));
  for (let i = 0; i < 256; i++) {
    let c = i;
    for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
    tables[0]![i] = c;
  }
  for (let i = 0; i < 256; i++) {
    let c = tables[0]![i]!;
    for (let k = 1; k < 8; k++) {
      c = (c >>> 8) ^ tables[0]![c & 255]!;
      tables[k]![i] = c;
    }
  }
  return tables;
}

/** CRC-32 of `bytes`, going on from the CRC of what came before (eight bytes a turn). */
export function crc32(bytes: Uint8Array, before = 0): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = CRC_TABLES as unknown as [
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
    Uint32Array,
  ];
  let c = ~before;
  let i = 0;
  for (const end = bytes.length - 7; i < end; i += 8) {
    c ^= bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24);
    c =
      t7[c & 255]! ^
      t6[(c >>> 8) & 255]! ^
      t5[(c >>> 16) & 255]! ^
      t4[c >>> 24]! ^
      t3[bytes[i + 4]!]! ^
      t2[bytes[i + 5]!]! ^
      t1[bytes[i + 6]!]! ^
      t0[bytes[i + 7]!]!;
  }
  for (; i < bytes.length; i++) c = (c >>> 8) ^ t0[(c ^ bytes[i]!) & 255]!;
  return ~c >>> 0;
}

/** Appends stored entries to a file, then the directory. */
export class ZipWriter {
  readonly entries: ZipEntry[] = [];
  readonly #file: AtomicFile;

  constructor(file: AtomicFile) {
    this.#file = file;
  }

  /** Adds an entry of exactly `size` bytes (the caller has counted them). @throws FILE */
  async add(name: string, size: number, pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<void> {
    const headerOffset = this.#file.size;
    await this.#file.write(localHeader(name, headerOffset));
    let crc = 0;
    for await (const piece of pieces) {
      crc = crc32(piece, crc);
      await this.#file.write(piece);
    }
    const large = size >= UINT32_MAX;
    const descriptor = viewOf(new Uint8Array(large ? 24 : 16));
    descriptor.setUint32(0, DESCRIPTOR, true);
    descriptor.setUint32(4, crc, true);
    for (let i = 0; i < 2; i++) {
      if (large) descriptor.setBigUint64(8 + 8 * i, BigInt(size), true);
      else descriptor.setUint32(8 + 4 * i, size, true);
    }
    await this.#file.write(new Uint8Array(descriptor.buffer));
    this.entries.push({ name, size, compressed: false, crc32: crc, headerOffset });
  }

  /** Writes the directory, zip64 record included. @throws FILE */
  async end(): Promise<void> {
    const offset = this.#file.size;
    for (const entry of this.entries) await this.#file.write(centralHeader(entry));
    const size = this.#file.size - offset;
    const count = this.entries.length;
    const end = viewOf(new Uint8Array(56 + 20 + 22));
    end.setUint32(0, END64, true);
    end.setBigUint64(4, 44n, true);
    end.setUint16(12, 45, true); // made by version 4.5
    end.setUint16(14, 45, true);
    end.setBigUint64(24, BigInt(count), true);
    end.setBigUint64(32, BigInt(count), true);
    end.setBigUint64(40, BigInt(size), true);
    end.setBigUint64(48, BigInt(offset), true);
    end.setUint32(56, LOCATOR64, true);
    end.setBigUint64(64, BigInt(offset + size), true);
    end.setUint32(72, 1, true);
    end.setUint32(76, END, true);
    end.setUint16(84, Math.min(count, UINT16_MAX), true);
    end.setUint16(86, Math.min(count, UINT16_MAX), true);
    end.setUint32(88, Math.min(size, UINT32_MAX), true);
    end.setUint32(92, Math.min(offset, UINT32_MAX), true);
    await this.#file.write(new Uint8Array(end.buffer));
  }
}

const FLAGS = 0x0808; // sizes follow the data, names are UTF-8

/** Header plus an extra field that pads the data to a multiple of 64, as torch does it (id 'FB', filled with 'Z'). */
function localHeader(name: string, headerOffset: number): Uint8Array {
  const nameBytes = new TextEncoder().encode(name);
  const padding = (ALIGNMENT - ((headerOffset + 30 + nameBytes.length + 4) % ALIGNMENT)) % ALIGNMENT;
  const bytes = new Uint8Array(30 + nameBytes.length + 4 + padding).fill(0x5a);
  bytes.fill(0, 0, 30);
  const view = viewOf(bytes);
  view.setUint32(0, LOCAL, true);
  view.setUint16(6, FLAGS, true);
  view.setUint16(26, nameBytes.length, true);
  view.setUint16(28, 4 + padding, true);
  bytes.set(nameBytes, 30);
  view.setUint16(30 + nameBytes.length, 0x4246, true);
  view.setUint16(32 + nameBytes.length, padding, true);
  return bytes;
}

function centralHeader(entry: ZipEntry): Uint8Array {
  const nameBytes = new TextEncoder().encode(entry.name);
  const large: number[] = [];
  if (entry.size >= UINT32_MAX) large.push(entry.size, entry.size);
  if (entry.headerOffset >= UINT32_MAX) large.push(entry.headerOffset);
  const extra = large.length > 0 ? 4 + 8 * large.length : 0;
  const bytes = new Uint8Array(46 + nameBytes.length + extra);
  const view = viewOf(bytes);
  view.setUint32(0, CENTRAL, true);
  view.setUint16(6, extra > 0 ? 45 : 0, true);
  view.setUint16(8, FLAGS, true);
  view.setUint32(16, entry.crc32, true);
  view.setUint32(20, Math.min(entry.size, UINT32_MAX), true);
  view.setUint32(24, Math.min(entry.size, UINT32_MAX), true);
  view.setUint16(28, nameBytes.length, true);
  view.setUint16(30, extra, true);
  view.setUint32(42, Math.min(entry.headerOffset, UINT32_MAX), true);
  bytes.set(nameBytes, 46);
  if (extra > 0) {
    view.setUint16(46 + nameBytes.length, 1, true);
    view.setUint16(48 + nameBytes.length, 8 * large.length, true);
    large.forEach((value, i) => view.setBigUint64(50 + nameBytes.length + 8 * i, BigInt(value), true));
  }
  return bytes;
}
