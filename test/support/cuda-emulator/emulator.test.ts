/** The emulated device against plain loops, and what it has to notice. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { CudaArgument, CudaElement, GemmLaunch } from '../../../src/ops/cuda-kernel.ts';
import { f32, i32 } from '../../../src/ops/cuda-kernel.ts';
import { compilerVersion } from './compile.ts';
import { type EmulatedDriver, type EmulatorOptions, openEmulator } from './emulator.ts';
import { decodeHalf, encodeHalf } from './halves.ts';

const missing = await compilerVersion().then(
  () => false,
  () => true,
);

let driver: EmulatedDriver;

function put(values: Float32Array | Int32Array | Uint16Array): bigint {
  const pointer = driver.allocate(values.byteLength, 'a test');
  driver.copyToDevice(pointer, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return pointer;
}

function floats(pointer: bigint, count: number): Float32Array {
  const values = new Float32Array(count);
  driver.copyToHost(new Uint8Array(values.buffer), pointer);
  return values;
}

interface Shape {
  readonly grid?: number;
  readonly block?: number;
  readonly sharedBytes?: number;
  readonly entry?: string;
}

/** Runs `body` as `go(float *out, ...)` and gives `count` floats of out. */
async function run(
  parameters: string,
  body: string,
  count: number,
  args: readonly CudaArgument[] = [],
  { grid = 1, block = 32, sharedBytes = 0, entry = 'go' }: Shape = {},
): Promise<Float32Array> {
  const source = `extern "C" __global__ void go(float *out${parameters ? `, ${parameters}` : ''}) {\n${body}\n}\n`;
  const out = driver.allocate(4 * count, 'results');
  const launch = { kind: 'kernel', source, entry, grid: [grid], block, sharedBytes, args: [out, ...args] } as const;
  const recording = await driver.record([launch]);
  recording.replay();
  await driver.done();
  const result = floats(out, count);
  recording.free();
  driver.free(out);
  return result;
}

const noise = (count: number, scale = 1): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => scale * Math.sin(12.9898 * i + 4.1) * Math.cos(0.37 * i * i));
const halves = (values: Float32Array, element: 'bf16' | 'f16'): Uint16Array =>
  Uint16Array.from(values, (x) => encodeHalf(x, element));
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

const MODES: readonly [string, EmulatorOptions][] = [
  ['in descending order', { shuffle: 0 }],
  ['in random order', { shuffle: 7 }],
  ['switched by ucontext', { shuffle: 0, portable: true }],
];

describe.skipIf(missing).each(MODES)('threads %s', (_, options) => {
  beforeAll(async () => {
    driver = await openEmulator({ ...options, secondsPerLaunch: 1 });
  });
  afterAll(() => driver.dispose());

  test.each(['bf16', 'f16'] as const)('%s tensor-core products of 16 x 8 x 16', async (element) => {
    const [a, b] = [halves(noise(256), element), halves(noise(128, 3).reverse(), element)];
    const at = (x: Uint16Array, i: number): number => decodeHalf(x[i]!, element);
    const want = range(128).map((i) => {
      const [row, column] = [i >> 3, i & 7];
      return range(16).reduce((sum, k) => sum + at(a, 16 * row + k) * at(b, 8 * k + column), 100 * row + column);
    });
    const store = `
      for (int i = 0; i < 4; i++) d[i] = 0;
      int g = lane >> 2, t = lane & 3;
      for (int i = 0; i < 4; i++) d[i] = 100 * (g + 8 * (i >> 1)) + 2 * t + (i & 1);
      mma16816<T>(d, x, y);
      for (int i = 0; i < 4; i++) out[8 * (g + 8 * (i >> 1)) + 2 * t + (i & 1)] = d[i];`;
    const head = `typedef ${element} T; int lane = threadIdx.x; float d[4]; u32 x[4], y[2];
      __shared__ __align__(16) u16 as[256], at[256], bs[128], bt[128];
      for (int i = lane; i < 256; i += 32) as[i] = at[16 * (i & 15) + (i >> 4)] = a[i];
      for (int i = lane; i < 128; i += 32) bs[i] = bt[16 * (i & 7) + (i >> 3)] = b[i];
      __syncthreads();`;
    const loads = {
      registers: `for (int i = 0; i < 8; i++) {
          int row = (lane >> 2) + 8 * ((i >> 1) & 1), column = 2 * (lane & 3) + (i & 1) + 8 * (i >> 2);
          ((u16 *)x)[i] = as[16 * row + column];
        }
        for (int i = 0; i < 4; i++) ((u16 *)y)[i] = bs[8 * (2 * (lane & 3) + (i & 1) + 8 * (i >> 1)) + (lane >> 2)];`,
      plain: `ldmatrix4(x, as + 16 * (lane & 15) + 8 * (lane >> 4)); ldmatrix2(y, bt + 16 * (lane & 7) + 8 * (lane >> 3 & 1));`,
      transposed: `ldmatrix4_transposed(x, at + 16 * ((lane & 7) + 8 * (lane >> 4)) + 8 * (lane >> 3 & 1));
        ldmatrix2_transposed(y, bs + 8 * (lane & 15));`,
    };
    for (const load of Object.values(loads)) {
      const got = await run('const u16 *a, const u16 *b', head + load + store, 128, [put(a), put(b)]);
      got.forEach((x, i) => expect(Math.abs(x - want[i]!)).toBeLessThan(1e-3));
    }
  });

  test('shuffles and votes', async () => {
    const body = `int lane = threadIdx.x & 31; float *o = out + 12 * threadIdx.x;
      o[0] = __shfl_sync(FULL_WARP, (float)threadIdx.x, 5);
      o[1] = __shfl_sync(FULL_WARP, lane, lane + 1, 8);
      o[2] = __shfl_up_sync(FULL_WARP, lane, 3);
      o[3] = __shfl_down_sync(FULL_WARP, lane, 3, 16);
      o[4] = __shfl_xor_sync(FULL_WARP, (u64)lane << 40, 7) >> 40;
      o[5] = __popc(__ballot_sync(FULL_WARP, lane % 3 == 0));
      o[6] = __any_sync(FULL_WARP, lane == 31) + 2 * __all_sync(FULL_WARP, lane < 31);
      o[7] = warp_sum(lane);
      o[8] = warp_max(lane == 9 ? 50.0f : -lane);
      __shared__ float cells[32];
      o[9] = block_sum(threadIdx.x, cells);
      o[10] = block_max(threadIdx.x, cells);
      o[11] = lane < 16 ? __shfl_xor_sync(0x0000ffffu, lane, 8) : __shfl_xor_sync(0xffff0000u, lane, 1);`;
    const got = await run('', body, 12 * 96, [], { block: 96 });
    for (const thread of range(96)) {
      const lane = thread & 31;
      expect([...got.subarray(12 * thread, 12 * thread + 12)]).toEqual([
        thread - lane + 5,
        (lane & 24) + ((lane + 1) & 7),
        lane < 3 ? lane : lane - 3,
        (lane & 15) > 12 ? lane : lane + 3,
        lane ^ 7,
        11,
        1,
        496,
        50,
        4560,
        95,
        lane < 16 ? lane ^ 8 : lane ^ 1,
      ]);
    }
  });

  test('barriers count threads that have exited; shared memory of both kinds; tables', async () => {
    const body = `extern __shared__ float4 staged[]; float *cells = (float *)staged; __shared__ int more[128];
      int i = threadIdx.x;
      if (i >= 96) return;
      cells[i] = i * scale; more[i] = i;
      __syncthreads();
      out[96 * blockIdx.x + i] = cells[95 - i] + 1000 * more[(i + 40) % 96] + table[blockIdx.x];`;
    const table = new Uint8Array(Float32Array.of(0.25, 0.5).buffer);
    const args = [f32(0.5), { table }] as const;
    const got = await run('float scale, const float *table', body, 192, args, { grid: 2, block: 128, sharedBytes: 384 });
    expect([...got]).toEqual(
      range(192).map((i) => (95 - (i % 96)) * 0.5 + 1000 * (((i % 96) + 40) % 96) + (i < 96 ? 0.25 : 0.5)),
    );
  });

  test('asynchronous copies are there after the wait for their group', async () => {
    const body = `__shared__ __align__(16) float cells[3][128];
      for (int s = 0; s < 3; s++) { copy_async16(&cells[s][4 * threadIdx.x], from + 128 * s + 4 * threadIdx.x, s < 2); copy_async_commit(); }
      copy_async_wait<1>(); __syncthreads();
      for (int i = threadIdx.x; i < 256; i += 32) out[i] = (&cells[0][0])[i];
      copy_async_wait<0>(); __syncthreads();
      for (int i = threadIdx.x; i < 128; i += 32) out[256 + i] = cells[2][i];`;
    const from = noise(384);
    const got = await run('const float *from', body, 384, [put(from)]);
    expect(got).toEqual(from.map((x, i) => (i < 256 ? x : 0)));
    const hasty = await run('const float *from', body.replace('copy_async_wait<1>(); ', ''), 384, [put(from)]);
    expect(hasty.subarray(0, 256)).not.toEqual(from.subarray(0, 256));
  });

  test.each<[string, string, RegExp, Shape?]>([
    [
      'a barrier that a waiting thread never reaches',
      'if (threadIdx.x < 32 || threadIdx.x == 40) __syncthreads(); else __syncwarp();',
      /go.*deadlock, 33 of 64 threads wait at __syncthreads/s,
    ],
    [
      'different barriers',
      'if (threadIdx.x < 32)\n __syncthreads();\nelse\n __syncthreads();',
      /different __syncthreads: line \d of the source/,
    ],
    [
      'different collectives',
      'if (threadIdx.x & 1) out[0] = __shfl_xor_sync(FULL_WARP, 1, 1); else __syncwarp();',
      /different collectives/,
    ],
    ['a collective after a lane has exited', 'if (threadIdx.x == 3) return; __syncwarp();', /exit/],
    ['a lane outside its mask', '__syncwarp(1u);', /lacks the caller/],
    ['reading a lane outside the mask', 'if (threadIdx.x < 4) out[0] = __shfl_sync(15u, 1, 5);', /not in its mask/],
    ['writing behind device memory', 'out[64 + threadIdx.x] = 1;', /go: something was written behind the 256 bytes/],
    [
      'writing beyond dynamic shared memory',
      'extern __shared__ float cells[]; cells[64 + threadIdx.x] = 1;',
      /beyond its 256 bytes of dynamic/,
      { sharedBytes: 256 },
    ],
    [
      'an index beyond an array',
      '__shared__ float cells[32]; cells[threadIdx.x] = 1; out[0] = cells[0];',
      /line 2 of the source `__shared__/,
    ],
    ['a misaligned vector', '*(float4 *)(out + 1) = make_float4(1, 2, 3, 4);', /misaligned.*line 2 of the source/],
    ['a null pointer', 'if (threadIdx.x == 40) *(volatile float *)nullptr = 1;', /thread 40.*not there.*line 2 of the source/],
    ['an endless loop', 'while (*(volatile float *)out != 1.0f);', /time limit/],
    ['a stack that overflows', 'volatile float big[200000]; big[threadIdx.x] = 1; out[0] = big[5];', /stack overflows/],
    ['ldmatrix from device memory', 'u32 r[4]; ldmatrix4(r, out); out[0] = r[0];', /not shared memory/],
    ['an entry that is not there', '', /come is not in its source/, { entry: 'come' }],
    ['a grid of no blocks', '', /a grid of 0/, { grid: 0 }],
  ])('notices %s', async (_name, body, message, shape = {}) => {
    await expect(run('', body, 64, [], { block: 64, ...shape })).rejects.toMatchObject({
      code: 'DEVICE',
      message: expect.stringMatching(message),
    });
    // It goes on working.
    expect((await run('', 'out[threadIdx.x] = 3;', 32))[31]).toBe(3);
  });

  test('names the compiler error, and arguments of another kind', async () => {
    await expect(run('', 'out[0] = nonsense;', 1)).rejects.toThrow(/source:2.*nonsense/s);
    await expect(run('int n', 'out[0] = n;', 1, [f32(1)])).rejects.toThrow(/parameters pi but is given pf/);
  });

  test('shared and device memory that nobody has written is NaN', async () => {
    const got = await run(
      '',
      '__shared__ float cells[32]; __syncthreads(); out[threadIdx.x] += 1; out[32 + threadIdx.x] = cells[threadIdx.x];',
      64,
    );
    expect(got.every(Number.isNaN)).toBe(true);
  });
});

describe.skipIf(missing)('numbers', () => {
  beforeAll(async () => {
    driver = await openEmulator();
  });
  afterAll(() => driver.dispose());

  test.each(['bf16', 'f16'] as const)('%s: all values, and rounding of floats around them', async (element) => {
    const values = Float32Array.from(range(65536), (bits) => decodeHalf(bits, element));
    const near = [1, 0x1000, 0x1001, 0x8000, 0x7fff, 0x17ff].flatMap((offset) => {
      const bits = new Uint32Array(values.slice().buffer);
      return [...new Float32Array(bits.map((x, i) => x + (i & 1 ? offset : -offset)).buffer)];
    });
    const all = Float32Array.from([...values, ...near]);
    const count = all.length;
    const body = `for (int i = threadIdx.x; i < ${count / 2}; i += 32) {
      ((u32 *)out)[i] = pack2<${element}>(x[2 * i], x[2 * i + 1]);
      if (i < 65536) out[${count / 2} + i] = to_float(*((${element} *)out + i));
      ${element} y = from_float<${element}>(x[2 * i + 1]);
      if (y.bits != ((u16 *)out)[2 * i + 1]) out[${count / 2}] = 1234567.0f;
    }`;
    // One thread reads what another has packed at most a warp away: only its own pair.
    const own = body
      .replace('if (i < 65536) out', 'if (i < 32768) for (int h = 0; h < 2; h++) out')
      .replace('+ i] = to_float(*((', '+ 2 * i + h] = to_float(*((')
      .replace(' *)out + i));', ' *)out + 2 * i + h));');
    const got = await run('const float *x', own, count / 2 + 65536, [put(all)]);
    const packed = new Uint16Array(got.buffer, 0, count);
    const wrong = range(count).filter((i) => packed[i] !== encodeHalf(all[i]!, element));
    expect(wrong.slice(0, 5).map((i) => [all[i], packed[i], encodeHalf(all[i]!, element)])).toEqual([]);
    expect(got.slice(count / 2)).toEqual(values);
  });

  test('approximations flush to zero, exact functions do not', async () => {
    const body =
      'out[0] = fast_exp2(-130.0f); out[1] = fast_exp(1.0f); out[2] = fast_reciprocal(1e-40f); out[3] = expf(-88.0f); out[4] = softplus(0.5f);';
    const got = await run('', body, 5);
    expect([...got]).toEqual([
      0,
      expect.closeTo(Math.E, 5),
      Infinity,
      expect.closeTo(Math.exp(-88), 42),
      expect.closeTo(0.9740769, 6),
    ]);
  });

  const VARIANTS = range(16).map((i) => ({
    a: (['f32', 'bf16', 'f16', 'bf16'] as const)[i & 3]!,
    d: (['f32', 'f32', 'f16', 'bf16'] as const)[i & 3]!,
    ta: (i & 4) !== 0,
    tb: (i & 8) !== 0,
    td: i === 13,
    accumulate: (i & 1) === ((i >> 2) & 1),
    batch: i % 3 === 0 ? 3 : 1,
  }));
  test.each(VARIANTS)('product %o', async ({ a, d, ta, tb, td, accumulate, batch }) => {
    const [m, n, k] = [19, 70, 33];
    const operand = (element: CudaElement, rows: number, columns: number, transposed: boolean, seed: number) => {
      const [r, c] = transposed ? [columns, rows] : [rows, columns];
      const stride = c + 5;
      const values = noise(batch * r * stride + seed).subarray(seed);
      const raw = element === 'f32' ? values : halves(values, element as 'bf16' | 'f16');
      const exact = element === 'f32' ? values : Float32Array.from(raw, (x) => decodeHalf(x, element as 'bf16' | 'f16'));
      const at = (p: number, i: number, j: number): number =>
        exact[p * r * stride + (transposed ? j * stride + i : i * stride + j)]!;
      return { pointer: put(raw.slice()), element, stride, transposed, batchStride: r * stride, at, count: raw.length, exact };
    };
    const [x, y, z] = [operand(a, m, k, ta, 3), operand(a, k, n, tb, 8), operand(d, m, n, td, 1)];
    const launch: GemmLaunch = { kind: 'gemm', m, n, k, a: x, b: y, d: z, accumulate, batch };
    (await driver.record([launch])).replay();
    await driver.done();
    const raw = d === 'f32' ? new Float32Array(z.count) : new Uint16Array(z.count);
    driver.copyToHost(new Uint8Array(raw.buffer), z.pointer);
    const got = d === 'f32' ? raw : Array.from(raw, (bits) => decodeHalf(bits, d));
    const want = z.exact.slice();
    for (const p of range(batch)) {
      for (const i of range(m)) {
        for (const j of range(n)) {
          const sum = range(k).reduce((total, l) => total + x.at(p, i, l) * y.at(p, l, j), accumulate ? z.at(p, i, j) : 0);
          want[p * z.batchStride + (td ? j * z.stride + i : i * z.stride + j)] =
            d === 'f32' ? sum : decodeHalf(encodeHalf(Math.fround(sum), d), d);
        }
      }
    }
    const worst = want.reduce((most, x, i) => Math.max(most, Math.abs(x - got[i]!) / (1 + Math.abs(x))), 0);
    expect(worst).toBeLessThan(d === 'f32' ? 1e-6 : 1e-2);
  });

  test('operands beyond their memory, copies and fills beyond theirs', async () => {
    const pointer = driver.allocate(4 * 64, 'a square');
    const square = { pointer, element: 'f32', stride: 8 } as const;
    (await driver.record([{ kind: 'gemm', m: 8, n: 8, k: 9, a: square, b: square, d: square }])).replay();
    await expect(driver.done()).rejects.toThrow(/operand a/);
    (await driver.record([{ kind: 'fill', pointer, bytes: 257 }])).replay();
    await expect(driver.done()).rejects.toThrow(/fill/);
    expect(() => driver.copyToDevice(pointer, new Uint8Array(300))).toThrow(/not within/);
    expect(() => driver.allocate(1e12, 'too much')).toThrow(expect.objectContaining({ code: 'MEMORY' }));
  });

  test('host buffers, fills, copies and times', async () => {
    const host = driver.hostBuffer(64);
    host.bytes.set(range(64));
    const pointer = driver.allocate(64, 'a copy');
    const recording = await driver.record([{ kind: 'fill', pointer: pointer + 8n, bytes: 16 }]);
    driver.copy({ kind: 'to-device', host: host.pointer, device: pointer, bytes: 64 });
    expect(await recording.time()).toHaveLength(1);
    driver.copy({ kind: 'to-host', host: host.pointer, device: pointer, bytes: 32 });
    await driver.done();
    expect([...host.bytes]).toEqual(range(64).map((i) => (i >= 8 && i < 24 ? 0 : i)));
    host.free();
    const shared = new Uint8Array(new SharedArrayBuffer(64)).fill(7);
    driver.copyToDevice(pointer, shared);
    driver.copyToHost(shared.fill(0), pointer);
    expect(shared[63]).toBe(7);
    expect([...(await run('int n', 'out[0] = n;', 1, [i32(-5)]))]).toEqual([-5]);
  });
});
