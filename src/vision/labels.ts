/** Names of classes: a text file with one a line, or JSON: a list, or an object from class number to name. */

import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { MatMambaError } from '../errors.ts';

const LIST = z.array(z.string());
const NUMBERED = z.record(z.string().regex(/^\d+$/), z.union([z.string(), z.tuple([z.string(), z.string()])]));

/** @throws FILE, FORMAT */
export async function readLabels(path: string): Promise<string[]> {
  const content = await readFile(path, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new MatMambaError(
      'FILE',
      cause.code === 'ENOENT' ? `there is no file ${path}` : `cannot read ${path}: ${cause.message}`,
      { cause },
    );
  });
  if (!/^\s*[[{]/.test(content)) {
    const lines = content.split(/\r?\n/).map((line) => line.trim());
    while (lines.at(-1) === '') lines.pop();
    return lines;
  }
  let json: unknown;
  try {
    json = JSON.parse(content);
  } catch (cause) {
    throw new MatMambaError('FORMAT', `${path} is no JSON`, { cause });
  }
  const list = LIST.safeParse(json);
  if (list.success) return list.data;
  const numbered = NUMBERED.safeParse(json);
  if (!numbered.success)
    throw new MatMambaError('FORMAT', `${path} holds neither a list of names nor an object from class number to name`);
  const labels: string[] = [];
  // ImageNet's usual file gives [synset, name].
  for (const [index, name] of Object.entries(numbered.data)) labels[Number(index)] = typeof name === 'string' ? name : name[1];
  return Array.from(labels, (name, i) => name ?? `class ${i}`);
}
