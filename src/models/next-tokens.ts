/** One sequence of a language model as the generation loop wants it: fed in chunks of program lengths, continued token by token. */

import { MatMambaError } from '../errors.ts';
import type { TypedArray } from '../tensor/dtype.ts';
import type { DeviceDraw, NextTokenModel } from '../text/index.ts';
import type { Head } from './language-trace.ts';
import { prefillChunks } from './prefill.ts';

/** Runs the program of these ids (T) on the sequence's state; `more` are its further inputs, `lengths` among them. */
export type RunPiece = (
  ids: Int32Array,
  head: Head,
  more: Readonly<Record<string, TypedArray>>,
  signal: AbortSignal | undefined,
) => Promise<Record<string, Float32Array>>;

/** `draws`: whether the device draws tokens. */
export function nextTokens(vocabSize: number, run: RunPiece, draws: boolean): NextTokenModel {
  const feed = async (
    ids: Int32Array,
    last: Head,
    more: Readonly<Record<string, TypedArray>>,
    signal: AbortSignal | undefined,
  ): Promise<Float32Array> => {
    const chunks = prefillChunks(ids.length);
    let result: Float32Array | undefined;
    let fed = 0;
    for (const [i, size] of chunks.entries()) {
      const piece = ids.subarray(fed, fed + size);
      const padded = piece.length === size ? piece : Int32Array.from({ length: size }, (_, k) => piece[k] ?? 0);
      fed += piece.length;
      const isLast = i === chunks.length - 1;
      const lengths = Int32Array.of(piece.length);
      const results = await run(padded, isLast ? last : { kind: 'none' }, { lengths, ...(isLast ? more : {}) }, signal);
      result = results['y'];
    }
    return result!;
  };
  const step = (ids: Int32Array, signal?: AbortSignal): Promise<Float32Array> =>
    feed(ids, { kind: 'logits', count: 1 }, {}, signal);
  const draw = async (ids: Int32Array, how: DeviceDraw, signal?: AbortSignal): Promise<number> => {
    const settings = Float32Array.of(how.temperature, how.topK, how.topP, how.minP, how.usable);
    const random = Int32Array.of(how.seed | 0, how.index | 0);
    const [id] = await feed(ids, { kind: 'draw' }, { settings, random }, signal);
    if (id! >= 0) return id!;
    throw new MatMambaError('WEIGHTS', 'the logits are not finite', {
      hint: 'the weights may be damaged, or too large for the dtype',
    });
  };
  return { vocabSize, step, ...(draws ? { draw } : {}) };
}
