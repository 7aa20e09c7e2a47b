/**
 * The one error class of the project.
 *
 * Every failure a caller can meet carries a stable `code` to branch on and, where there is one, a `hint` that says
 * what to do next. Codes name what went wrong, not where: `SHAPE` is the same in a block and in a checkpoint.
 */

export const ERROR_CODES = [
  'SHAPE', // a tensor's shape or dtype does not fit; the message shows expected and got
  'WIDTH', // a granularity that the model cannot be sliced to
  'OPTION', // an unknown option or a value out of range
  'CONFIG', // a config.json that cannot be read or is not supported
  'TOKEN', // token ids outside the vocabulary, an empty prompt, a text without a tokenizer
  'FILE', // a file that is missing, unreadable or cannot be written
  'FORMAT', // a file whose content is damaged or not what its name says
  'UNSAFE', // a pickle that asks for anything but tensors
  'WEIGHTS', // tensors missing, left over or not finite
  'NETWORK', // the hub did not answer, or answered no
  'DEVICE', // a device, library or engine feature that is missing or failed
  'MEMORY', // more memory than the device or the address space has
  'DISPOSED', // a model, state or tensor used after dispose()
  'ABORTED', // stopped by the caller's AbortSignal
  'INTERNAL', // a bug in this library
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** An error with a stable code and, where one exists, the next step for the reader. */
export class MatMambaError extends Error {
  override readonly name = 'MatMambaError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  /** The message without the hint. */
  readonly text: string;

  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(options.hint ? `${message}\n  ${options.hint}` : message, options.cause === undefined ? {} : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.text = message;
  }
}

/** Throws `ABORTED` when the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new MatMambaError('ABORTED', 'stopped by the caller', { cause: signal.reason });
}

/** The text of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The candidate closest to `word` by edit distance, if it is close enough to be a misspelling. */
export function nearestWord(word: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase(), bestDistance);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Levenshtein distance of two words, given up at `limit`. */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit;
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

/**
 * Refuses option keys that do not exist, naming the nearest one that does.
 * @throws OPTION
 */
export function refuseUnknownKeys(given: object, known: readonly string[], where: string): void {
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue;
    const near = nearestWord(key, known);
    throw new MatMambaError('OPTION', `${where} has no option '${key}'`, {
      hint: near ? `did you mean '${near}'?` : `known options: ${known.join(', ')}`,
    });
  }
}
