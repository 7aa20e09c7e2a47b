import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { tensorFromBytes } from '../tensor/index.ts';
import { openCheckpoint } from './checkpoint.ts';
import { parsePythonJson } from './python-json.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const places = [`${root}test/golden`, `${root}../shared/goldens-small`, `${root}../shared/goldens`, `${root}../shared/checkpoints`];

/** Checkpoints the original implementation wrote, and how many tensors and ties each holds. */
const models = [
  ['lm', 30, 1],
  ['lm-untied', 21, 0],
  ['books-10m', 75, 1],
] as const;

describe('files of the original', () => {
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
      expect(tensorFromBytes(await x.read(), x.shape, x.dtype).toFloat32().some((value) => value !== 0)).toBe(true);
      await checkpoint.close();
    });
  }
});
