/** Checks that every forward call shares. */

import { MatMambaError } from '../errors.ts';
import { type Shape, Tensor, formatShape } from '../tensor/tensor.ts';

/** A float tensor of the given rank whose last axes are `tail` (null: any). @throws SHAPE */
export function floatInput(value: unknown, what: string, expected: string, fits: (shape: Shape) => boolean): Float32Array {
  if (!(value instanceof Tensor)) {
    throw new MatMambaError('SHAPE', `${what} is no Tensor`, { hint: 'make one with tensor(new Float32Array(...), [...])' });
  }
  if (!['f32', 'f64', 'bf16', 'f16'].includes(value.dtype))
    throw new MatMambaError('SHAPE', `${what}: expected float32, got ${value.dtype}`);
  if (!fits(value.shape) || value.shape.includes(0)) {
    throw new MatMambaError('SHAPE', `${what}: expected ${expected}, got ${formatShape(value.shape)}`);
  }
  return value.toFloat32();
}

/** Token ids (B, T) as int32, each in [least, vocabulary). @throws SHAPE, TOKEN naming the place */
export function idInput(
  value: unknown,
  vocabulary: number,
  what = 'ids',
  least = 0,
): { ids: Int32Array; batch: number; length: number } {
  if (!(value instanceof Tensor)) {
    throw new MatMambaError('SHAPE', `${what} is no Tensor`, {
      hint: 'make one with tensor(Int32Array.from([...]), [batch, length])',
    });
  }
  const [batch = 0, length = 0] = value.shape;
  if (value.shape.length !== 2 || batch < 1)
    throw new MatMambaError('SHAPE', `${what}: expected (B, T), got ${formatShape(value.shape)}`);
  if (length < 1) throw new MatMambaError('TOKEN', `${what}: the prompt is empty`, { hint: 'give at least one token' });
  if (['f32', 'f64', 'f16', 'bf16'].includes(value.dtype))
    throw new MatMambaError('SHAPE', `${what}: expected int32, got ${value.dtype}`);
  const given = value.array as Int32Array;
  const at = given.findIndex((id) => id < least || id >= vocabulary);
  if (at >= 0) {
    throw new MatMambaError(
      'TOKEN',
      `${what}: ${given[at]} at (${Math.floor(at / length)}, ${at % length}) is outside the vocabulary of ${vocabulary}`,
      {
        hint: 'is this the tokenizer that the model was trained with?',
      },
    );
  }
  return { ids: Int32Array.from(given, Number), batch, length };
}
