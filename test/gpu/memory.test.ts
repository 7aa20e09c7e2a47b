/** Memory that runs out is a MEMORY error that leaves nothing behind, and everything that is disposed is free again. */

import { test } from 'node:test';
import { MatMambaError, MatMambaLMHeadModel, tensor } from '../../src/index.ts';
import { TrainingEngine } from '../../src/train/engine.ts';
import type { StateSlot } from '../../src/backends/backend.ts';
import { checkSame, checkThat } from '../support/close.ts';
import { freeDeviceBytes } from '../support/cuda-device.ts';
import { randomIds } from '../support/reference-model.ts';
import { DEVICE, device, optionsOf } from './harness.ts';

const CONFIG = { dModel: 256, nLayer: 4, vocabSize: 1000, ssmCfg: { dState: 64 } };
const BATCH = 4;
const LENGTH = 64;
const ids = randomIds(BATCH * LENGTH, CONFIG.vocabSize, 2);

const skip = DEVICE === 'cuda' ? false : 'memory is measured on a CUDA device';
const free = DEVICE === 'cuda' ? await freeDeviceBytes() : () => 0;

async function settledFree(): Promise<number> {
  await device.settled();
  return free();
}

const model = (): Promise<MatMambaLMHeadModel> => MatMambaLMHeadModel.create(CONFIG, { ...optionsOf('bf16'), seed: 1 });

async function logitsOf(lm: MatMambaLMHeadModel): Promise<Float32Array> {
  return (await lm.forward(tensor(ids, [BATCH, LENGTH]), { mrlLevel: 2 })).logits.toFloat32();
}

/** Loads, runs, keeps a state, trains a step, and disposes all of it. */
async function wholeCycle(): Promise<void> {
  {
    await using lm = await model();
    await using state = lm.createState({ batch: BATCH });
    await logitsOf(lm);
    await lm.forward(tensor(ids, [BATCH, LENGTH]), { state, numLastTokens: 1 });
  }
  await using lm = await MatMambaLMHeadModel.create(CONFIG, { ...optionsOf('bf16-mixed'), seed: 1 });
  const engine = await TrainingEngine.attach(lm);
  const dims = Array.from({ length: CONFIG.nLayer }, () => CONFIG.dModel);
  const shape = { batch: BATCH, length: LENGTH, recompute: false, projDropRate: 0, dropPathRate: 0, distill: 0, dims };
  const scale = new Float32Array(BATCH * LENGTH).fill(1 / (BATCH * LENGTH));
  await engine.accumulate(shape, { ids, targets: ids, scale, seed: new Int32Array(3) });
  await engine.update(1, 1e-3);
  engine.dispose();
}

void test('what is disposed is free again', { skip }, async () => {
  // The first cycles also load what stays for later models: kernels and the libraries' own memory.
  await wholeCycle();
  await wholeCycle();
  const before = await settledFree();
  for (let i = 0; i < 3; i++) await wholeCycle();
  const after = await settledFree();
  checkThat(after >= before, `${before - after} bytes are not free again`);
});

/** Takes memory in ever smaller pieces until less than 2 MiB can be had. */
function fill(): StateSlot[] {
  const slots: StateSlot[] = [];
  for (let bytes = 2 ** 32; bytes >= 2 ** 21; bytes /= 2) {
    try {
      while (true) slots.push(device.createSlot(bytes));
    } catch (error) {
      checkThat(error instanceof MatMambaError && error.code === 'MEMORY', `not a MEMORY error: ${String(error)}`);
    }
  }
  return slots;
}

async function failsForMemory(what: string, body: () => Promise<unknown>): Promise<void> {
  try {
    await body();
  } catch (error) {
    const expected = error instanceof MatMambaError && error.code === 'MEMORY';
    if (!expected) throw error;
    return;
  }
  throw new Error(`${what} found memory on a full device`);
}

void test('a full device: MEMORY errors, and nothing stays behind', { skip }, async () => {
  await using lm = await model();
  const expected = await logitsOf(lm);
  await wholeCycle();
  const before = await settledFree();
  const slots = fill();
  checkThat(slots.length > 0, 'some memory was taken');
  const full = await settledFree();
  await failsForMemory('a new model', model);
  await failsForMemory('a program of a new shape', () => lm.forward(tensor(randomIds(8192, 1000, 1), [64, 128])));
  const left = await settledFree();
  checkThat(left >= full, `${full - left} bytes were lost by calls that failed`);
  for (const slot of slots) slot.release();
  const after = await settledFree();
  checkThat(after >= before, `${before - after} bytes are not free again`);
  checkSame(await logitsOf(lm), expected, 'logits afterwards');
  await wholeCycle();
});
