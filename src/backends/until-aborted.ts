/** Lets a caller go as soon as its signal fires, however long the device still works. */

import { MatMambaError } from '../errors.ts';

/** Who waits on each signal: one listener serves them all, because engines warn of many. */
const waiting = new WeakMap<AbortSignal, Set<() => void>>();

function listen(signal: AbortSignal, stop: () => void): () => void {
  let stops = waiting.get(signal);
  if (!stops) {
    const made = new Set<() => void>();
    signal.addEventListener('abort', () => made.forEach((one) => one()), { once: true });
    waiting.set(signal, made);
    stops = made;
  }
  const mine = stops;
  mine.add(stop);
  return () => void mine.delete(stop);
}

/** Settles as `result` does, or rejects at once with `ABORTED` when the signal fires. */
export function untilAborted<R>(result: Promise<R>, signal: AbortSignal): Promise<R> {
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(new MatMambaError('ABORTED', 'stopped by the caller', { cause: signal.reason }));
    if (signal.aborted) stop();
    const forget = listen(signal, stop);
    void result.then(resolve, reject).finally(forget);
  });
}
