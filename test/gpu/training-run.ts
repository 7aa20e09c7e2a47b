/**
 * A small training run in a folder, started or resumed: `training-run.js FOLDER DTYPE STEPS [shard] [cut]` prints every
 * step it has done; with `cut` its micro-batches are too many for steps that run whole. By torchrun's variables it is one
 * of several.
 */

import type { DeviceName, ModelDType, ProgramInputs } from '../../src/backends/backend.ts';
import { connect, localRank } from '../../src/distributed/index.ts';
import type { Share } from '../../src/distributed/shares.ts';
import { MatMambaLMHeadModel } from '../../src/index.ts';
import { ADAMW_DEFAULTS } from '../../src/train/engine.ts';
import { findResume, runTraining } from '../../src/train/run.ts';
import { randomIds } from '../support/reference-model.ts';

const LENGTH = 96;
const BATCH = 8;
const SAVE_EVERY = 5;
const CONFIG = { dModel: 128, nLayer: 3, vocabSize: 200, ssmCfg: { dState: 32 } };

/** Rows that depend on the step and their number alone. */
async function inputs(step: number, index: number, { start, end }: Share): Promise<ProgramInputs> {
  const [ids, targets] = [new Int32Array((end - start) * LENGTH), new Int32Array((end - start) * LENGTH)];
  for (let row = start; row < end; row++) {
    const tokens = randomIds(LENGTH + 1, CONFIG.vocabSize, (step * 100 + index) * 100 + row);
    ids.set(tokens.subarray(0, LENGTH), (row - start) * LENGTH);
    targets.set(tokens.subarray(1), (row - start) * LENGTH);
  }
  return { ids, targets };
}

const [out, dtype, steps, ...flags] = process.argv.slice(2) as [string, ModelDType, string, ...string[]];
const communicator = await connect({ env: process.env });
const index = localRank(process.env) ?? 0;
const device = (process.env['MATMAMBA_GPU_TEST_DEVICE'] ?? 'cuda') as DeviceName;
const resume = await findResume(out, communicator);
const model = resume
  ? await MatMambaLMHeadModel.fromPretrained(resume.folder, { device, dtype, index })
  : await MatMambaLMHeadModel.create(CONFIG, { device, dtype, index, seed: 3 });
await runTraining(
  model,
  { inputs },
  resume,
  {
    out,
    recipe: {
      strategy: { strategy: 'joint', levels: [1, 2, 4] },
      batch: BATCH,
      microBatch: BATCH / communicator.size / (flags.includes('cut') ? 4 : 2),
      schedule: { peak: 3e-3, warmupSteps: 4, totalSteps: Number(steps) },
      adamw: ADAMW_DEFAULTS,
      projDropRate: 0.1,
      dropPathRate: 0.1,
      distillation: 0,
      seed: 5,
    },
    facts: {},
    length: LENGTH,
    lossesPerRow: LENGTH,
    recompute: false,
    validateEvery: Number(steps),
    saveEvery: SAVE_EVERY,
    communicator,
    shardOptimizer: flags.includes('shard'),
    onStep: ({ step }) => void process.stdout.write(`step ${step}\n`),
  },
  CONFIG.dModel,
  CONFIG.nLayer,
);
// Before the ranks part: devices that work together leave together.
await model.dispose();
await communicator.finalize();
