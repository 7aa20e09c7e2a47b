/**
 * The bytes of TensorBoard event files: protobuf messages `Event` (tensorflow/core/util/event.proto) with scalar
 * summaries, each framed as a TFRecord (length, masked CRC-32C of the length, data, masked CRC-32C of the data).
 */

import { maskedCrc32c } from './crc32c.ts';

/** What an event says. */
export type EventContent =
  | { readonly fileVersion: string }
  /** Values by tag. */
  | { readonly scalars: Readonly<Record<string, number>> }
  /** A run goes on here: readers forget events of this and later steps from earlier files. */
  | { readonly sessionStart: true };

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;
const SESSION_START = 1;

/** Protobuf fields, one after another. */
class Message {
  readonly #bytes: number[] = [];

  /** A whole number of 0 or more, up to 2^53. */
  varint(field: number, value: number): this {
    this.#raw(field * 8 + VARINT);
    this.#raw(value);
    return this;
  }

  double(field: number, value: number): this {
    this.#raw(field * 8 + FIXED64);
    this.#bytes.push(...new Uint8Array(new Float64Array([value]).buffer));
    return this;
  }

  float(field: number, value: number): this {
    this.#raw(field * 8 + FIXED32);
    this.#bytes.push(...new Uint8Array(new Float32Array([value]).buffer));
    return this;
  }

  bytes(field: number, value: Uint8Array): this {
    this.#raw(field * 8 + BYTES);
    this.#raw(value.length);
    for (const byte of value) this.#bytes.push(byte);
    return this;
  }

  string(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  end(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }

  #raw(value: number): void {
    let rest = value;
    for (; rest >= 128; rest = Math.floor(rest / 128)) this.#bytes.push((rest % 128) + 128);
    this.#bytes.push(rest);
  }
}

/**
 * One `Event`, not yet framed.
 * @param wallSeconds time of the event, seconds since 1970
 */
export function encodeEvent(content: EventContent, step: number, wallSeconds: number): Uint8Array {
  const event = new Message().double(1, wallSeconds).varint(2, step);
  if ('fileVersion' in content) return event.string(3, content.fileVersion).end();
  if ('sessionStart' in content) return event.bytes(7, new Message().varint(1, SESSION_START).end()).end();
  const summary = new Message();
  for (const [tag, value] of Object.entries(content.scalars)) {
    summary.bytes(1, new Message().string(1, tag).float(2, value).end());
  }
  return event.bytes(5, summary.end()).end();
}

/** The data as a TFRecord. */
export function frameRecord(data: Uint8Array): Uint8Array {
  const record = new Uint8Array(12 + data.length + 4);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, maskedCrc32c(record.subarray(0, 8)), true);
  record.set(data, 12);
  view.setUint32(12 + data.length, maskedCrc32c(data), true);
  return record;
}
