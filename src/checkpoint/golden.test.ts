import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { tensorFromBytes } from '../tensor/index.ts';
import { openCheckpoint } from './checkpoint.ts';
import { parsePythonJson } from './python-json.ts';

const fixture = fileURLToPath(new URL('fixtures/trainer.pt', import.meta.url));
const root = fileURLToPath(new URL('../..', import.meta.url));
const places = [
  `${root}test/golden`,
  `${root}../shared/goldens-small`,
  `${root}../shared/goldens`,
  `${root}../shared/checkpoints`,
];

/** Checkpoints the original implementation wrote, and how many tensors and ties each holds. */
const models = [
  ['lm', 30, 1],
  ['lm-untied', 21, 0],
  ['books-10m', 75, 1],
] as const;

describe('files of the original', () => {
  test("a trainer's checkpoint that torch 2.13 wrote (fixtures/make-trainer.py)", async () => {
    await using checkpoint = await openCheckpoint(fixture);
    const read = async (name: string): Promise<number[]> => {
      const { shape, dtype, read: bytes } = checkpoint.entries.get(name)!;
      return [...tensorFromBytes(await bytes(), shape, dtype).toFloat32()];
    };
    expect(checkpoint.entries.size).toBe(11);
    expect([...checkpoint.aliases]).toEqual([['same', 'tied']]);
    expect(checkpoint.metadata['epoch']).toBe('3');
    expect(await read('same')).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(await read('transposed')).toEqual([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
    expect(await read('slice')).toEqual([5, 6, 9, 10]);
    expect(await read('expanded')).toEqual([0, 1, 2, 3, 0, 1, 2, 3]);
    expect(await read('bool')).toEqual([1, 0]);
    expect(await read('bf16')).toEqual([0, 1, 2, 3]);
    expect(checkpoint.entries.get('u16')!.dtype).toBe('u16');
    expect(await read('u16')).toEqual([0, 1, 2, 3]);
    expect(await read('scalar')).toEqual([3.5]);
    expect(await read('empty')).toEqual([]);
    expect(await read('parameter')).toEqual([1, 1]);
  });

  for (const place of places) {
    for (const [name, tensors, ties] of models) {
      const folder = `${place}/${name}`;
      test.skipIf(!existsSync(folder))(`${folder.slice(root.length)} (skipped when it is not there)`, async () => {
        const checkpoint = await openCheckpoint(folder);
        expect(checkpoint.format).toBe('pytorch');
        expect([checkpoint.entries.size, checkpoint.aliases.size]).toEqual([tensors, ties]);
        for (const { shape, dtype, read } of checkpoint.entries.values()) {
          const bytes = await read();
          expect(tensorFromBytes(bytes, shape, dtype).toFloat32().every(Number.isFinite)).toBe(true);
        }
        await checkpoint.close();
        parsePythonJson(await readFile(`${folder}/config.json`, 'utf8'));
      });
    }
    const golden = [`${place}/block.safetensors`, `${place}/block-p12.safetensors`].find((path) => existsSync(path));
    test.skipIf(!golden)(`${place.slice(root.length)}: block (skipped when it is not there)`, async () => {
      const checkpoint = await openCheckpoint(golden!);
      expect([...checkpoint.entries.keys()]).toContain('param.in_proj.weight');
      const x = checkpoint.entries.get('x')!;
      expect(
        tensorFromBytes(await x.read(), x.shape, x.dtype)
          .toFloat32()
          .some((value) => value !== 0),
      ).toBe(true);
      await checkpoint.close();
    });
  }
});
