/** Where a prompt comes from: the command line, standard input, or an example for whoever tries the command. */

import { fstatSync } from 'node:fs';
import { MatMambaError } from '../errors.ts';
import { UsageError } from './arguments.ts';
import type { Io } from './io.ts';

const DEFAULT_PROMPT = 'The old man looked at the sea and said';

/** The prompt: the words given, standard input, or one to try. @throws UsageError when standard input is empty */
export async function promptOf(words: readonly string[], io: Io): Promise<string> {
  const asked = words.length === 1 && words[0] === '-';
  if (words.length > 0 && !asked) return words.join(' ');
  if (!asked && !isPiped()) {
    return DEFAULT_PROMPT;
  }
  const piped = (await readInput(io)).replace(/\r?\n$/, '');
  if (piped !== '') return piped;
  if (asked) throw new UsageError('standard input is empty', 'pipe the prompt in, or give it in quotes');
  return DEFAULT_PROMPT;
}

/** Whether something is piped or redirected into standard input. */
function isPiped(): boolean {
  if (process.stdin.isTTY) return false;
  try {
    const stats = fstatSync(0);
    return stats.isFIFO() || stats.isFile() || stats.isSocket();
  } catch {
    return false;
  }
}

async function readInput(io: Io): Promise<string> {
  const waiting = setTimeout(
    () => io.note('reading the prompt from standard input; end it with Ctrl-D, or give it in quotes'),
    2000,
  );
  const stop = (): void => void process.stdin.destroy();
  io.signal.addEventListener('abort', stop, { once: true });
  try {
    const parts: Buffer[] = [];
    for await (const part of process.stdin) {
      clearTimeout(waiting);
      parts.push(part as Buffer);
    }
    return Buffer.concat(parts).toString('utf8');
  } catch (cause) {
    if (io.signal.aborted) throw new MatMambaError('ABORTED', 'stopped', { cause });
    throw new MatMambaError('FILE', 'cannot read standard input', { cause });
  } finally {
    clearTimeout(waiting);
    io.signal.removeEventListener('abort', stop);
  }
}
