import { readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openCheckpoint, openCheckpointSource } from './checkpoint.ts';
import { saveTensors } from './save.ts';
import { memorySource } from './source.ts';
import { sample, samples, withFolder } from './testing.ts';

/** A file with this header, written as given, and `dataBytes` zeros. */
function fileWith(header: string, dataBytes: number): Uint8Array {
  const json = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

const open = (header: string, dataBytes: number) =>
  openCheckpointSource(memorySource(fileWith(header, dataBytes), 'x.safetensors'));
const f32 = (begin: number, end: number): string =>
  `{"dtype":"F32","shape":[${(end - begin) / 4}],"data_offsets":[${begin},${end}]}`;

describe('safetensors', () => {
  test('round trip of every dtype, scalar and empty tensors, metadata, in pieces', async () => {
    await withFolder(async (folder) => {
      const tensors = samples();
      await saveTensors(folder, 'safetensors', tensors, { metadata: { note: 'a "quoted" ü' } });
      const checkpoint = await openCheckpoint(folder);
      expect(checkpoint.format).toBe('safetensors');
      expect(checkpoint.metadata['note']).toBe('a "quoted" ü');
      expect(checkpoint.metadata['format']).toBe('pt');
      for (const { name, dtype, shape, bytes } of tensors) {
        const entry = checkpoint.entries.get(name)!;
        expect([entry.dtype, entry.shape, entry.byteLength]).toEqual([dtype, shape, bytes.length]);
        expect(await entry.read()).toEqual(bytes);
        if (bytes.length > 9) expect(await entry.read(3, 6)).toEqual(bytes.subarray(3, 9));
      }
      await checkpoint.close();
      const file = await readFile(join(folder, 'model.safetensors'));
      const length = Number(file.readBigUInt64LE(0));
      expect(length % 8).toBe(0);
      const header = JSON.parse(file.toString('utf8', 8, 8 + length)) as Record<string, { data_offsets: [number, number] }>;
      for (const { name, dtype } of tensors) expect(header[name]!.data_offsets[0] % (dtype.endsWith('64') ? 8 : 1)).toBe(0);
    });
  });

  test('a tied tensor is stored once and comes back under both names', async () => {
    await withFolder(async (folder) => {
      const embedding = sample('backbone.embedding.weight', 'bf16', [40, 8]);
      await saveTensors(folder, 'safetensors', [embedding, { ...embedding, name: 'lm_head.weight', aliasOf: embedding.name }]);
      expect((await readFile(join(folder, 'model.safetensors'))).length).toBeLessThan(1000);
      const checkpoint = await openCheckpoint(folder);
      expect([...checkpoint.aliases]).toEqual([['lm_head.weight', embedding.name]]);
      expect(await checkpoint.entries.get('lm_head.weight')!.read()).toEqual(embedding.bytes);
      await checkpoint.close();
    });
  });

  test('shards with an index, tied names, and one file again afterwards', async () => {
    await withFolder(async (folder) => {
      const tensors = samples();
      const tied = { ...tensors[0]!, name: 'tied', aliasOf: tensors[0]!.name };
      const { files } = await saveTensors(folder, 'safetensors', [...tensors, tied], {
        maxShardBytes: 150,
        metadata: { a: 'b' },
      });
      expect(files.length).toBeGreaterThan(4);
      expect(files[0]).toMatch(/^model-00001-of-000\d\d\.safetensors$/);
      expect((await readdir(folder)).sort()).toEqual([...files].sort());
      const checkpoint = await openCheckpoint(folder);
      expect(checkpoint.entries.size).toBe(tensors.length + 1);
      expect(checkpoint.aliases.get('tied')).toBe(tensors[0]!.name);
      expect(checkpoint.metadata['a']).toBe('b');
      for (const { name, bytes } of tensors) expect(await checkpoint.entries.get(name)!.read()).toEqual(bytes);
      await checkpoint.close();
      await saveTensors(folder, 'safetensors', tensors);
      expect(await readdir(folder)).toEqual(['model.safetensors']);
    });
  });

  test.each([
    ['truncated data', `{"a":${f32(0, 8)}}`, 4, /'a' lies at bytes 0 to 8 of 4/],
    ['overlap', `{"a":${f32(0, 8)},"b":${f32(4, 12)}}`, 12, /'a' and 'b' overlap/],
    ['size against shape', '{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}', 8, /12 bytes, but its range holds 8/],
    ['unknown dtype by name', '{"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}}', 8, /"F8_E4M3"/],
    ['the same name twice', `{"a":${f32(0, 4)},"a":${f32(4, 8)}}`, 8, /"a" appears twice/],
    ['negative offsets', '{"a":{"dtype":"U8","shape":[4],"data_offsets":[-4,0]}}', 8, /lies at bytes -4/],
    ['a fraction in the shape', '{"a":{"dtype":"U8","shape":[0.5],"data_offsets":[0,0]}}', 8, /shape \(0\.5\)/],
    ['a shape beyond numbers', '{"a":{"dtype":"U8","shape":[4e9,4e9],"data_offsets":[0,8]}}', 8, /has the shape/],
    ['broken JSON', '{"a":', 8, /line 1, column/],
    ['no object', '{"a":3}', 8, /'a' is not an object/],
    ['metadata that is no text', '{"__metadata__":{"a":1}}', 0, /__metadata__\['a'\]/],
  ])('refuses %s', async (_what, header, dataBytes, message) => {
    await expect(open(header, dataBytes)).rejects.toMatchObject({ code: 'FORMAT', message: expect.stringMatching(message) });
  });

  test('refuses truncated and absurd header lengths', async () => {
    const good = fileWith(`{"a":${f32(0, 8)}}`, 8);
    for (const length of [0, 5, 8, 20]) {
      await expect(openCheckpointSource(memorySource(good.slice(0, length)))).rejects.toMatchObject({ code: 'FORMAT' });
    }
    const absurd = good.slice();
    absurd[6] = 1;
    await expect(openCheckpointSource(memorySource(absurd))).rejects.toThrow(/more than 100000000/);
  });

  test('__proto__ is a name like any other', async () => {
    const checkpoint = await open(`{"__proto__":${f32(0, 4)},"constructor":${f32(4, 8)}}`, 8);
    expect([...checkpoint.entries.keys()]).toEqual(['__proto__', 'constructor']);
  });

  test('a folder or file that is not there, a folder without weights, a text in place of weights', async () => {
    await withFolder(async (folder) => {
      await expect(openCheckpoint(join(folder, 'none'))).rejects.toMatchObject({
        code: 'FILE',
        message: expect.stringMatching(/no such file or folder/),
      });
      await expect(openCheckpoint(folder)).rejects.toMatchObject({
        code: 'FILE',
        hint: expect.stringMatching(/pytorch_model\.bin/),
      });
      await writeFile(join(folder, 'epoch3.pt'), 'version https://git-lfs.github.com/spec/v1\n');
      await expect(openCheckpoint(folder)).rejects.toMatchObject({ hint: expect.stringMatching(/epoch3\.pt/) });
      await expect(openCheckpoint(join(folder, 'epoch3.pt'))).rejects.toMatchObject({
        code: 'FORMAT',
        hint: expect.stringMatching(/lfs/),
      });
    });
  });

  test('an index can not lead out of its folder and must be true', async () => {
    await withFolder(async (folder) => {
      const index = join(folder, 'model.safetensors.index.json');
      await writeFile(index, '{"weight_map": {"a": "../secret.safetensors"}}');
      await expect(openCheckpoint(folder)).rejects.toThrow(/no file name/);
      await writeFile(join(folder, 's.safetensors'), fileWith(`{"a":${f32(0, 8)}}`, 8));
      await writeFile(index, '{"weight_map": {"a": "s.safetensors", "b": "s.safetensors"}}');
      await expect(openCheckpoint(index)).rejects.toThrow(/reads 'b' from s\.safetensors/);
      await writeFile(index, '{"weight_map": {"a": "gone.safetensors"}}');
      await expect(openCheckpoint(folder)).rejects.toMatchObject({
        code: 'FILE',
        message: expect.stringMatching(/gone\.safetensors/),
      });
    });
  });
});
