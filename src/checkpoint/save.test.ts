import { mkdir, readFile, readdir, symlink, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { open as openFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type OpenForWriting, writeFileAtomic } from './atomic-file.ts';
import { openCheckpoint } from './checkpoint.ts';
import { saveTensors } from './save.ts';
import { fileSource } from './source.ts';
import { sample, samples, withFolder } from './testing.ts';

/** A disk with room for `room` bytes in all; `at` fails something else instead. */
function disk(room: number, at: 'write' | 'sync' | 'close' = 'write'): OpenForWriting {
  return async (path) => {
    const handle = await openFile(path, 'wx');
    const full = (): Error => Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
    return {
      async write(bytes, offset, length) {
        if (at === 'write' && room < length) throw full();
        room -= length;
        return handle.write(bytes, offset, Math.min(length, 100)); // short writes are allowed
      },
      sync: async () => (at === 'sync' ? Promise.reject(full()) : handle.sync()),
      close: async () => {
        await handle.close();
        if (at === 'close') throw full();
      },
    };
  };
}

const FULL = { code: 'FILE', message: expect.stringMatching(/the disk is full/), hint: expect.stringMatching(/free some space/) };

describe('saving', () => {
  test.each(['safetensors', 'pytorch'] as const)('a full disk leaves the old %s files as they were', async (format) => {
    await withFolder(async (folder) => {
      const old = samples();
      await saveTensors(folder, format, old);
      const before = await readdir(folder);
      const content = await readFile(join(folder, before[0]!));
      const tensors = [sample('new', 'f32', [300])];
      for (const room of [0, 50, 1000, 1500])
        await expect(saveTensors(folder, format, tensors, { open: disk(room) })).rejects.toMatchObject(FULL);
      for (const at of ['sync', 'close'] as const)
        await expect(saveTensors(folder, format, tensors, { open: disk(1e6, at) })).rejects.toMatchObject(FULL);
      await expect(
        saveTensors(folder, format, [...tensors, sample('b', 'f32', [300])], { open: disk(2500), maxShardBytes: 1200 }),
      ).rejects.toMatchObject(FULL);
      expect(await readdir(folder)).toEqual(before);
      expect(await readFile(join(folder, before[0]!))).toEqual(content);
      await saveTensors(folder, format, tensors, { open: disk(1e6) });
      const checkpoint = await openCheckpoint(folder);
      expect(await checkpoint.entries.get('new')!.read()).toEqual(tensors[0]!.bytes);
      await checkpoint.close();
    });
  });

  test.skipIf(!existsSync('/dev/full'))('the device that is always full (skipped without /dev/full)', async () => {
    await withFolder(async (folder) => {
      await writeFile(join(folder, 'a.json'), 'old');
      const full: OpenForWriting = () => openFile('/dev/full', 'r+');
      await expect(writeFileAtomic(join(folder, 'a.json'), 'new', { open: full })).rejects.toMatchObject(FULL);
      expect(await readFile(join(folder, 'a.json'), 'utf8')).toBe('old');
      await writeFileAtomic(join(folder, 'a.json'), 'new');
      expect(await readFile(join(folder, 'a.json'), 'utf8')).toBe('new');
      expect(await readdir(folder)).toEqual(['a.json']);
    });
  });

  test('a source that fails, gives too few or too many bytes, or is aborted leaves nothing behind', async () => {
    await withFolder(async (folder) => {
      const good = sample('a', 'f32', [4]);
      const failing = {
        ...good,
        async *chunks() {
          yield new Uint8Array(4);
          throw new Error('gone');
        },
      };
      await expect(saveTensors(folder, 'safetensors', [failing])).rejects.toThrow('gone');
      for (const length of [0, 12, 20]) {
        await expect(saveTensors(folder, 'pytorch', [{ ...good, chunks: () => new Uint8Array(length) }])).rejects.toMatchObject({
          code: 'SHAPE',
        });
      }
      const controller = new AbortController();
      const aborting = {
        ...good,
        chunks() {
          controller.abort();
          return new Uint8Array(16);
        },
      };
      await expect(saveTensors(folder, 'safetensors', [aborting], { signal: controller.signal })).rejects.toMatchObject({
        code: 'ABORTED',
      });
      expect(await readdir(folder)).toEqual([]);
    });
  });

  test('lists that make no sense are refused before anything is written', async () => {
    await withFolder(async (folder) => {
      const a = sample('a', 'f32', [4]);
      await expect(saveTensors(folder, 'safetensors', [a, a])).rejects.toThrow(/two tensors to save are called 'a'/);
      await expect(saveTensors(folder, 'safetensors', [{ ...a, aliasOf: 'b' }])).rejects.toMatchObject({ code: 'WEIGHTS' });
      await expect(saveTensors(folder, 'safetensors', [a, { ...a, name: 'b', shape: [2, 2], aliasOf: 'a' }])).rejects.toThrow(
        /expected f32 \(4\), got f32 \(2, 2\)/,
      );
      await expect(saveTensors(folder, 'safetensors', [{ ...a, shape: [-1] }])).rejects.toMatchObject({ code: 'SHAPE' });
      await expect(saveTensors(folder, 'onnx' as 'pytorch', [a])).rejects.toMatchObject({ code: 'OPTION' });
      await writeFile(join(folder, 'file'), '');
      await expect(saveTensors(join(folder, 'file'), 'safetensors', [a])).rejects.toMatchObject({ code: 'FILE' });
      expect(await readdir(folder)).toEqual(['file']);
    });
  });

  test('the last save is what a reader gets, whichever format came before', async () => {
    await withFolder(async (folder) => {
      const [a, b] = [sample('a', 'f32', [4]), sample('b', 'f32', [4])];
      await saveTensors(folder, 'safetensors', [a]);
      expect((await saveTensors(folder, 'pytorch', [b])).setAside).toEqual(['model.safetensors']);
      expect([...(await closeAfter(folder))]).toEqual(['b']);
      await saveTensors(folder, 'safetensors', [a]);
      expect([...(await closeAfter(folder))]).toEqual(['a']);
      expect((await readdir(folder)).sort()).toEqual(['model.safetensors', 'model.safetensors.old', 'pytorch_model.bin']);
    });
  });

  test('the same weights give the same bytes; a link is replaced, not followed', async () => {
    await withFolder(async (folder) => {
      const real = join(folder, 'real');
      await mkdir(real);
      await saveTensors(real, 'pytorch', samples());
      const first = await readFile(join(real, 'pytorch_model.bin'));
      const linked = join(folder, 'linked');
      await mkdir(linked);
      await symlink(join(real, 'pytorch_model.bin'), join(linked, 'pytorch_model.bin'));
      await saveTensors(linked, 'pytorch', [sample('a', 'f32', [4])]);
      expect(await readFile(join(real, 'pytorch_model.bin'))).toEqual(first);
      await saveTensors(linked, 'pytorch', samples());
      expect(await readFile(join(linked, 'pytorch_model.bin'))).toEqual(first);
    });
  });

  test('a file source: pieces, the end, closing', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'x');
      await writeFile(path, Uint8Array.of(1, 2, 3, 4));
      const source = await fileSource(path);
      expect(await source.read(1, 2)).toEqual(Uint8Array.of(2, 3));
      await expect(source.read(2, 3)).rejects.toMatchObject({ code: 'FORMAT' });
      await expect(source.read(0, 4, AbortSignal.abort())).rejects.toMatchObject({ code: 'ABORTED' });
      await source.close();
      await source.close();
      await expect(source.read(0, 1)).rejects.toMatchObject({ code: 'DISPOSED' });
      await expect(fileSource(folder)).rejects.toMatchObject({ code: 'FILE' });
    });
  });
});

async function closeAfter(folder: string): Promise<Iterable<string>> {
  const checkpoint = await openCheckpoint(folder);
  await checkpoint.close();
  return checkpoint.entries.keys();
}
