/** Golden training steps in the dtypes that train, and a killed run that goes on as if it had not been. */

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { ModelDType } from '../../src/backends/backend.ts';
import { checkSame, checkThat } from '../support/close.ts';
import { goldenLanguageModels } from '../support/golden-checks.ts';
import { GOLDEN_FOLDERS } from '../support/golden.ts';
import { TRAINING_TOLERANCES, checkLanguageTraining, checkVisionTraining } from '../support/training-checks.ts';
import { available, measuredTest, optionsOf } from './harness.ts';

const STEPS = 24;
const DTYPES = available(['f32', 'tf32', 'bf16-mixed']);

for (const folder of GOLDEN_FOLDERS) {
  for (const dtype of DTYPES) {
    const setting = { options: optionsOf(dtype), tolerances: TRAINING_TOLERANCES[dtype]! };
    for (const name of goldenLanguageModels(folder)) {
      for (const recompute of [false, true]) {
        const title = `training of ${basename(folder)}/${name}${recompute ? ', activations recomputed' : ''}`;
        measuredTest(title, 'golden training', dtype, (measured) =>
          checkLanguageTraining(`${folder}/${name}`, recompute, { ...setting, measured }),
        );
      }
    }
    measuredTest(`training of ${basename(folder)}/vision`, 'golden training', dtype, (measured) =>
      checkVisionTraining(`${folder}/vision`, { ...setting, measured }),
    );
  }
}

const scratch = mkdtempSync(join(tmpdir(), 'matmamba-gpu-training-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

/** Runs `training-run.ts` in a process of its own, which is killed when it has printed `killAt`. */
async function run(out: string, dtype: ModelDType, killAt?: number): Promise<void> {
  const script = fileURLToPath(new URL('./training-run.js', import.meta.url));
  const environment = { ...process.env };
  delete environment['NODE_TEST_CONTEXT'];
  const child = spawn(process.execPath, [script, join(scratch, out), dtype, String(STEPS)], { env: environment });
  let [printed, errors] = ['', ''];
  child.stdout.on('data', (part: Buffer) => {
    printed += part.toString();
    if (killAt !== undefined && printed.includes(`step ${killAt}\n`)) child.kill('SIGKILL');
  });
  child.stderr.on('data', (part: Buffer) => (errors += part.toString()));
  const code = await new Promise((resolve) => child.on('close', resolve));
  checkThat(code === (killAt === undefined ? 0 : null), `a training run ended with code ${String(code)}: ${errors}`);
}

/** Weights and moments of the last checkpoint. */
function lastOf(out: string): Buffer[] {
  const folder = join(scratch, out, 'checkpoints');
  const last = join(folder, readdirSync(folder).sort().at(-1)!);
  return ['model.safetensors', 'optimizer/model.safetensors'].map((name) => readFileSync(join(last, name)));
}

for (const dtype of DTYPES) {
  void test(`a training that is killed twice ends with the same bits, ${dtype}`, async () => {
    await run(`whole-${dtype}`, dtype);
    const killed = `killed-${dtype}`;
    for (const step of [Math.floor(STEPS / 3), Math.floor((2 * STEPS) / 3)]) await run(killed, dtype, step);
    await run(killed, dtype);
    for (const [i, file] of lastOf(killed).entries())
      checkSame(file, lastOf(`whole-${dtype}`)[i]!, i === 0 ? 'weights' : 'moments');
  });
}
