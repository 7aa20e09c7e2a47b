/** Event files, read back by a decoder that shares nothing with the writer, and by TensorBoard itself where it is installed. */

import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { crc32c } from './crc32c.ts';
import { TensorBoardWriter } from './tensor-board.ts';

let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'matmamba-events-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** CRC-32C bit by bit, over the reflected polynomial. */
function slowCrc(bytes: Uint8Array): number {
  let crc = 0xffffffffn;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let i = 0; i < 8; i++) crc = crc & 1n ? (crc >> 1n) ^ 0x82f63b78n : crc >> 1n;
  }
  return Number(crc ^ 0xffffffffn);
}

function unmask(masked: number): number {
  const rotated = (masked - 0xa282ead8) >>> 0;
  return ((rotated >>> 17) | (rotated << 15)) >>> 0;
}

/** Data of each TFRecord; every checksum must hold. */
function records(file: Buffer): Buffer[] {
  const out: Buffer[] = [];
  for (let at = 0; at < file.length;) {
    const length = Number(file.readBigUInt64LE(at));
    expect(unmask(file.readUInt32LE(at + 8))).toBe(slowCrc(file.subarray(at, at + 8)));
    const data = file.subarray(at + 12, at + 12 + length);
    expect(unmask(file.readUInt32LE(at + 12 + length))).toBe(slowCrc(data));
    out.push(data);
    at += 16 + length;
  }
  return out;
}

/** A protobuf field: varints and fixed values as a number, the rest as bytes. */
interface Field {
  readonly field: number;
  readonly number: number;
  readonly bytes: Buffer;
}

/** The fields of a message in order. */
function fields(message: Buffer): Field[] {
  const out: Field[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(value);
    }
  };
  while (at < message.length) {
    const key = varint();
    const [field, wire] = [Math.floor(key / 8), key % 8];
    const add = (number: number, bytes = message.subarray(0, 0)): void => void out.push({ field, number, bytes });
    if (wire === 0) add(varint());
    else if (wire === 1) add(message.readDoubleLE((at += 8) - 8));
    else if (wire === 5) add(message.readFloatLE((at += 4) - 4));
    else {
      const length = varint();
      add(NaN, message.subarray(at, (at += length)));
    }
  }
  return out;
}

interface Event {
  wallTime: number;
  step: number;
  version?: string;
  session?: number;
  scalars: Record<string, number>;
}

async function readEvents(path: string): Promise<Event[]> {
  return records(await readFile(path)).map((data) => {
    const event: Event = { wallTime: 0, step: 0, scalars: {} };
    for (const { field, number, bytes } of fields(data)) {
      if (field === 1) event.wallTime = number;
      if (field === 2) event.step = number;
      if (field === 3) event.version = bytes.toString('utf8');
      if (field === 7) event.session = fields(bytes)[0]?.number ?? NaN;
      for (const item of field === 5 ? fields(bytes) : []) {
        const [tag, scalar] = fields(item.bytes);
        event.scalars[tag?.bytes.toString('utf8') ?? ''] = scalar?.number ?? NaN;
      }
    }
    return event;
  });
}

it('computes CRC-32C', () => {
  expect(crc32c(new TextEncoder().encode('123456789'))).toBe(0xe3069283);
  expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
  expect(crc32c(new Uint8Array(0))).toBe(0);
});

describe('TensorBoardWriter', () => {
  it('writes a version, then scalars with their steps and times', async () => {
    const writer = await TensorBoardWriter.create(join(folder, 'new', 'run'), { clock: () => 1_700_000_000_250 });
    await writer.scalars(1, { 'loss/level 1': 8.25, lr: 2e-5 });
    await writer.scalars(2 ** 40 + 1, { 'loss/µ': -1.5, zero: 0, nan: NaN, inf: Infinity });
    await writer.close();
    await writer.close();
    expect(writer.path).toMatch(/[/\\]new[/\\]run[/\\]events\.out\.tfevents\.1700000000\.[^/\\]+$/);
    const wallTime = 1_700_000_000.25;
    expect(await readEvents(writer.path)).toEqual([
      { wallTime, step: 0, version: 'brain.Event:2', scalars: {} },
      { wallTime, step: 1, scalars: { 'loss/level 1': 8.25, lr: Math.fround(2e-5) } },
      { wallTime, step: 2 ** 40 + 1, scalars: { 'loss/µ': -1.5, zero: 0, nan: NaN, inf: Infinity } },
    ]);
    await expect(writer.scalars(3, { x: 1 })).rejects.toMatchObject({ code: 'DISPOSED' });
  });

  it('writes after a few seconds, at 64 KiB and at flush, in order', async () => {
    let now = 1_700_000_000_000;
    const writer = await TensorBoardWriter.create(folder, { clock: () => now });
    const steps = async (): Promise<number[]> => (await readEvents(writer.path)).map(({ step }) => step);
    await writer.scalars(1, { x: 1 });
    now += 4999;
    await writer.scalars(2, { x: 1 });
    expect(await steps()).toEqual([0]);
    now += 1;
    await writer.scalars(3, { x: 1 });
    expect(await steps()).toEqual([0, 1, 2, 3]);
    await writer.scalars(4, { x: 1 });
    await writer.flush();
    expect(await steps()).toEqual([0, 1, 2, 3, 4]);
    await Promise.all(Array.from({ length: 3000 }, (_, i) => writer.scalars(5 + i, { x: i })));
    expect((await steps()).length).toBeGreaterThan(1000);
    await writer.close();
    expect(await steps()).toEqual(Array.from({ length: 3005 }, (_, i) => i));
  });

  it('resumes in a new file that takes back later steps', async () => {
    const first = await TensorBoardWriter.create(folder);
    await first.scalars(1, { x: 1 });
    await first.close();
    const second = await TensorBoardWriter.create(folder, { resumeAfter: 100 });
    await second.close();
    expect(await readdir(folder)).toHaveLength(2);
    expect(await readEvents(second.path)).toMatchObject([{ version: 'brain.Event:2' }, { step: 101, session: 1 }]);
    expect(second.path > first.path).toBe(true);
  });

  it('says which file cannot be written', async () => {
    await writeFile(join(folder, 'file'), '');
    await expect(TensorBoardWriter.create(join(folder, 'file'))).rejects.toMatchObject({ code: 'FILE' });
  });

  it.skipIf(!pythonHas('tensorboard'))("is read by TensorBoard (skipped where Python's tensorboard is missing)", async () => {
    const first = await TensorBoardWriter.create(folder);
    for (let step = 1; step <= 10; step++) await first.scalars(step, { loss: 10 - step });
    await first.close();
    const second = await TensorBoardWriter.create(folder, { resumeAfter: 6 });
    for (let step = 7; step <= 8; step++) await second.scalars(step, { loss: step });
    await second.close();
    const program = `
import sys, json
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1]); events.Reload()
print(json.dumps([[event.step, event.value] for event in events.Scalars('loss')]))`;
    const output = execFileSync('python3', ['-c', program, folder], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    expect(JSON.parse(output)).toEqual([...[9, 8, 7, 6, 5, 4].map((loss, i) => [i + 1, loss]), [7, 7], [8, 8]]);
  });
});

function pythonHas(module: string): boolean {
  try {
    execFileSync('python3', ['-c', `import ${module}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
