/** The binding against a library that has NCCL's functions and does little: what arrives there, and what errors say. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import type { RankGroup } from '../../distributed/communicator.ts';
import { NcclGroup } from './nccl.ts';

/** Sums of one rank; the environment variable FAKE_NCCL makes calls fail. The id must arrive whole, by value. */
const SOURCE = String.raw`
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef struct { char internal[128]; } ncclUniqueId;
typedef struct { int rank, ranks, open; int async; } Comm;
static int depth, calls;
static char last[256];
static int fails(const char *name) {
  const char *wanted = getenv("FAKE_NCCL");
  if (!wanted || strncmp(wanted, name, strlen(name)) != 0 || wanted[strlen(name)] != '=') return 0;
  snprintf(last, sizeof last, "%s was told to fail", name);
  return atoi(wanted + strlen(name) + 1);
}
int ncclGetVersion(int *version) { *version = 22803; return 0; }
int ncclGetUniqueId(ncclUniqueId *id) {
  for (int i = 0; i < 128; i++) id->internal[i] = (char)(i * 7 + 3);
  return fails("ncclGetUniqueId");
}
int ncclCommInitRank(void **comm, int ranks, ncclUniqueId id, int rank) {
  for (int i = 0; i < 128; i++) if (id.internal[i] != (char)(i * 7 + 3)) return 4;
  Comm *made = calloc(1, sizeof *made);
  made->rank = rank; made->ranks = ranks; made->open = 1;
  *comm = made;
  return fails("ncclCommInitRank");
}
int ncclCommDestroy(Comm *comm) { comm->open = 0; return 0; }
int ncclCommAbort(Comm *comm) { comm->open = 0; return 0; }
int ncclCommGetAsyncError(Comm *comm, int *status) { *status = fails("async"); return comm->open ? 0 : 5; }
int ncclGroupStart(void) { depth++; calls = 0; return 0; }
int ncclGroupEnd(void) { depth--; return fails("ncclGroupEnd"); }
static int copy(const void *from, void *to, size_t count, int type, Comm *comm, void *stream) {
  if (depth != 1 || type != 7 || !comm->open || stream != (void *)77) return 5;
  calls++;
  memmove(to, from, 4 * count);
  return 0;
}
int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, void *comm, void *stream) {
  int status = fails("ncclAllReduce");
  return status ? status : op != 0 ? 4 : copy(from, to, count, type, comm, stream);
}
int ncclReduce(const void *from, void *to, size_t count, int type, int op, int root, void *comm, void *stream) {
  return op != 0 || root != 2 ? 4 : copy(from, to, count, type, comm, stream);
}
int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, void *comm, void *stream) {
  return root != 1 ? 4 : copy(from, to, count, type, comm, stream);
}
const char *ncclGetErrorString(int status) { return status == 5 ? "invalid usage" : status == 2 ? "unhandled system error" : "other"; }
const char *ncclGetLastError(void *comm) { return last; }
`;

function hasCompiler(): boolean {
  try {
    execFileSync('g++', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

describe.skipIf(process.platform !== 'linux' || !hasCompiler())('NCCL (skipped where g++ is missing)', () => {
  let home = '';
  beforeAll(() => {
    home = mkdtempSync(join(tmpdir(), 'matmamba-nccl-'));
    mkdirSync(join(home, 'lib64'));
    writeFileSync(join(home, 'nccl.c'), SOURCE);
    execFileSync('gcc', ['-shared', '-fPIC', '-o', join(home, 'lib64/libnccl.so.2'), join(home, 'nccl.c')]);
    process.env['CUDA_HOME'] = home;
  });
  afterAll(() => {
    delete process.env['CUDA_HOME'];
    rmSync(home, { recursive: true, force: true });
  });
  beforeEach(() => void delete process.env['FAKE_NCCL']);

  /** Rank 0, or another that gets the id from it. */
  function ranks(rank = 0): RankGroup & { calls: string[] } {
    const calls: string[] = [];
    return {
      rank,
      size: 3,
      host: hostname(),
      calls,
      async broadcast(buffer) {
        calls.push('broadcast');
        const bytes = new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
        if (rank > 0) bytes.set(bytes.map((_, i) => i * 7 + 3));
      },
      async barrier() {
        calls.push('barrier');
      },
    };
  }

  const STREAM = 77n;
  const name = (rank: number): string => `rank ${rank} of 3 on host ${hostname()}, NVIDIA H200`;

  test('joins with the id of rank 0, and sums and copies in groups', async () => {
    const koffi = (await import('koffi')).default;
    for (const rank of [0, 1]) {
      const place = ranks(rank);
      const group = await NcclGroup.join(place, 'NVIDIA H200');
      expect(place.calls).toEqual(['broadcast', 'barrier']);
      expect(group.version).toBe('2.28.3');
      const [from, to] = [Float32Array.of(1, 2, 3), new Float32Array(3)];
      const part = { from: koffi.address(from), to: koffi.address(to) };
      group.put({ kind: 'all-reduce', parts: [{ ...part, count: 1, root: -1 }] }, STREAM);
      expect([...to]).toEqual([1, 0, 0]);
      group.put({ kind: 'reduce', parts: [{ ...part, count: 2, root: 2 }] }, STREAM);
      expect([...to]).toEqual([1, 2, 0]);
      const parts = [3, 2].map((count) => ({ ...part, count, root: 1 }));
      group.put({ kind: 'broadcast', parts }, STREAM);
      expect([...to]).toEqual([1, 2, 3]);
      expect(group.asyncError()).toBeUndefined();
      if (rank === 0) group.leave();
      else await group.abort();
      expect(group.asyncError()).toBeUndefined();
    }
    expect(process.env['NCCL_GRAPH_REGISTER']).toBe('0');
  });

  test.each([
    [
      'ncclCommInitRank=5',
      1,
      'ncclCommInitRank failed: invalid usage (status 5): ncclCommInitRank was told to fail',
      'a GPU of its own',
    ],
    ['ncclGetUniqueId=2', 0, 'ncclGetUniqueId failed: unhandled system error (status 2)', 'NCCL_SOCKET_IFNAME'],
  ])('%s is an error that names call, status, rank and device', async (told, rank, words, hint) => {
    process.env['FAKE_NCCL'] = told;
    const failure = NcclGroup.join(ranks(rank), 'NVIDIA H200');
    await expect(failure).rejects.toMatchObject({
      code: 'DEVICE',
      message: expect.stringContaining(`${name(rank)}: ${words}`) as string,
    });
    await expect(failure).rejects.toThrow(hint);
  });

  test('a group of sums that fails is closed, and later ones go on', async () => {
    const koffi = (await import('koffi')).default;
    const group = await NcclGroup.join(ranks(), 'NVIDIA H200');
    const values = Float32Array.of(1, 2, 3);
    const launch = {
      kind: 'all-reduce',
      parts: [{ from: koffi.address(values), to: koffi.address(values), count: 3, root: -1 }],
    } as const;
    for (const call of ['ncclAllReduce', 'ncclGroupEnd']) {
      process.env['FAKE_NCCL'] = `${call}=6`;
      expect(() => group.put(launch, STREAM)).toThrow(`${name(0)}: ${call} failed`);
      delete process.env['FAKE_NCCL'];
      group.put(launch, STREAM);
    }
    process.env['FAKE_NCCL'] = 'async=6';
    expect(group.asyncError()?.message).toMatch(/work between the ranks failed.*status 6[^]*another rank failed/);
    group.leave();
  });

  test('without the library the error says what to install', async () => {
    process.env['CUDA_HOME'] = '/nowhere';
    vi.resetModules();
    await expect(NcclGroup.join(ranks(), 'NVIDIA H200')).rejects.toMatchObject({
      code: 'DEVICE',
      hint: expect.stringContaining('NCCL') as string,
    });
    process.env['CUDA_HOME'] = home;
  });
});
