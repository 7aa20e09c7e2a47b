/**
 * How ranks find each other without MPI: rank 0 listens at the address that the launcher gave all of them, the others
 * connect, try again until it is there, and say who they are.
 */

import { once } from 'node:events';
import { type Server, type Socket, connect, createServer } from 'node:net';
import { MatMambaError, messageOf } from '../errors.ts';
import { rankName } from './communicator.ts';
import type { Rendezvous } from './launch.ts';
import { FRAME, type Frame, TcpLink } from './tcp-link.ts';

/** Says that a peer is one of ours, and of which version. */
const MAGIC = 'matmamba-ranks-1';
const RETRY_MS = 200;
/** Rank 0, once reached, knows better who is missing: it is given the last word. */
const LAST_WORD_MS = 10_000;

export interface Place {
  readonly rank: number;
  readonly size: number;
  readonly host: string;
}

export interface Peer {
  readonly link: TcpLink;
  readonly rank: number;
  readonly host: string;
}

/** What a rank says of itself. */
interface Hello {
  readonly magic: string;
  readonly rank: number;
  readonly size: number;
  readonly host: string;
}

function helloOf({ payload }: Frame): Hello | undefined {
  try {
    const hello = JSON.parse(Buffer.from(payload).toString()) as Hello;
    return hello.magic === MAGIC && Number.isInteger(hello.rank) && typeof hello.host === 'string' ? hello : undefined;
  } catch {
    return undefined;
  }
}

const bytesOf = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));

/** Rank 0: all the others, in order. @throws DEVICE when they do not come in time, or two say they are the same rank */
export async function gather(place: Place, { address, port }: Rendezvous, timeoutMs: number): Promise<Peer[]> {
  const peers = new Map<number, Peer>();
  const server = createServer();
  const fail = (words: string, hint?: string): MatMambaError =>
    new MatMambaError('DEVICE', `${rankName(place)}: ${words}`, hint ? { hint } : {});
  await listen(server, address, port).catch((error: unknown) => {
    throw fail(
      `cannot listen at ${address}:${port}: ${messageOf(error)}`,
      'MASTER_ADDR must be an address of the machine of rank 0, MASTER_PORT a port that is free there',
    );
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      timer = setTimeout(() => {
        const missing = Array.from({ length: place.size - 1 }, (_, i) => i + 1).filter((rank) => !peers.has(rank));
        const names = `rank${missing.length > 1 ? 's' : ''} ${missing.join(', ')}`;
        reject(
          fail(
            `${names} of ${place.size} did not come to ${address}:${port} within ${timeoutMs / 1000} seconds`,
            'start all ranks, with the same MASTER_ADDR, MASTER_PORT and WORLD_SIZE; firewalls must let the port through',
          ),
        );
      }, timeoutMs);
      const take = (link: TcpLink, frame: Frame): void => {
        const hello = frame.kind === FRAME.hello ? helloOf(frame) : undefined;
        if (!hello) return void link.socket.destroy();
        const before = peers.get(hello.rank);
        const wrong =
          hello.size !== place.size
            ? `rank ${hello.rank} on host ${hello.host} was started as one of ${hello.size} processes`
            : hello.rank <= 0 || hello.rank >= place.size
              ? `a process on host ${hello.host} says that it is rank ${hello.rank}`
              : before && `processes on hosts ${before.host} and ${hello.host} both say that they are rank ${hello.rank}`;
        if (wrong) return reject(fail(wrong, 'RANK must differ and WORLD_SIZE be the same in all processes'));
        link.watch(
          (reason) => reject(fail(reason)),
          (why) => reject(fail(`rank ${hello.rank} of ${place.size} on host ${hello.host} is gone: ${why}`)),
        );
        peers.set(hello.rank, { link, rank: hello.rank, host: hello.host });
        if (peers.size === place.size - 1) resolve();
      };
      server.on('connection', (socket) => {
        const link = new TcpLink(socket);
        // Whoever is not one of ours is left alone.
        link.receive().then(
          (frame) => take(link, frame),
          () => {},
        );
      });
    });
  } catch (error) {
    for (const { link } of peers.values()) {
      link.watch(
        () => {},
        () => {},
      );
      link.send(FRAME.abort, 0, Buffer.from(messageOf(error)));
      link.socket.end();
    }
    throw error;
  } finally {
    clearTimeout(timer);
    server.close();
  }
  const ordered = [...peers.values()].sort((a, b) => a.rank - b.rank);
  for (const { link } of ordered) link.send(FRAME.welcome, 0, bytesOf({ magic: MAGIC, ...place }));
  return ordered;
}

/** At the address, or where that is not one of this machine (behind a translation of addresses) at all of its own. */
async function listen(server: Server, address: string, port: number): Promise<void> {
  const at = async (host?: string): Promise<void> => {
    server.listen(host === undefined ? { port } : { port, host });
    await once(server, 'listening');
  };
  await at(address).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EADDRNOTAVAIL') return at();
    throw error;
  });
}

/** The other ranks: their connection to rank 0. @throws DEVICE when it is not there in time, or turns this one away */
export async function reach(place: Place, { address, port }: Rendezvous, timeoutMs: number): Promise<Peer> {
  const start = performance.now();
  const fail = (words: string, hint?: string): MatMambaError =>
    new MatMambaError('DEVICE', `${rankName(place)}: ${words}`, hint ? { hint } : {});
  let last = 'nothing answered';
  while (performance.now() - start < timeoutMs) {
    const socket = await open(address, port, Math.max(1, timeoutMs - (performance.now() - start))).catch((error: unknown) => {
      last = messageOf(error);
      return undefined;
    });
    if (!socket) {
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      continue;
    }
    const link = new TcpLink(socket);
    link.watch(
      (reason) => link.fail(fail(`turned away by rank 0: ${reason}`)),
      () => {},
    );
    link.send(FRAME.hello, place.rank, bytesOf({ magic: MAGIC, rank: place.rank, size: place.size, host: place.host }));
    const left = timeoutMs + LAST_WORD_MS - (performance.now() - start);
    const timer = setTimeout(() => link.fail(fail(`rank 0 did not answer within ${timeoutMs / 1000} seconds`)), left);
    try {
      const welcome = await link.receive();
      const hello = welcome.kind === FRAME.welcome ? helloOf(welcome) : undefined;
      if (!hello) throw fail(`what listens at ${address}:${port} is not rank 0`, 'choose another MASTER_PORT');
      return { link, rank: 0, host: hello.host };
    } catch (error) {
      socket.destroy();
      if (error instanceof MatMambaError) throw error;
      throw fail(
        `rank 0 at ${address}:${port} hung up: ${messageOf(error)}`,
        'if rank 0 says nothing, something else listens there: choose another MASTER_PORT',
      );
    } finally {
      clearTimeout(timer);
    }
  }
  throw fail(
    `rank 0 was not reached at ${address}:${port} within ${timeoutMs / 1000} seconds: ${last}`,
    'start rank 0; MASTER_ADDR and MASTER_PORT must name its machine, and firewalls must let the port through',
  );
}

async function open(host: string, port: number, timeoutMs: number): Promise<Socket> {
  const socket = connect({ host, port });
  const timer = setTimeout(() => socket.destroy(new Error('the connection took too long')), timeoutMs);
  try {
    await once(socket, 'connect');
    return socket;
  } catch (error) {
    socket.destroy();
    // Several addresses failed: the first says enough.
    throw error instanceof AggregateError ? error.errors[0] : error;
  } finally {
    clearTimeout(timer);
  }
}
