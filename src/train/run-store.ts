/**
 * The checkpoints of a training run on disk. A checkpoint is a folder that appears under its name in one rename, so
 * whatever has the name is whole: a process killed at any moment leaves the last complete one. The newest two are kept,
 * and the best by held-out loss beside them.
 *
 *   RUN/checkpoints/step-00000100/   RUN/best/
 */

import type { Dirent } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileError } from '../checkpoint/file-errors.ts';

const STEP_NAME = /^step-(\d{8,})$/;
const KEPT = 2;

export interface StoredCheckpoint {
  /** Steps that were done when it was written. */
  readonly step: number;
  readonly folder: string;
}

export class RunStore {
  readonly folder: string;
  readonly #checkpoints: string;

  constructor(folder: string) {
    this.folder = folder;
    this.#checkpoints = join(folder, 'checkpoints');
  }

  /** Folder of the best model, which need not exist. */
  get best(): string {
    return join(this.folder, 'best');
  }

  /** Makes the folders and removes what a killed process left unfinished. @throws FILE */
  async prepare(): Promise<void> {
    await guarded(this.folder, async () => {
      await mkdir(this.#checkpoints, { recursive: true });
      for (const { name } of await readdir(this.#checkpoints, { withFileTypes: true })) {
        if (name.startsWith('.')) await rm(join(this.#checkpoints, name), { recursive: true, force: true });
      }
      await this.#finishBest();
    });
  }

  /** Complete checkpoints, oldest first. @throws FILE */
  async list(): Promise<StoredCheckpoint[]> {
    const entries = await readdir(this.#checkpoints, { withFileTypes: true }).catch((error: NodeJS.ErrnoException): Dirent[] => {
      if (error.code === 'ENOENT') return [];
      throw fileError(error, 'list', this.#checkpoints);
    });
    return entries
      .flatMap(({ name }) => {
        const step = STEP_NAME.exec(name)?.[1];
        return step === undefined ? [] : [{ step: Number(step), folder: join(this.#checkpoints, name) }];
      })
      .toSorted((a, b) => a.step - b.step);
  }

  async latest(): Promise<StoredCheckpoint | undefined> {
    return (await this.list()).at(-1);
  }

  /** Writes a checkpoint through `write`, which fills the folder it is given; older ones beyond the last two go. @throws FILE */
  async save(step: number, write: (folder: string) => Promise<void>): Promise<void> {
    const name = `step-${String(step).padStart(8, '0')}`;
    const draft = join(this.#checkpoints, `.${name}`);
    await this.#draft(draft, write);
    await guarded(this.#checkpoints, async () => {
      await rm(join(this.#checkpoints, name), { recursive: true, force: true });
      await rename(draft, join(this.#checkpoints, name));
    });
    const all = await this.list();
    for (const { folder } of all.slice(0, Math.max(0, all.length - KEPT))) await rm(folder, { recursive: true, force: true });
  }

  /** Replaces the best model. @throws FILE */
  async saveBest(write: (folder: string) => Promise<void>): Promise<void> {
    const draft = join(this.folder, '.best-draft');
    await this.#draft(draft, write);
    await guarded(this.folder, async () => {
      await rm(join(this.folder, '.best-new'), { recursive: true, force: true });
      await rename(draft, join(this.folder, '.best-new'));
      await this.#finishBest();
    });
  }

  async #draft(draft: string, write: (folder: string) => Promise<void>): Promise<void> {
    await guarded(draft, async () => {
      await rm(draft, { recursive: true, force: true });
      await mkdir(draft, { recursive: true });
    });
    try {
      await write(draft);
    } catch (error) {
      await rm(draft, { recursive: true, force: true }).catch(() => {});
      throw error;
    }
  }

  /** Puts a complete new best in its place, also after a crash between the renames. */
  async #finishBest(): Promise<void> {
    await rm(join(this.folder, '.best-draft'), { recursive: true, force: true });
    const pending = join(this.folder, '.best-new');
    const isThere = await readdir(pending).then(
      () => true,
      () => false,
    );
    if (!isThere) return;
    await rm(this.best, { recursive: true, force: true });
    await rename(pending, this.best);
  }
}

async function guarded(path: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw fileError(error, 'write', path);
  }
}
