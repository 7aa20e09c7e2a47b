/**
 * Ranks without MPI, as torchrun's variables place them: a star over rank 0, for what is small. Sums add up in the order
 * of the ranks, on rank 0. Gradients between GPUs do not come this way.
 *
 * Invariants: every call of a rank other than 0 is one exchange with rank 0 (or several, piece by piece), answered before
 * the next begins. A rank that ends before `finalize`, by whatever way, breaks the group: calls of the others fail, and
 * `lost` fires, with its name.
 */

import { hostname } from 'node:os';
import { MatMambaError, messageOf } from '../errors.ts';
import { type Communicator, type Summable, checkRoot, rankName } from './communicator.ts';
import type { Rendezvous } from './launch.ts';
import { FRAME, type Frame, type FrameKind } from './tcp-link.ts';
import { type Peer, gather, reach } from './tcp-rendezvous.ts';

/** Larger buffers go in pieces. */
const PIECE_BYTES = 8 * 2 ** 20;

export interface TcpOptions {
  /** Longest wait for the other ranks in one call, milliseconds. */
  readonly timeoutMs: number;
  /** Where the last words of a dying rank go. */
  readonly report: (line: string) => void;
}

/** What a rank asks for; all must ask for the same. */
interface Exchange {
  readonly kind: FrameKind;
  /** Bytes of an item of a sum, root of a broadcast. */
  readonly detail: number;
  /** This rank's numbers, where the result goes. */
  readonly bytes: Uint8Array;
}

const KIND_NAMES: Readonly<Record<number, string>> = { 3: 'sum', 4: 'broadcast', 5: 'barrier', 6: 'finalize' };

export class TcpCommunicator implements Communicator {
  readonly rank: number;
  readonly size: number;
  readonly host = hostname();
  /** Rank 0: all others. The others: rank 0. */
  readonly #peers: readonly Peer[];
  readonly #timeoutMs: number;
  readonly #report: (line: string) => void;
  readonly #lost = new AbortController();
  #queue: Promise<void> = Promise.resolve();
  #pending = 0;
  #finalized: Promise<void> | undefined;
  #left = false;

  private constructor(rank: number, size: number, peers: readonly Peer[], { timeoutMs, report }: TcpOptions) {
    this.rank = rank;
    this.size = size;
    this.#peers = peers;
    this.#timeoutMs = timeoutMs;
    this.#report = report;
    for (const { link, rank: other, host } of peers) {
      const name = rankName({ rank: other, size, host });
      link.watch(
        (reason) => this.#break(reason, link),
        (why) => this.#break(`${name} is gone: ${why}`, link),
      );
      link.socket.unref();
    }
    process.on('uncaughtExceptionMonitor', this.#onUncaught);
    process.on('exit', this.#onExit);
  }

  /** Joins the group; settles once all ranks are there. @throws DEVICE */
  static async join(rank: number, size: number, at: Rendezvous, options: TcpOptions): Promise<TcpCommunicator> {
    const place = { rank, size, host: hostname() };
    const { timeoutMs } = options;
    const peers = size === 1 ? [] : rank === 0 ? await gather(place, at, timeoutMs) : [await reach(place, at, timeoutMs)];
    return new TcpCommunicator(rank, size, peers, options);
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  allReduceSum(buffer: Summable): Promise<void> {
    return this.#pieces(FRAME.sum, buffer.BYTES_PER_ELEMENT, buffer);
  }

  async broadcast(buffer: ArrayBufferView, root: number): Promise<void> {
    checkRoot(root, this.size);
    return this.#pieces(FRAME.broadcast, root, buffer);
  }

  barrier(): Promise<void> {
    return this.#ask(FRAME.barrier, 0, []);
  }

  abort(reason: string): never {
    this.#die(reason);
    throw new MatMambaError('DEVICE', `${rankName(this)}: ${reason}`);
  }

  finalize(): Promise<void> {
    this.#finalized ??= this.#leave();
    return this.#finalized;
  }

  async #leave(): Promise<void> {
    await this.#ask(FRAME.finalize, 0, [], true);
    this.#left = true;
    process.off('uncaughtExceptionMonitor', this.#onUncaught);
    process.off('exit', this.#onExit);
    for (const { link } of this.#peers) link.socket.end();
  }

  #pieces(kind: FrameKind, detail: number, { buffer, byteOffset, byteLength }: ArrayBufferView): Promise<void> {
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < byteLength || at === 0; at += PIECE_BYTES) {
      pieces.push(new Uint8Array(buffer, byteOffset + at, Math.min(PIECE_BYTES, byteLength - at)));
    }
    return this.#ask(kind, detail, pieces);
  }

  /** Carries out exchanges in the order they were asked for. */
  async #ask(kind: FrameKind, detail: number, pieces: readonly Uint8Array[], leaves = false): Promise<void> {
    if (this.#finalized && !leaves) throw new MatMambaError('DISPOSED', `${rankName(this)} has left the group`);
    if (this.size === 1) return;
    const result = this.#queue.then(async () => {
      for (const bytes of pieces.length > 0 ? pieces : [new Uint8Array(0)]) await this.#within({ kind, detail, bytes });
    });
    this.#queue = result.catch(() => {});
    if (this.#pending++ === 0) for (const { link } of this.#peers) link.socket.ref();
    try {
      await result;
    } finally {
      if (--this.#pending === 0) for (const { link } of this.#peers) link.socket.unref();
    }
  }

  /** One exchange, with an end to waiting. */
  async #within(exchange: Exchange): Promise<void> {
    this.#checkWhole();
    const seconds = this.#timeoutMs / 1000;
    const timer = setTimeout(
      () => this.#break(`${rankName(this)}: the other ranks did not arrive within ${seconds} seconds`),
      this.#timeoutMs,
    );
    try {
      await (this.rank === 0 ? this.#lead(exchange) : this.#follow(exchange));
    } catch (error) {
      this.#checkWhole();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Rank 0 takes from all, and gives all the result. */
  async #lead(exchange: Exchange): Promise<void> {
    const { kind, detail, bytes } = exchange;
    const total = bytes.slice();
    for (const peer of this.#peers) {
      const frame = await peer.link.receive();
      this.#checkSame(exchange, frame, peer);
      if (kind === FRAME.sum) add(total, frame.payload, detail);
      else if (kind === FRAME.broadcast && detail === peer.rank) total.set(frame.payload);
    }
    const hasResult = kind === FRAME.sum || kind === FRAME.broadcast;
    if (hasResult) bytes.set(total);
    for (const { link } of this.#peers) link.send(kind, detail, hasResult ? total : undefined);
  }

  async #follow(exchange: Exchange): Promise<void> {
    const { kind, detail, bytes } = exchange;
    const [peer] = this.#peers as [Peer];
    // A copy: memory of workers cannot be sent, and lengths are compared, so those of a broadcast come along.
    const sends = kind === FRAME.sum || (kind === FRAME.broadcast && detail === this.rank);
    peer.link.send(kind, detail, sends ? bytes.slice() : Buffer.from(JSON.stringify(bytes.length)));
    const frame = await peer.link.receive();
    bytes.set(frame.payload);
  }

  #checkSame({ kind, detail, bytes }: Exchange, frame: Frame, peer: Peer): void {
    const sends = frame.kind === FRAME.sum || (frame.kind === FRAME.broadcast && frame.detail === peer.rank);
    const length = sends ? frame.payload.length : Number(Buffer.from(frame.payload).toString());
    if (frame.kind === kind && frame.detail === detail && length === bytes.length) return;
    const words = (which: number, count: number): string => `${KIND_NAMES[which] ?? 'something else'} (${count} bytes)`;
    const other = rankName({ ...peer, size: this.size });
    const reason = `ranks are out of step: ${rankName(this)} calls ${words(kind, bytes.length)}, ${other} ${words(frame.kind, length)}`;
    this.#break(reason);
    this.#checkWhole();
  }

  /** @throws DEVICE once a rank is gone */
  #checkWhole(): void {
    const { signal } = this.#lost;
    if (!signal.aborted) return;
    throw new MatMambaError('DEVICE', `${rankName(this)}: ${messageOf(signal.reason)}`, { cause: signal.reason });
  }

  /** Nothing more is tried, here and on the other ranks. @param from where it is known already */
  #break(reason: string, from?: Peer['link']): void {
    if (this.#left || this.#lost.signal.aborted) return;
    this.#lost.abort(new Error(reason));
    for (const { link } of this.#peers) {
      if (link !== from) link.send(FRAME.abort, 0, Buffer.from(reason));
      link.fail(new Error(reason));
    }
  }

  readonly #onUncaught = (error: unknown): void => {
    const expected = !(error instanceof Error) || error instanceof MatMambaError;
    this.#die(expected ? messageOf(error) : (error.stack ?? error.message));
  };

  readonly #onExit = (code: number): void => {
    this.#die(code === 0 ? 'it ended before the others' : `it ended with exit code ${code}`);
  };

  /** Says who dies and why, here and to the others. */
  #die(reason: string): void {
    process.off('exit', this.#onExit);
    if (this.size === 1) return;
    const words = `${rankName(this)} ends the job: ${reason}`;
    this.#report(`matmamba: ${words}\n`);
    this.#break(words);
  }
}

/** total += part, numbers of so many bytes. */
function add(total: Uint8Array, part: Uint8Array, itemBytes: number): void {
  const [sum, more] = [total, part].map((bytes) => {
    const [buffer, count] = [bytes.buffer as ArrayBuffer, bytes.byteLength / itemBytes];
    return itemBytes === 8
      ? new Float64Array(buffer, bytes.byteOffset, count)
      : new Float32Array(buffer, bytes.byteOffset, count);
  }) as [Float64Array | Float32Array, Float64Array | Float32Array];
  for (let i = 0; i < sum.length; i++) sum[i]! += more[i]!;
}
