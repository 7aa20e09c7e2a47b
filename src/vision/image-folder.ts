/**
 * A folder of pictures with a folder for every class, as ImageNet and most data sets for classification come:
 *
 *   DIR/cat/1.jpg  DIR/cat/2.png  DIR/dog/…
 *
 * Classes are numbered by name, in the order of code units; pictures of a class may lie in folders of their own. The
 * order of the pictures depends on nothing but their names, so every process sees the same.
 */

import { createHash } from 'node:crypto';
import type { Dirent } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MatMambaError } from '../errors.ts';

const EXTENSION = /\.(jpe?g|jfif|png|webp|gif|avif|tiff?)$/i;
/** Folders of this kind hold data sets, not classes. */
const SPLIT = /^(train|training|val|valid|validation|test)$/i;

export interface ImageFolder {
  /** Names of the classes; a class's number is its place. */
  readonly classes: readonly string[];
  /** Files, class by class. */
  readonly paths: readonly string[];
  /** Class of every file. */
  readonly labels: Int32Array;
  /** Changes when a file is added, removed or renamed. */
  readonly hash: string;
}

/**
 * Lists a folder of class folders.
 * @param classes numbers of the classes, for held-out pictures: not all of them need occur
 * @throws FILE when it cannot be read; FORMAT without class folders, for a class without pictures or one that `classes` lacks
 */
export async function listImageFolder(folder: string, classes?: readonly string[]): Promise<ImageFolder> {
  const entries = await list(folder);
  const names: string[] = [];
  for (const entry of entries) if (await isFolder(folder, entry)) names.push(entry.name);
  checkClasses(folder, names, entries, classes);
  const order = classes ?? names;
  const paths: string[] = [];
  const labels: number[] = [];
  const hash = createHash('sha256');
  for (const name of names) {
    const label = order.indexOf(name);
    const files = await imagesBelow(join(folder, name));
    if (files.length === 0 && !classes) {
      throw new MatMambaError('FORMAT', `the class folder ${join(folder, name)} holds no pictures`, {
        hint: 'remove it, or put pictures in: JPEG, PNG, WebP, GIF, AVIF or TIFF',
      });
    }
    for (const file of files) {
      paths.push(join(folder, name, file));
      labels.push(label);
      hash.update(`${name}/${file}\0`);
    }
  }
  if (paths.length === 0) throw new MatMambaError('FORMAT', `the class folders of ${folder} hold no pictures`);
  return { classes: order, paths, labels: Int32Array.from(labels), hash: hash.digest('hex').slice(0, 16) };
}

function checkClasses(
  folder: string,
  names: readonly string[],
  entries: readonly Dirent[],
  classes: readonly string[] | undefined,
): void {
  const layout = 'each class has a folder of its own: DIR/cat/1.jpg, DIR/dog/1.jpg';
  if (names.length > 0 && names.every((name) => SPLIT.test(name)) && !names.every((name) => classes?.includes(name))) {
    throw new MatMambaError('FORMAT', `${folder} holds ${names.join(' and ')}: parts of a data set, not classes`, {
      hint: `name one of them: ${names.map((name) => join(folder, name)).join(', ')}`,
    });
  }
  if (names.length === 0) {
    const pictures = entries.filter(({ name }) => EXTENSION.test(name)).length;
    throw new MatMambaError('FORMAT', `${folder} has no class folders${pictures > 0 ? `, only ${pictures} pictures` : ''}`, {
      hint: layout,
    });
  }
  if (!classes && names.length < 2)
    throw new MatMambaError('FORMAT', `${folder} has only one class folder, ${names[0]}`, { hint: layout });
  const unknown = classes && names.find((name) => !classes.includes(name));
  if (unknown !== undefined) {
    throw new MatMambaError('FORMAT', `${join(folder, unknown)} is none of the ${classes?.length} classes of the training data`, {
      hint: 'the class folders of the held-out pictures bear the names of those that are trained on',
    });
  }
}

/** Pictures below a class folder, relative to it, in order. @throws FILE */
async function imagesBelow(folder: string, prefix = ''): Promise<string[]> {
  const files: string[] = [];
  for (const entry of await list(join(folder, prefix))) {
    const name = prefix === '' ? entry.name : `${prefix}/${entry.name}`;
    if (EXTENSION.test(entry.name) && !entry.isDirectory()) files.push(name);
    else if (entry.isDirectory()) files.push(...(await imagesBelow(folder, name)));
  }
  return files;
}

/** What lies in a folder, without hidden files, by code units. @throws FILE */
async function list(folder: string): Promise<Dirent[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((cause: NodeJS.ErrnoException) => {
    const why = { ENOENT: `there is no folder ${folder}`, ENOTDIR: `${folder} is no folder` }[cause.code ?? ''];
    throw new MatMambaError('FILE', why ?? `cannot read ${folder}: ${cause.message}`, { cause });
  });
  return entries.filter(({ name }) => !name.startsWith('.')).sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Also for a link to a folder. */
async function isFolder(folder: string, entry: Dirent): Promise<boolean> {
  if (!entry.isSymbolicLink()) return entry.isDirectory();
  return stat(join(folder, entry.name)).then(
    (found) => found.isDirectory(),
    () => false,
  );
}
