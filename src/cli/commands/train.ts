/** `matmamba train lm` and `matmamba train vision`: a model trained at several widths at once. */

import type { ArgsDef } from 'citty';
import { z } from 'zod';
import { connect } from '../../distributed/index.ts';
import { MatMambaError } from '../../errors.ts';
import { type CheckedArguments, UsageError } from '../arguments.ts';
import { defineCliCommand } from '../command.ts';
import type { Io } from '../io.ts';
import { languageArgs, languageOptions, trainLanguage } from '../train/language.ts';
import { commonArgs, commonOptions, outOf } from '../train/options.ts';
import { trainVision, visionArgs, visionOptions } from '../train/vision.ts';

const args: ArgsDef = {
  kind: { type: 'positional', required: true, description: 'what to train: lm or vision' },
  ...commonArgs,
  ...languageArgs,
  ...visionArgs,
};

const options = z.object({
  kind: z.enum(['lm', 'vision'], { error: 'expected lm or vision' }),
  ...commonOptions,
  ...languageOptions,
  ...visionOptions,
});

export const trainCommand = defineCliCommand({
  name: 'train',
  description: 'train a model at several widths at once',
  args,
  options,
  examples: [
    { command: 'matmamba train lm --data tokens --preset books-10m --out run', says: 'the recipe of the model in this package' },
    {
      command:
        'matmamba train lm --data tokens --out run --d-model 128 --layers 4 --vocabulary 4096 --steps 500 --batch 16 --length 256 --lr 3e-3',
      says: 'a small model of your own',
    },
    { command: 'mpirun -n 2 matmamba train lm --data tokens --preset lm-130m --out run', says: 'two processes share each batch' },
    {
      command: 'matmamba train vision --data imagenet/train --validation imagenet/val --preset vision-35m --out run',
      says: 'the recipe of the published model of this shape',
    },
    {
      command:
        'matmamba train vision --data pictures --out run --image-size 32 --patch-size 4 --d-model 128 --layers 6 --steps 2000',
      says: 'small pictures, in a folder for each class',
    },
  ],
  notes: [
    'The same command goes on where the run was stopped or killed, with the same losses as an unbroken run.',
    'The folder holds log.jsonl, TensorBoard events, curves.svg at the end, checkpoints/ (the last two) and best/.',
    'vision: the names of the class folders become labels.json beside the weights, which `matmamba classify` reads. Inputs of 128 pixels and ' +
      'more are random parts of a picture, smaller ones whole pictures moved by up to 4 pixels. Without a preset: 8 layers of 192, 32 pixels.',
  ],
  run: train,
});

type Given = z.output<typeof options>;

async function train(given: Given, { all }: CheckedArguments, io: Io): Promise<void> {
  refuseOthers(given);
  const data = all('data');
  outOf(given);
  const communicator = await connect({ env: process.env });
  try {
    await (given.kind === 'lm' ? trainLanguage : trainVision)(given, data, communicator, io);
  } catch (error) {
    if (communicator.size > 1 && !(error instanceof MatMambaError && error.code === 'ABORTED')) communicator.abort(String(error));
    throw error;
  }
  await communicator.finalize();
}

/** @throws UsageError for an option of the other kind of model */
function refuseOthers(given: Given): void {
  const [others, kind] = given.kind === 'lm' ? [visionOptions, 'vision'] : [languageOptions, 'lm'];
  for (const name of Object.keys(others)) {
    const value = given[name as keyof Given];
    if (value !== undefined && value !== false)
      throw new UsageError(`--${name} is an option of train ${kind}`, `this is train ${given.kind}`);
  }
}
