/** Token by token against all at once, other widths between tokens, and the same bits from the same inputs. */

import { test } from 'node:test';
import type { ModelDType } from '../../src/backends/backend.ts';
import { MatMambaLMHeadModel, type ModelState, type WidthOptions, tensor } from '../../src/index.ts';
import { CUDA_TOLERANCES, type Measured, checkClose, checkSame, checkThat } from '../support/close.ts';
import { randomIds } from '../support/reference-model.ts';
import { available, measuredTest, optionsOf } from './harness.ts';

const DTYPES = available(['f32', 'tf32', 'bf16', 'f16', 'int8']);
/** Head dimension 4, three layers; a vocabulary that is no multiple of a tile. */
const CONFIG = { dModel: 128, nLayer: 3, vocabSize: 203, ssmCfg: { dState: 64 } };
const BATCH = 2;
const LENGTH = 40;
const PREFILL = 23;
/** A width for each token after the prefill, by its number. */
const WIDTHS: readonly WidthOptions[] = [{ mrlLevel: 1 }, { mrlLevel: 8 }, { mixnmatchDims: [128, 40, 8] }, { mrlLevel: 2 }];

const model = (options: object): Promise<MatMambaLMHeadModel> => MatMambaLMHeadModel.create(CONFIG, { ...options, seed: 11 });

const ids = randomIds(BATCH * LENGTH, CONFIG.vocabSize, 5);

/** Columns [from, to) of the ids. */
const piece = (from: number, to: number): Int32Array =>
  Int32Array.from({ length: BATCH * (to - from) }, (_, i) => {
    const width = to - from;
    return ids[Math.floor(i / width) * LENGTH + from + (i % width)]!;
  });

/** Logits (BATCH, LENGTH, V) of a prefill and then single tokens; token t at `widthOf(t)`, the prefill at that of token 0. */
async function stepwise(
  lm: MatMambaLMHeadModel,
  prefill: number,
  widthOf: (token: number) => WidthOptions,
  state: ModelState,
): Promise<Float32Array> {
  const V = lm.vocabSize;
  const all = new Float32Array(BATCH * LENGTH * V);
  for (let from = 0; from < LENGTH;) {
    const to = from === 0 ? prefill : from + 1;
    const { logits } = await lm.forward(tensor(piece(from, to), [BATCH, to - from]), { state, ...widthOf(from) });
    const values = logits.toFloat32();
    const size = (to - from) * V;
    for (let b = 0; b < BATCH; b++) all.set(values.subarray(b * size, (b + 1) * size), (b * LENGTH + from) * V);
    from = to;
  }
  return all;
}

async function inFreshState(
  lm: MatMambaLMHeadModel,
  prefill: number,
  widthOf: (token: number) => WidthOptions,
): Promise<Float32Array> {
  await using state = lm.createState({ batch: BATCH });
  return await stepwise(lm, prefill, widthOf, state);
}

const switching = (token: number): WidthOptions => WIDTHS[token % WIDTHS.length]!;

async function checkPrefill(dtype: ModelDType, measured: Measured): Promise<void> {
  await using lm = await model(optionsOf(dtype));
  const { output: tolerance } = CUDA_TOLERANCES[dtype];
  for (const width of WIDTHS) {
    const { logits } = await lm.forward(tensor(ids, [BATCH, LENGTH]), width);
    for (const prefill of [1, PREFILL]) {
      const got = await inFreshState(lm, prefill, () => width);
      checkClose(got, logits.toFloat32(), tolerance, `${JSON.stringify(width)}, prefill of ${prefill}`, measured);
    }
  }
}

async function checkSwitching(dtype: ModelDType, measured: Measured): Promise<void> {
  await using cpu = await model({ device: 'cpu', dtype: dtype === 'tf32' ? 'f32' : dtype });
  await using lm = await model(optionsOf(dtype));
  const expected = await inFreshState(cpu, PREFILL, switching);
  const got = await inFreshState(lm, PREFILL, switching);
  checkClose(got, expected, CUDA_TOLERANCES[dtype].output, 'logits at changing widths, against the CPU', measured);
}

/** The same bits again: in the same model, from a snapshot of its state, and in a new model. */
async function checkRepeats(dtype: ModelDType): Promise<void> {
  await using lm = await model(optionsOf(dtype));
  await using state = lm.createState({ batch: BATCH });
  const empty = await state.snapshot();
  const first = await stepwise(lm, PREFILL, switching, state);
  checkSame(await inFreshState(lm, PREFILL, switching), first, 'in a new state');
  const end = await state.snapshot();
  await state.restore(empty);
  checkSame(await stepwise(lm, PREFILL, switching, state), first, 'in a state that was set back');
  for (const [i, slot] of (await state.snapshot()).slots.entries()) checkSame(slot, end.slots[i]!, `state of sequence ${i}`);
  await using other = await model(optionsOf(dtype));
  checkSame(await inFreshState(other, PREFILL, switching), first, 'in a new model');
}

async function generated(lm: MatMambaLMHeadModel): Promise<number[]> {
  const tokens: number[] = [];
  for await (const { ids } of lm.generate([3, 1, 4, 1, 5], { maxNewTokens: 24, temperature: 0.9, topK: 50, seed: 7 }))
    tokens.push(...ids);
  return tokens;
}

for (const dtype of DTYPES) {
  measuredTest('token by token as all at once', 'decode', dtype, (measured) => checkPrefill(dtype, measured));
  measuredTest('other widths between tokens', 'decode, changing widths', dtype, (measured) => checkSwitching(dtype, measured));
  void test(`the same bits again, ${dtype}`, () => checkRepeats(dtype));
  void test(`the same text again, ${dtype}`, async () => {
    await using lm = await model(optionsOf(dtype));
    const [first, second] = [await generated(lm), await generated(lm)];
    checkThat(first.length > 0 && first.join() === second.join(), `${first.join()} and ${second.join()} differ`);
  });
}
