/**
 * How a prompt is cut into programs. A program has a fixed length, so lengths are taken from a small set: pieces of
 * 512, then one padded to a multiple of 16 (padding is exact: past a sequence's length nothing changes its state).
 */

const WHOLE_TOKENS = 512;
const PAD_TOKENS = 16;

/** Program lengths that together hold `tokens`; only the last may be longer than what is left. */
export function prefillChunks(tokens: number): number[] {
  const chunks: number[] = [];
  let left = tokens;
  while (left >= WHOLE_TOKENS) {
    chunks.push(WHOLE_TOKENS);
    left -= WHOLE_TOKENS;
  }
  if (left >= PAD_TOKENS) chunks.push(Math.ceil(left / PAD_TOKENS) * PAD_TOKENS);
  else if (left > 0) chunks.push(left);
  return chunks;
}
