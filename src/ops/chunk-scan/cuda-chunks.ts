/**
 * CUDA C of the chunk scan by chunks of 64 steps on tensor cores (Dao & Gu 2024, section 6), for 16-bit precisions.
 *
 * A block walks the chunks of some heads in order; a warp has some of their columns (HEADS heads, or a part of one) and
 * keeps their state in registers from the first chunk to the last. With a[i] the sum of the log decays of a chunk's steps
 * up to i, in base 2, and v[j] = a[j] - log2 dt[j], a chunk is
 *
 *   y[i] = 2^a[i] S c[i] + sum over j <= i of (c[i] . b[j]) 2^(a[i] - v[j]) x[j] + d x[i]
 *   S    = 2^a[63] S     + sum over j of 2^(a[63] - v[j]) x[j] (outer) b[j]
 *
 * Products c[i] . b[j] serve all heads: the block computes them once a chunk into shared memory, in the order in which the
 * lanes of a warp hold the tiles that they multiply with x. The state is (p, n) in accumulators, rows of p, which are at
 * the same time the registers of S^T as a right operand; x[j][p] as a right operand holds the same registers as x^T as a
 * left one, so x is read once from shared memory. y replaces x there, and is written to memory with the next chunk.
 *
 * Cost of a chunk, P = 24, N = 128, four warps of a head each: 254 products of 16 x 8 x 16 a warp and up to 48 for its
 * share of c . b, 6.4 cycles each on a multiprocessor quarter (mma.sync on an H100), about 1,400 instructions; two blocks
 * a multiprocessor (109 KB of shared memory and 128 threads of up to 255 registers each) keep the tensor cores busy: 16
 * chunks are some 60,000 cycles.
 *
 * Defines: HALF; TX, TB, TC, TDT, TY; N, P; WARPS; HEADS of a warp; PARTS, warps that share a head (then HEADS is 1); TILES,
 * 8-column tiles of each of these heads that the warp has; XP, 8-column pieces of x that the block has.
 */

import { SCAN_PARAMETERS } from './cuda-parameters.ts';
import { STAGING } from './cuda-staging.ts';

export const CHUNKS_SOURCE = String.raw`${SCAN_PARAMETERS}${STAGING}
/* Grid (groups of WARPS warps' columns, batch). */
extern "C" __global__ void __launch_bounds__(32 * WARPS) scan_chunks(PARAMETERS) {
  extern __shared__ uint4 shared[];
  HALF *stages = (HALF *)shared;
  float *scores = (float *)(stages + 2 * STAGE);
  int thread = threadIdx.x, warp = thread >> 5, lane = thread & 31, g = lane >> 2, q = lane & 3, batch = blockIdx.y;
  /* This warp's a [HEADS][Q], v [HEADS][Q] and d [HEADS][8 TILES]. */
  float *sums = scores + 10 * 256 + warp * HEADS * (2 * Q + 8 * TILES), *sources = sums + HEADS * Q;
  float *skips = sources + HEADS * Q;

  int channels = heads * P, padded = (channels + 15) / 16 * 16;
  auto column_of = [&](int unit) { return PARTS > 1 ? unit / PARTS * P + unit % PARTS * (8 * TILES) : unit * (HEADS * P); };
  int start = column_of(blockIdx.x * WARPS), end = column_of((blockIdx.x + 1) * WARPS), base = start & ~7;
  if (end >= channels) end = padded;
  int unit = blockIdx.x * WARPS + warp;
  int head = unit / PARTS * HEADS, p0 = unit % PARTS * (8 * TILES);
  bool active = head < heads;
  int column = head * P + p0 - base;
  int real = lengths ? max(min(lengths[batch], length), 0) : length;
  int chunks = (real + Q - 1) / Q;
  i64 rows = (i64)batch * length;
  float *state = slotTable ? (float *)(slotTable[slots[batch]] + stateOffset) : nullptr;

  auto stage = [&](int chunk, HALF *bs) {
    HALF *cs = bs + Q * NS, *xs = cs + Q * NS;
    #pragma unroll 2
    for (int i = thread; i < Q * 2 * KT; i += 32 * WARPS) {
      int r = i / (2 * KT), n = i % (2 * KT) * 8, t = chunk * Q + r;
      stage8<N % 8 == 0>(bs + r * NS + n, b + (rows + t) * bStride + n, N - n, t < real);
      stage8<N % 8 == 0>(cs + r * NS + n, c + (rows + t) * cStride + n, N - n, t < real);
    }
    #pragma unroll 2
    for (int i = thread; i < Q * XP; i += 32 * WARPS) {
      int r = i / XP, p = i % XP * 8, t = chunk * Q + r;
      stage8<true>(xs + x_place(r, p), x + (rows + t) * xStride + base + p, padded - base - p, t < real);
    }
  };
  /* Writes y from where x was; each thread takes the pieces that it stages next. */
  auto store_y = [&](int chunk, const HALF *xs) {
    for (int i = thread; i < Q * XP; i += 32 * WARPS) {
      int r = i / XP, p = i % XP * 8, t = chunk * Q + r, at = base + p;
      if (t >= length || at >= end) continue;
      const HALF *from = xs + x_place(r, p);
      TY *to = y + (rows + t) * yStride + at;
      if (at >= start && at + 8 <= min(end, channels)) store8(to, from);
      else {
        for (int e = 0; e < 8; e++) {
          if (at + e >= start && at + e < end) to[e] = from_float<TY>(at + e < channels ? to_float(from[e]) : 0.0f);
        }
      }
    }
  };

  float raw[HEADS][2], bias[HEADS], rate[HEADS];
  /* Of a warp's one head a chunk ahead; of several, for want of registers, while the warp waits for the others. */
  auto load_raw = [&](int chunk) {
    #pragma unroll
    for (int h = 0; h < HEADS; h++) {
      int at = min(head + h, heads - 1);
      bias[h] = dtBias[at];
      rate[h] = aLog[at];
      #pragma unroll
      for (int e = 0; e < 2; e++) {
        int t = chunk * Q + 2 * lane + e;
        raw[h][e] = t < real && head + h < heads ? to_float(dt[(rows + t) * dtStride + head + h]) : 0.0f;
      }
    }
  };
  stage(0, stages);
  copy_async_commit();
  if (HEADS == 1) load_raw(0);

  /* Where the row of accumulator e of a tile lies in the state, if it has one; pairs of accumulators are neighbours. */
  auto state_row = [&](int h, int m, int e) {
    int p = p0 + 16 * m + g + 8 * (e >> 1);
    bool there = state && head + h < heads && p < P && (2 * m + (e >> 1) < TILES);
    return there ? state + ((i64)(head + h) * P + p) * N : nullptr;
  };
  float s[HEADS][MT][2 * KT][4];
  #pragma unroll
  for (int h = 0; h < HEADS; h++) {
    if (lane < 8 * TILES) {
      int p = p0 + lane;
      skips[h * 8 * TILES + lane] = p < P && head + h < heads ? d[dPerChannel ? (head + h) * P + p : head + h] : 0.0f;
    }
    #pragma unroll
    for (int m = 0; m < MT; m++) {
      #pragma unroll
      for (int k = 0; k < 2 * KT; k++) {
        #pragma unroll
        for (int e = 0; e < 4; e += 2) {
          int n = 8 * k + 2 * q;
          float2 v = make_float2(0.0f, 0.0f);
          if (state_row(h, m, e) && n < N) {
            const float *from = state_row(h, m, e) + n;
            if (N % 2 == 0) v = *(const float2 *)from;
            else v = make_float2(from[0], n + 1 < N ? from[1] : 0.0f);
          }
          s[h][m][k][e] = v.x;
          s[h][m][k][e + 1] = v.y;
        }
      }
    }
  }

  for (int chunk = 0; chunk < chunks; chunk++) {
    HALF *bs = stages + (chunk & 1) * STAGE, *cs = bs + Q * NS, *xs = cs + Q * NS, *other = stages + (~chunk & 1) * STAGE;
    if (HEADS > 1) load_raw(chunk);
    copy_async_wait<0>();
    __syncthreads();
    if (chunk > 0) store_y(chunk - 1, other + 2 * Q * NS);
    if (chunk + 1 < chunks) stage(chunk + 1, other);
    copy_async_commit();
    /* Row tiles of 16 steps, in pairs, that have a real step. */
    int tiles = real - chunk * Q > 32 ? 4 : 2;

    if (active) {
      #pragma unroll
      for (int h = 0; h < HEADS; h++) {
        float step[2], decay[2];
        float slope = fmaxf(-expf(rate[h]) * LOG2E, -1e30f);
        #pragma unroll
        for (int e = 0; e < 2; e++) {
          bool valid = chunk * Q + 2 * lane + e < real && head + h < heads;
          step[e] = valid ? step_size(raw[h][e], bias[h], dtMin, dtMax) : 0.0f;
          /* 2^-150 is zero, and smaller sums have more digits. */
          decay[e] = fmaxf(slope * step[e], -150.0f);
        }
        float sum = decay[0] + decay[1];
        #pragma unroll
        for (int distance = 1; distance < 32; distance <<= 1) {
          float before = __shfl_up_sync(FULL_WARP, sum, distance);
          if (lane >= distance) sum += before;
        }
        float before = __shfl_up_sync(FULL_WARP, sum, 1);
        float first = (lane > 0 ? before : 0.0f) + decay[0], second = first + decay[1];
        *(float2 *)(sums + h * Q + 2 * lane) = make_float2(first, second);
        *(float2 *)(sources + h * Q + 2 * lane) = make_float2(first - log2f(step[0]), second - log2f(step[1]));
      }
      if (HEADS == 1) load_raw(chunk + 1);
    }

    /* Tiles of c . b on and below the diagonal. */
    for (int tile = warp; tile < tiles * (tiles + 1) / 2; tile += WARPS) {
      int i = tile >= 6 ? 3 : tile >= 3 ? 2 : tile >= 1 ? 1 : 0, j = tile - i * (i + 1) / 2;
      /* Even and odd k apart: half as long a chain of products. */
      float low[2][4] = {}, high[2][4] = {};
      const HALF *crow = cs + (16 * i + (lane & 15)) * NS + (lane >> 4) * 8;
      const HALF *brow = bs + (16 * j + (lane >> 4) * 8 + (lane & 7)) * NS + ((lane >> 3) & 1) * 8;
      #pragma unroll
      for (int k = 0; k < KT; k++) {
        u32 ca[4], bb[4];
        ldmatrix4(ca, crow + 16 * k);
        ldmatrix4(bb, brow + 16 * k);
        u32 left[2] = {bb[0], bb[1]}, right[2] = {bb[2], bb[3]};
        mma16816<HALF>(low[k & 1], ca, left);
        mma16816<HALF>(high[k & 1], ca, right);
      }
      float4 *to = (float4 *)scores + tile * 64 + lane;
      #pragma unroll
      for (int e = 0; e < 4; e++) {
        low[0][e] += low[1][e];
        high[0][e] += high[1][e];
      }
      to[0] = make_float4(low[0][0], low[0][1], low[0][2], low[0][3]);
      to[32] = make_float4(high[0][0], high[0][1], high[0][2], high[0][3]);
    }
    __syncthreads();
    if (!active) continue;

    u32 xf[HEADS][4][TILES][2];
    #pragma unroll
    for (int h = 0; h < HEADS; h++) {
      #pragma unroll
      for (int k = 0; k < 4; k++) {
        #pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
#if P % 8 == 0
          /* Tiles two by two; those past the head's end are zero. */
          bool there = p0 + 8 * tile < P, both = tile + 1 < TILES;
          if (tile % 2 == 0) {
            int row = 16 * k + (lane & 15), at = column + h * P + (there ? 8 * tile : 0);
            if (both) {
              u32 r[4];
              ldmatrix4_transposed(r, xs + x_place(row, at + (p0 + 8 * tile + 8 < P ? (lane >> 4) * 8 : 0)));
              xf[h][k][tile][0] = there ? r[0] : 0;
              xf[h][k][tile][1] = there ? r[1] : 0;
              bool next = p0 + 8 * tile + 8 < P;
              xf[h][k][both ? tile + 1 : 0][0] = next ? r[2] : 0;
              xf[h][k][both ? tile + 1 : 0][1] = next ? r[3] : 0;
            } else {
              u32 r[2];
              ldmatrix2_transposed(r, xs + x_place(row, at));
              xf[h][k][tile][0] = there ? r[0] : 0;
              xf[h][k][tile][1] = there ? r[1] : 0;
            }
          }
#else
          #pragma unroll
          for (int e = 0; e < 2; e++) {
            int row = 16 * k + 8 * e + 2 * q, at = column + h * P + 8 * tile + g;
            u32 pair = 0;
            if (p0 + 8 * tile + g < P) pair = xs[x_place(row, at)].bits | (u32)xs[x_place(row + 1, at)].bits << 16;
            xf[h][k][tile][e] = pair;
          }
#endif
        }
      }
    }
    __syncwarp();

    bool carried = chunk > 0 || state;
    #pragma unroll
    for (int pass = 0; pass < 4 / PASS; pass++) {
      if (PASS * pass >= tiles) continue;
      float out[HEADS][PASS][TILES][4] = {};
      if (carried) {
        const HALF *crow = cs + (16 * PASS * pass + (lane & 15)) * NS + (lane >> 4) * 8;
        #pragma unroll
        for (int k = 0; k < KT; k++) {
          u32 ca[PASS][4];
          #pragma unroll
          for (int m = 0; m < PASS; m++) ldmatrix4(ca[m], crow + 16 * m * NS + 16 * k);
          #pragma unroll
          for (int h = 0; h < HEADS; h++) {
            #pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
              const int e = tile % 2 * 2;
              u32 sb[2];
              sb[0] = pack2<HALF>(s[h][tile / 2][2 * k][e], s[h][tile / 2][2 * k][e + 1]);
              sb[1] = pack2<HALF>(s[h][tile / 2][2 * k + 1][e], s[h][tile / 2][2 * k + 1][e + 1]);
              #pragma unroll
              for (int m = 0; m < PASS; m++) mma16816<HALF>(out[h][m][tile], ca[m], sb);
            }
          }
        }
      }
      #pragma unroll
      for (int m = 0; m < PASS; m++) {
        const int i = PASS * pass + m;
        if (i >= tiles) continue;
        float above[HEADS], below[HEADS];
        #pragma unroll
        for (int h = 0; h < HEADS; h++) {
          above[h] = sums[h * Q + 16 * i + g];
          below[h] = sums[h * Q + 16 * i + g + 8];
          float first = fast_exp2(above[h]), second = fast_exp2(below[h]);
          #pragma unroll
          for (int tile = 0; tile < TILES; tile++) {
            out[h][m][tile][0] *= first;
            out[h][m][tile][1] *= first;
            out[h][m][tile][2] *= second;
            out[h][m][tile][3] *= second;
          }
        }
        #pragma unroll
        for (int j = 0; j <= i; j++) {
          const float4 *score = (const float4 *)scores + (i * (i + 1) / 2 + j) * 64 + lane;
          float4 low = score[0], high = score[32];
          #pragma unroll
          for (int h = 0; h < HEADS; h++) {
            const float *source = sources + h * Q + 16 * j + 2 * q;
            float2 v = *(const float2 *)source, w = *(const float2 *)(source + 8);
            u32 decayed[4];
            if (i == j) {
              /* 2^(a[i] - v[j]) of later steps j may be infinite: they are left out, not multiplied by zero. */
              float near0 = 2 * q <= g ? low.x * fast_exp2(above[h] - v.x) : 0.0f;
              float near1 = 2 * q + 1 <= g ? low.y * fast_exp2(above[h] - v.y) : 0.0f;
              float far0 = 2 * q <= g ? high.z * fast_exp2(below[h] - w.x) : 0.0f;
              float far1 = 2 * q + 1 <= g ? high.w * fast_exp2(below[h] - w.y) : 0.0f;
              decayed[0] = pack2<HALF>(near0, near1);
              decayed[1] = pack2<HALF>(low.z * fast_exp2(below[h] - v.x), low.w * fast_exp2(below[h] - v.y));
              decayed[2] = 0;
              decayed[3] = pack2<HALF>(far0, far1);
            } else {
              decayed[0] = pack2<HALF>(low.x * fast_exp2(above[h] - v.x), low.y * fast_exp2(above[h] - v.y));
              decayed[1] = pack2<HALF>(low.z * fast_exp2(below[h] - v.x), low.w * fast_exp2(below[h] - v.y));
              decayed[2] = pack2<HALF>(high.x * fast_exp2(above[h] - w.x), high.y * fast_exp2(above[h] - w.y));
              decayed[3] = pack2<HALF>(high.z * fast_exp2(below[h] - w.x), high.w * fast_exp2(below[h] - w.y));
            }
            #pragma unroll
            for (int tile = 0; tile < TILES; tile++) mma16816<HALF>(out[h][m][tile], decayed, xf[h][j][tile]);
          }
        }
        /* + d x, in the place of x. */
        #pragma unroll
        for (int h = 0; h < HEADS; h++) {
          #pragma unroll
          for (int tile = 0; tile < TILES; tile++) {
            float2 skip = *(const float2 *)(skips + (h * TILES + tile) * 8 + 2 * q);
            int p = p0 + 8 * tile + 2 * q, at = column + h * P + 8 * tile + 2 * q;
            #pragma unroll
            for (int e = 0; e < 2; e++) {
              float first = out[h][m][tile][2 * e], second = out[h][m][tile][2 * e + 1];
#if P % 2 == 0
              if (p < P) {
                u32 *to = (u32 *)(xs + x_place(16 * i + g + 8 * e, at));
                *to = pack2<HALF>(fmaf(skip.x, low_half(*to), first), fmaf(skip.y, high_half(*to), second));
              }
#else
              HALF *to = xs + x_place(16 * i + g + 8 * e, at), *next = xs + x_place(16 * i + g + 8 * e, at + 1);
              if (p < P) *to = from_float<HALF>(fmaf(skip.x, to_float(*to), first));
              if (p + 1 < P) *next = from_float<HALF>(fmaf(skip.y, to_float(*next), second));
#endif
            }
          }
        }
      }
    }

    if (chunk + 1 == chunks && !state) continue;
    #pragma unroll
    for (int h = 0; h < HEADS; h++) {
      float decay = fast_exp2(sums[h * Q + Q - 1]);
      #pragma unroll
      for (int m = 0; m < MT; m++) {
        #pragma unroll
        for (int k = 0; k < 2 * KT; k++) {
          #pragma unroll
          for (int e = 0; e < 4; e++) s[h][m][k][e] *= decay;
        }
      }
    }
    #pragma unroll
    for (int j = 0; j < 4; j++) {
      if (j >= tiles) continue;
      u32 xa[HEADS][MT][4];
      #pragma unroll
      for (int h = 0; h < HEADS; h++) {
        float last = sums[h * Q + Q - 1];
        const float *source = sources + h * Q + 16 * j + 2 * q;
        float2 v = *(const float2 *)source, w = *(const float2 *)(source + 8);
        float v0 = fast_exp2(last - v.x), v1 = fast_exp2(last - v.y), w0 = fast_exp2(last - w.x), w1 = fast_exp2(last - w.y);
        #pragma unroll
        for (int m = 0; m < MT; m++) {
          xa[h][m][0] = scale_pair(xf[h][j][2 * m][0], v0, v1);
          xa[h][m][2] = scale_pair(xf[h][j][2 * m][1], w0, w1);
          const bool both = 2 * m + 1 < TILES;
          xa[h][m][1] = both ? scale_pair(xf[h][j][both ? 2 * m + 1 : 0][0], v0, v1) : 0;
          xa[h][m][3] = both ? scale_pair(xf[h][j][both ? 2 * m + 1 : 0][1], w0, w1) : 0;
        }
      }
      const HALF *brow = bs + (16 * j + (lane & 15)) * NS + (lane >> 4) * 8;
      #pragma unroll
      for (int k = 0; k < KT; k++) {
        u32 bb[4];
        ldmatrix4_transposed(bb, brow + 16 * k);
        u32 left[2] = {bb[0], bb[1]}, right[2] = {bb[2], bb[3]};
        #pragma unroll
        for (int h = 0; h < HEADS; h++) {
          #pragma unroll
          for (int m = 0; m < MT; m++) {
            mma16816<HALF>(s[h][m][2 * k], xa[h][m], left);
            mma16816<HALF>(s[h][m][2 * k + 1], xa[h][m], right);
          }
        }
      }
    }
  }

  __syncthreads();
  if (chunks > 0) store_y(chunks - 1, stages + (~chunks & 1) * STAGE + 2 * Q * NS);
  /* Steps past the last chunk, and the pad columns that have no place among the pieces. */
  int done = min(chunks * Q, length);
  for (int i = thread; i < (length - done) * (end - start); i += 32 * WARPS) {
    y[(rows + done + i / (end - start)) * yStride + start + i % (end - start)] = from_float<TY>(0.0f);
  }
  int pads = max(end - max(start, base + 8 * XP), 0);
  for (int i = thread; i < done * pads; i += 32 * WARPS) {
    y[(rows + i / pads) * yStride + end - pads + i % pads] = from_float<TY>(0.0f);
  }
  if (state && active && chunks > 0) {
    #pragma unroll
    for (int h = 0; h < HEADS; h++) {
      #pragma unroll
      for (int m = 0; m < MT; m++) {
        #pragma unroll
        for (int k = 0; k < 2 * KT; k++) {
          #pragma unroll
          for (int e = 0; e < 4; e += 2) {
            int n = 8 * k + 2 * q;
            float *to = state_row(h, m, e);
            if (!to || n >= N) continue;
            if (N % 2 == 0) *(float2 *)(to + n) = make_float2(s[h][m][k][e], s[h][m][k][e + 1]);
            else {
              to[n] = s[h][m][k][e];
              if (n + 1 < N) to[n + 1] = s[h][m][k][e + 1];
            }
          }
        }
      }
    }
  }
}
`;
