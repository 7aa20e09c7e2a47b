/** Reads golden files: outputs that the original implementation printed, with the weights that made them. */

import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { openCheckpoint } from '../../src/checkpoint/index.ts';
import { type Tensor, tensorFromBytes } from '../../src/tensor/index.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** The small goldens of the repository, and the larger set where it stands beside it. */
export const GOLDEN_FOLDERS = [`${root}test/golden`, `${root}../shared/goldens`].filter((folder) => existsSync(folder));

/** All tensors of a safetensors file. */
export async function readTensors(path: string): Promise<Record<string, Tensor>> {
  const checkpoint = await openCheckpoint(path);
  try {
    const tensors: Record<string, Tensor> = {};
    for (const entry of checkpoint.entries.values())
      tensors[entry.name] = tensorFromBytes(await entry.read(), entry.shape, entry.dtype);
    return tensors;
  } finally {
    await checkpoint.close();
  }
}

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}
