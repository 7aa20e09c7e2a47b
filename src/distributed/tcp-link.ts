/**
 * One connection between two ranks: frames of 16 bytes (kind, detail, length of what follows) and their payload. Frames
 * that nobody waits for yet are kept; a rank waits for an answer to everything it sends, so there is at most one.
 */

import type { Socket } from 'node:net';

/** Kinds of frames. */
export const FRAME = { hello: 1, welcome: 2, sum: 3, broadcast: 4, barrier: 5, finalize: 6, abort: 7 } as const;
export type FrameKind = (typeof FRAME)[keyof typeof FRAME];

export interface Frame {
  readonly kind: number;
  readonly detail: number;
  readonly payload: Uint8Array;
}

const HEAD_BYTES = 16;
/** More in one frame is not ours. */
const MAX_PAYLOAD_BYTES = 2 ** 26;
const NOTHING = new Uint8Array(0);

export class TcpLink {
  readonly socket: Socket;
  readonly #head = Buffer.alloc(HEAD_BYTES);
  #headFilled = 0;
  #payload: Buffer | undefined;
  #payloadFilled = 0;
  readonly #frames: Frame[] = [];
  #waiting: { resolve: (frame: Frame) => void; reject: (error: unknown) => void } | undefined;
  #gone: string | undefined;
  #aborted: string | undefined;
  #onGone: (why: string) => void = () => {};
  #onAbort: (reason: string) => void = () => {};

  constructor(socket: Socket) {
    this.socket = socket;
    let why = 'its connection was closed';
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 10_000);
    socket.on('data', (bytes: Buffer) => this.#take(bytes));
    socket.on('error', (error) => (why = error.message));
    socket.on('close', () => this.#end(why));
  }

  /**
   * Who is told of a frame that ends the job, and once when the connection is gone, with what was the matter; at once when
   * it has happened.
   */
  watch(onAbort: (reason: string) => void, onGone: (why: string) => void): void {
    this.#onAbort = onAbort;
    this.#onGone = onGone;
    if (this.#aborted !== undefined) onAbort(this.#aborted);
    if (this.#gone !== undefined) onGone(this.#gone);
  }

  /** Asks for a frame to be sent. Small ones are on their way when this returns. */
  send(kind: FrameKind, detail: number, payload: Uint8Array = NOTHING): void {
    if (this.#gone !== undefined) return;
    const head = Buffer.alloc(HEAD_BYTES);
    head.writeUInt32LE(kind, 0);
    head.writeInt32LE(detail, 4);
    head.writeDoubleLE(payload.length, 8);
    if (payload.length === 0) this.socket.write(head);
    else {
      this.socket.cork();
      this.socket.write(head);
      this.socket.write(payload);
      this.socket.uncork();
    }
  }

  /** The next frame. Rejects when the connection is gone or `fail` was called. */
  receive(): Promise<Frame> {
    const frame = this.#frames.shift();
    if (frame) return Promise.resolve(frame);
    if (this.#gone !== undefined) return Promise.reject(new Error(this.#gone));
    return new Promise((resolve, reject) => (this.#waiting = { resolve, reject }));
  }

  /** Ends a wait. */
  fail(error: unknown): void {
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }

  #take(bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      if (!this.#payload) {
        const copied = bytes.copy(this.#head, this.#headFilled, at);
        this.#headFilled += copied;
        at += copied;
        if (this.#headFilled < HEAD_BYTES) return;
        this.#headFilled = 0;
        const length = this.#head.readDoubleLE(8);
        if (!(length >= 0 && length <= MAX_PAYLOAD_BYTES)) {
          this.socket.destroy(new Error('what it sent is not of this program'));
          return;
        }
        // Not from the shared pool: views of other element types are made of it.
        this.#payload = Buffer.from(new ArrayBuffer(length));
        this.#payloadFilled = 0;
      }
      const copied = bytes.copy(this.#payload, this.#payloadFilled, at);
      this.#payloadFilled += copied;
      at += copied;
      if (this.#payloadFilled === this.#payload.length) this.#deliver(this.#payload);
    }
  }

  #deliver(payload: Buffer): void {
    this.#payload = undefined;
    const frame = { kind: this.#head.readUInt32LE(0), detail: this.#head.readInt32LE(4), payload };
    if (frame.kind === FRAME.abort) {
      this.#aborted ??= payload.toString();
      this.#onAbort(this.#aborted);
      return;
    }
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting) waiting.resolve(frame);
    else this.#frames.push(frame);
  }

  #end(why: string): void {
    if (this.#gone !== undefined) return;
    this.#gone = why;
    this.#onGone(why);
    this.fail(new Error(why));
  }
}
