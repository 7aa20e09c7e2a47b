import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { TOKEN_FILE_HEADER_BYTES, TOKEN_FILE_MAGIC, TokenFile } from './token-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'matmamba-tokens-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function write(
  name: string,
  tokens: readonly number[],
  { magic = TOKEN_FILE_MAGIC, version = 1, count = tokens.length, size = Infinity } = {},
): string {
  const bytes = Buffer.alloc(TOKEN_FILE_HEADER_BYTES + 2 * tokens.length);
  for (const [i, value] of [magic, version, count].entries()) bytes.writeInt32LE(value, 4 * i);
  tokens.forEach((id, i) => bytes.writeUInt16LE(id, TOKEN_FILE_HEADER_BYTES + 2 * i));
  const path = join(folder, name);
  writeFileSync(path, bytes.subarray(0, size));
  return path;
}

describe('token files', () => {
  test('are read by position', async () => {
    await using file = await TokenFile.open(write('good.bin', [5, 65535, 7, 0]));
    expect(file.length).toBe(4);
    expect(await file.read(1, 2)).toEqual(Int32Array.of(65535, 7));
    expect(await file.read(4, 0)).toEqual(new Int32Array(0));
    await expect(file.read(3, 2)).rejects.toMatchObject({ code: 'FORMAT' });
    await expect(file.read(0, 3, 100)).rejects.toMatchObject({
      code: 'TOKEN',
      message: expect.stringContaining('token 65535 at position 1') as string,
    });
  });

  test('that are damaged are refused', async () => {
    const open = (path: string) => expect(TokenFile.open(path)).rejects;
    await open(join(folder, 'none')).toMatchObject({ code: 'FILE' });
    await open(folder).toMatchObject({ code: 'FILE' });
    await open(write('short.bin', [], { size: 100 })).toMatchObject({
      code: 'FORMAT',
      message: expect.stringContaining('100 bytes hold no header') as string,
    });
    await open(write('magic.bin', [1], { magic: 1 })).toMatchObject({
      code: 'FORMAT',
      message: expect.stringContaining('magic number is 1') as string,
    });
    await open(write('version.bin', [1], { version: 2 })).toMatchObject({
      code: 'FORMAT',
      message: expect.stringContaining('version 2') as string,
    });
    await open(write('cut.bin', [1, 2], { count: 3 })).toMatchObject({
      code: 'FORMAT',
      message: expect.stringContaining('cut off') as string,
    });
    await open(write('negative.bin', [1, 2], { count: -1 })).toMatchObject({ code: 'FORMAT' });
  });
});
