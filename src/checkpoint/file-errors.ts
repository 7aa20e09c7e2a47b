/** Turns what the file system throws into a FILE error that says which file, what went wrong and what to do next. */

import { MatMambaError, messageOf } from '../errors.ts';

/** The file system's code (`ENOENT`, ...) of a thrown value, if it has one. */
export function errnoOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' ? code : undefined;
}

const REASONS: Record<string, { reason: string; hint?: string }> = {
  ENOENT: { reason: 'there is no such file or folder', hint: 'check the spelling of the path' },
  EACCES: { reason: 'permission denied', hint: 'check the owner and the permissions of the file and its folder' },
  EPERM: { reason: 'permission denied', hint: 'check the owner and the permissions of the file and its folder' },
  EROFS: { reason: 'the disk is read-only', hint: 'choose another folder' },
  ENOSPC: {
    reason: 'the disk is full',
    hint: 'free some space or choose a folder on another disk; nothing that was there before has changed',
  },
  EDQUOT: {
    reason: 'the disk quota is used up',
    hint: 'free some space or choose another folder; nothing that was there before has changed',
  },
  EFBIG: {
    reason: 'the file is larger than this disk or account allows',
    hint: 'save in shards (maxShardBytes) or choose another disk',
  },
  EISDIR: { reason: 'it is a folder', hint: 'name a file' },
  ENOTDIR: { reason: 'a part of the path is a file, not a folder', hint: 'check the path' },
  EMFILE: { reason: 'too many files are open', hint: 'close other checkpoints first or raise the limit (ulimit -n)' },
  EIO: { reason: 'the disk reported a read or write error', hint: 'check the disk' },
};

/** A FILE error for `cause`; a MatMambaError passes through as it is. */
export function fileError(cause: unknown, action: 'read' | 'write' | 'open' | 'list', path: string): MatMambaError {
  if (cause instanceof MatMambaError) return cause;
  const known = REASONS[errnoOf(cause) ?? ''];
  const message = `cannot ${action} ${path}: ${known?.reason ?? messageOf(cause)}`;
  return new MatMambaError('FILE', message, { cause, ...(known?.hint === undefined ? {} : { hint: known.hint }) });
}
