/** What `matmamba bench train-cpu` prints. */

import { ProfileTotals } from '../../bench/profile-totals.ts';
import type { Rate } from '../../bench/cpu-suite.ts';
import {
  type TrainBenchModel,
  type TrainResult,
  type TrainSuiteOptions,
  TRAIN_BENCH_MODEL_NAMES,
  trainSuite,
} from '../../bench/train-suite.ts';
import { UsageError } from '../arguments.ts';
import type { Io } from '../io.ts';
import { profileTable } from '../profile-table.ts';
import { Progress } from '../progress.ts';
import { formatBytes, formatNumber, table } from '../text-layout.ts';

/** The models between commas, all of them when none is named. @throws UsageError */
export function trainBenchModels(names: string | undefined): TrainBenchModel[] {
  if (names === undefined) return TRAIN_BENCH_MODEL_NAMES;
  return names.split(',').map((name) => {
    const found = TRAIN_BENCH_MODEL_NAMES.find((one) => one === name.trim());
    if (!found) throw new UsageError(`train-cpu measures no '${name}'`, `models: ${TRAIN_BENCH_MODEL_NAMES.join(', ')}`);
    return found;
  });
}

export interface TrainBenchOutput {
  readonly json: boolean;
  /** Print the profile of a step by op. */
  readonly ops: boolean;
}

export async function benchTraining(suite: TrainSuiteOptions, { json, ops }: TrainBenchOutput, io: Io): Promise<void> {
  const progress = new Progress({ label: 'bench', format: (n) => `${Math.round(n * 10) / 10} figures` });
  const results: TrainResult[] = [];
  try {
    for await (const result of trainSuite({ ...suite, onProgress: (done, total) => progress.update(done, total) })) {
      results.push(result);
      if (!json) continue;
      progress.end();
      const { ops: profile, ...figures } = result;
      io.json(ops ? { ...figures, ops: totalsOf(profile).sorted } : figures);
    }
  } finally {
    progress.end();
    // Whoever stops half-way sees what there is.
    if (!json && results.length > 0) showResults(results, ops, io);
  }
}

function totalsOf(profile: TrainResult['ops']): ProfileTotals {
  const totals = new ProfileTotals();
  totals.add(profile);
  return totals;
}

function showResults(results: readonly TrainResult[], ops: boolean, io: Io): void {
  const right = 'right' as const;
  const rate = ({ perSecond, spread }: Rate): string => `${formatNumber(perSecond)} \u00b1${Math.round(100 * spread)}%`;
  const percent = (share: number): string => `${Math.round(100 * share)}%`;
  const columns = [
    { title: 'model' },
    { title: 'B x T' },
    { title: 'threads', align: right },
    { title: 'BLAS' },
    { title: 'step s', align: right },
    { title: 'tokens/s', align: right },
    { title: 'GFLOP/s', align: right },
    { title: 'of GEMM', align: right },
    { title: 'in products', align: right },
    { title: 'memory', align: right },
  ];
  const rows = results.map((result) => [
    result.model,
    `${result.batch} x ${result.lengthTokens}`,
    String(result.threads),
    result.blas === 'off' ? 'off' : 'on',
    formatNumber(result.step.medianMs / 1000),
    rate(result.tokens),
    rate(result.modelGflops),
    `${percent(result.shareOfGemm)} of ${formatNumber(result.gemmGflops.perSecond)}`,
    `${percent(result.shareInProducts)} at ${percent(result.productShareOfGemm)}`,
    formatBytes(result.peakMemoryBytes),
  ]);
  io.line(table(columns, rows, io.columns));
  if (!ops) return;
  for (const { model, threads, blas, ops: profile } of results) {
    io.line(`\n${model}: one step, ${threads} threads, BLAS ${blas === 'off' ? 'off' : 'on'}`);
    io.line(profileTable(totalsOf(profile).sorted, io.columns, 1));
  }
}
