/** The records of a run on disk: JSON lines, TensorBoard events, and the loss curves when it ends. */

import { join } from 'node:path';
import { writeFileAtomic } from '../checkpoint/index.ts';
import { JsonLinesLog, readJsonLines } from './log/json-lines.ts';
import { lossCurvesSvg } from './log/loss-curves.ts';
import { TensorBoardWriter } from './log/tensor-board.ts';
import type { RunLog } from './run.ts';
import type { StepRecord } from './trainer.ts';

export class FolderLog implements RunLog {
  readonly #folder: string;
  #lines: JsonLinesLog | undefined;
  #events: TensorBoardWriter | undefined;

  constructor(folder: string) {
    this.#folder = folder;
  }

  get #path(): string {
    return join(this.#folder, 'log.jsonl');
  }

  async start(step: number): Promise<void> {
    this.#lines = await JsonLinesLog.open(this.#path, { resumeAfter: step });
    this.#events = await TensorBoardWriter.create(this.#folder, { resumeAfter: step });
  }

  async step({ step, losses, learningRate, gradientNorm, seconds }: StepRecord): Promise<void> {
    await this.#lines?.append({ step, losses, learningRate, gradientNorm, seconds });
    const scalars = { 'train/learning rate': learningRate, 'train/gradient norm': gradientNorm, ...named('train/loss', losses) };
    await this.#events?.scalars(step, scalars);
  }

  /** `accuracy`: the share of images whose likeliest class is right, by label. */
  async validation(
    step: number,
    losses: Readonly<Record<string, number>>,
    accuracy?: Readonly<Record<string, number>>,
  ): Promise<void> {
    await this.#lines?.append({ step, validation: losses, ...(accuracy && { accuracy }) });
    await this.#events?.scalars(step, { ...named('validation/loss', losses), ...named('validation/accuracy', accuracy ?? {}) });
  }

  async flush(): Promise<void> {
    await this.#lines?.flush();
    await this.#events?.flush();
  }

  /** Closes the files and draws the curves. */
  async close(): Promise<void> {
    await this.#lines?.flush();
    await this.#lines?.close();
    await this.#events?.close();
    await writeFileAtomic(join(this.#folder, 'curves.svg'), await drawCurves(this.#path));
  }
}

function named(prefix: string, losses: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(losses).map(([label, loss]) => [`${prefix}/${label}`, loss]));
}

/** Loss curves of a run's log: training as lines, held-out as dots. @throws FILE, FORMAT */
export async function drawCurves(path: string): Promise<string> {
  const series = new Map<string, { train: [number, number][]; held: [number, number][] }>();
  const add = (kind: 'train' | 'held', step: number, losses: unknown): void => {
    for (const [label, loss] of Object.entries((losses ?? {}) as Record<string, number>)) {
      let one = series.get(label);
      if (!one) series.set(label, (one = { train: [], held: [] }));
      one[kind].push([step, loss]);
    }
  };
  for (const entry of await readJsonLines(path)) {
    add('train', entry.step, entry['losses']);
    add('held', entry.step, entry['validation']);
  }
  return lossCurvesSvg([...series].map(([label, { train, held }]) => ({ label, train, validation: held })));
}
