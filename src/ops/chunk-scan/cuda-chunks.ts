/**
 * CUDA C of the chunk scan by chunks of 64 steps on tensor cores (Dao & Gu 2024, section 6), for 16-bit precisions.
 *
 * A block walks the chunks of some heads in order, of one sequence after the other; a warp has some of their columns (HEADS
 * heads, or a part of one) and keeps their state in registers. With a[i] the sum of the log decays of a chunk's steps up to
 * i, in base 2, and v[j] = a[j] - log2 dt[j], a chunk is
 *
 *   y[i] = 2^a[i] S c[i] + sum over j <= i of (c[i] . b[j]) 2^(a[i] - v[j]) x[j] + d x[i]
 *   S    = 2^a[63] S     + sum over j of 2^(a[63] - v[j]) x[j] (outer) b[j]
 *
 * Products c[i] . b[j] serve all heads: the block computes them once a chunk into shared memory, in the order in which the
 * lanes of a warp hold the tiles that they multiply with x. Between two barriers a warp has y and S of one chunk to compute,
 * and its share of the products and the decays of the next: half of the warps take these in the other order, so that
 * products and exponentials go on side by side. Loads are one chunk ahead of that. x[j][p] as a right operand holds the same
 * registers as x^T as a left one, so x is read once from shared memory; y replaces x there, and goes to memory with the
 * next chunk.
 *
 * Where blocks are few, sequences are cut into segments of chunks: a first launch (STATES_ONLY) finds what each segment adds
 * to the state, a second one has all segments at once and sums up what was kept before its own.
 *
 * A chunk of eight warps with a head of 24 channels each takes some 10,000 cycles, of 2,000 instructions a warp.
 *
 * Defines: HALF; TX, TB, TC, TDT, TY; N, P; WARPS; HEADS of a warp; PARTS, warps that share a head (then HEADS is 1); TILES,
 * 8-column tiles of each of these heads that the warp has; XP, 8-column pieces of x that the block has; STAGES, chunks whose
 * b and c have room in shared memory, 3 or 2; STATES_ONLY.
 */

import { SCAN_PARAMETERS } from './cuda-parameters.ts';
import { PRODUCTS_SOURCE } from './cuda-products.ts';
import { STAGING } from './cuda-staging.ts';
import { STATE_SOURCE } from './cuda-state.ts';

export const CHUNKS_SOURCE = String.raw`${SCAN_PARAMETERS}${STAGING}
/* Grid (groups of WARPS warps' columns, blocks that share the batch, segments); segment: chunks of a segment. */
extern "C" __global__ void __launch_bounds__(32 * WARPS) scan_chunks(PARAMETERS, int batches, int segment, float4 *kept, float *keptDecays) {
  extern __shared__ uint4 shared[];
  int thread = threadIdx.x, warp = thread >> 5, lane = thread & 31, g = lane >> 2, q = lane & 3;
  HALF *stages = (HALF *)shared;
  HALF *inputs = stages + (STATES_ONLY ? 2 : STAGES) * STAGE;
  TDT *rates = (TDT *)(inputs + 2 * Q * XS);
  float *scores = (float *)(rates + 2 * Q * DS);
  /* This warp's tables of two chunks, of each head, and d [HEADS][8 TILES]. */
  float *tables = scores + 2 * SCORES + warp * HEADS * (2 * TABLE + 8 * TILES), *skips = tables + 2 * HEADS * TABLE;

  int channels = heads * P, padded = (channels + 15) / 16 * 16;
  auto column_of = [&](int unit) { return PARTS > 1 ? unit / PARTS * P + unit % PARTS * (8 * TILES) : unit * (HEADS * P); };
  int start = column_of(blockIdx.x * WARPS), end = column_of((blockIdx.x + 1) * WARPS), base = start & ~7;
  if (end >= channels) end = padded;
  int unit = blockIdx.x * WARPS + warp;
  int head = unit / PARTS * HEADS, p0 = unit % PARTS * (8 * TILES);
  bool active = head < heads;
  int column = head * P + p0 - base;
  auto real_of = [&](int batch) { return lengths ? max(min(lengths[batch], length), 0) : length; };

  /* A chunk: batch is batches behind the last. */
  struct Place { int batch, chunk, real; };
  auto stop_of = [&](const Place &p) { return min((p.real + Q - 1) / Q, (int)(blockIdx.z + 1) * segment); };
  auto open = [&](Place &p) {
    for (; p.batch < batches; p.batch += gridDim.y) {
      p.real = real_of(p.batch);
      p.chunk = blockIdx.z * segment;
      if (p.chunk < stop_of(p)) return;
    }
  };
  auto advance = [&](Place p) {
    if (p.batch < batches && ++p.chunk == stop_of(p)) {
      p.batch += gridDim.y;
      open(p);
    }
    return p;
  };

  auto stage = [&](const Place &p, HALF *bs) {
    i64 first = (i64)p.batch * length + p.chunk * Q;
    int count = p.real - p.chunk * Q;
    auto place = [&](int r, int n) { return r * NS + n; };
    stage_rows<2 * KT, N % 8 == 0>(bs, place, b + first * bStride, bStride, N, count);
#if !STATES_ONLY
    stage_rows<2 * KT, N % 8 == 0>(bs + Q * NS, place, c + first * cStride, cStride, N, count);
#endif
  };
  /* dt as it is: PIECE columns together, from one at a multiple of PIECE on. */
  int firstHead = blockIdx.x * WARPS / PARTS * HEADS, rateBase = firstHead - firstHead % PIECE;
  auto stage_rates = [&](const Place &p, TDT *to) {
    i64 first = (i64)p.batch * length + p.chunk * Q;
    for (int i = thread; i < Q * DP; i += 32 * WARPS) {
      int r = i / DP, at = i % DP * PIECE;
      bool valid = r < p.real - p.chunk * Q && rateBase + at < (heads + 15) / 16 * 16;
      copy_async16(to + r * DS + at, dt + (valid ? (first + r) * dtStride + rateBase + at : 0), valid);
    }
  };
  auto stage_x = [&](const Place &p, HALF *xs) {
    i64 first = (i64)p.batch * length + p.chunk * Q;
    stage_rows<XP, true>(xs, x_place, x + first * xStride + base, xStride, padded - base, p.real - p.chunk * Q);
  };
  float bias[HEADS], slope[HEADS];
  auto prepare = [&](const Place &p, const TDT *rates, float *table) {
    const TDT *raw = rates + 2 * lane * DS + head - rateBase;
    #pragma unroll
    for (int h = 0; h < HEADS; h++, table += TABLE) {
      float step[2], decay[2];
      #pragma unroll
      for (int e = 0; e < 2; e++) {
        bool valid = p.chunk * Q + 2 * lane + e < p.real && head + h < heads;
        step[e] = valid ? quick_step(to_float(raw[e * DS + h]), bias[h], dtMin, dtMax) : 0.0f;
        /* 2^-150 is zero, and smaller sums have more digits. */
        decay[e] = fmaxf(slope[h] * step[e], -150.0f);
      }
      float sum = decay[0] + decay[1];
      #pragma unroll
      for (int distance = 1; distance < 32; distance <<= 1) {
        float before = __shfl_up_sync(FULL_WARP, sum, distance);
        if (lane >= distance) sum += before;
      }
      float before = __shfl_up_sync(FULL_WARP, sum, 1);
      float first = (lane > 0 ? before : 0.0f) + decay[0], second = first + decay[1];
      float v = first - fast_log2(step[0]), w = second - fast_log2(step[1]);
      *(float2 *)(table + 2 * lane) = make_float2(first, second);
      *(float2 *)(table + Q + 2 * lane) = make_float2(v, w);
      #pragma unroll
      for (int i = 1; i <= 4; i++) {
        float last = __shfl_sync(FULL_WARP, second, 8 * i - 1);
        if (lane < 8 * i) *(float2 *)(table + 2 * Q + 8 * i * (i - 1) + 2 * lane) = make_float2(fast_exp2(last - v), fast_exp2(last - w));
      }
    }
  };

${STATE_SOURCE}
  Place now = {(int)blockIdx.y, 0, 0};
  open(now);
  Place next = advance(now);
  if (now.batch < batches) {
    stage(now, stages);
    stage_rates(now, rates);
    stage_x(now, inputs);
  }
  copy_async_commit();
  #pragma unroll
  for (int h = 0; h < HEADS; h++) {
    int at = min(head + h, heads - 1);
    bias[h] = dtBias[at];
    slope[h] = fmaxf(-expf(aLog[at]) * LOG2E, -1e30f);
  }

#if STATES_ONLY
  /* The second launch may begin: it reads what ran before this one, until it waits for what is kept here. */
  let_next_kernel_start();
  float logs[HEADS];
  for (int turn = 0; now.batch < batches; turn++) {
    HALF *bs = stages + (turn & 1) * STAGE, *xs = inputs + (turn & 1) * Q * XS;
    float *table = tables;
    copy_async_wait<0>();
    __syncthreads();
    if (next.batch < batches) {
      stage(next, stages + (~turn & 1) * STAGE);
      stage_rates(next, rates + (~turn & 1) * Q * DS);
      stage_x(next, inputs + (~turn & 1) * Q * XS);
    }
    copy_async_commit();
    prepare(now, rates + (turn & 1) * Q * DS, table);
    __syncwarp();
    if (now.chunk == blockIdx.z * segment) {
      clear_state();
      for (int h = 0; h < HEADS; h++) logs[h] = 0.0f;
      if (slotTable && blockIdx.z == 0 && active) {
        find_state(now.batch);
        load_state();
        keep_state(place_kept(now.batch, 0));
      }
    }
    u32 xf[HEADS][4][TILES][2];
    load_x(xf, xs);
    update(xf, bs, table, 4);
    #pragma unroll
    for (int h = 0; h < HEADS; h++) logs[h] += table[h * TABLE + Q - 1];
    if (now.chunk + 1 == stop_of(now) && active) {
      i64 place = place_kept(now.batch, blockIdx.z + 1);
      keep_state(place);
      for (int h = 0; h < HEADS; h++) if (lane == 0) keptDecays[place * HEADS + h] = logs[h];
    }
    __syncwarp();
    now = next;
    next = advance(next);
  }
#else
${PRODUCTS_SOURCE}
  if (blockIdx.z == 0) {
    /* Steps past the last chunk, and the pad columns that have no place among the pieces. */
    for (int batch = blockIdx.y; batch < batches; batch += gridDim.y) {
      int done = min((real_of(batch) + Q - 1) / Q * Q, length);
      for (int i = thread; i < (length - done) * (end - start); i += 32 * WARPS) {
        y[((i64)batch * length + done + i / (end - start)) * yStride + start + i % (end - start)] = from_float<TY>(0.0f);
      }
      int pads = max(end - max(start, base + 8 * XP), 0);
      for (int i = thread; i < done * pads; i += 32 * WARPS) {
        y[((i64)batch * length + i / pads) * yStride + end - pads + i % pads] = from_float<TY>(0.0f);
      }
    }
  }
  if (now.batch >= batches) return;
  #pragma unroll
  for (int h = 0; h < HEADS; h++) {
    int p = p0 + lane;
    if (lane < 8 * TILES) skips[h * 8 * TILES + lane] = p < P && head + h < heads ? d[dPerChannel ? (head + h) * P + p : head + h] : 0.0f;
  }
  if (next.batch < batches) {
    stage(next, stages + STAGE);
    stage_rates(next, rates + Q * DS);
  }
  copy_async_commit();
  copy_async_wait<1>();
  __syncthreads();
  prepare(now, rates, tables);
  score(now, stages, scores);

  /* Warps of a quarter of a multiprocessor take turns: one has products while the other has sums and exponentials. */
  int order = ((warp >> 2) + blockIdx.x) & 1;
  int stored = now.batch, storedChunk = 0;
  HALF *mine = stages, *others = stages + STAGE, *behind = stages + (STAGES - 1) * STAGE;
  bool waited = false;
  int turn = 0;
  for (; now.batch < batches; turn++) {
    bool more = next.batch < batches;
    copy_async_wait<0>();
    __syncthreads();
    HALF *xs = inputs + (turn & 1) * Q * XS, *otherXs = inputs + (~turn & 1) * Q * XS;
    if (turn > 0) store_y(stored, storedChunk, otherXs);
    if (more) stage_x(next, otherXs);
    if (Place after = advance(next); after.batch < batches) {
      stage_rates(after, rates + (turn & 1) * Q * DS);
#if STAGES == 3
      stage(after, behind);
#endif
    }
    copy_async_commit();
    if (now.chunk == blockIdx.z * segment) {
      find_state(now.batch);
      if (kept) {
        if (!waited) wait_for_kernel_before();
        waited = true;
        clear_state();
        if (active && blockIdx.z == 0 && slotTable) add_kept(place_kept(now.batch, 0), false);
        if (active) for (int at = 1; at <= blockIdx.z; at++) add_kept(place_kept(now.batch, at), at > 1);
      } else if (state) load_state();
      else clear_state();
    }
    float *table = tables + (turn & 1) * HEADS * TABLE, *other = tables + (~turn & 1) * HEADS * TABLE;
    #pragma unroll 1
    for (int half = 0; half < 2; half++) {
      if (half == order) {
        if (more && active) prepare(next, rates + (~turn & 1) * Q * DS, other);
        if (more) score(next, others, scores + (~turn & 1) * SCORES);
      } else if (active) multiply(now, mine, xs, scores + (turn & 1) * SCORES, table);
      __syncwarp();
    }
    if (state && active && now.chunk * Q + Q >= now.real) store_state();
#if STAGES == 2
    __syncthreads();
    Place after = advance(next);
    if (after.batch < batches) stage(after, mine);
    copy_async_commit();
#endif
    HALF *first = mine;
    mine = others;
    others = STAGES == 2 ? first : behind;
    behind = first;
    stored = now.batch;
    storedChunk = now.chunk;
    now = next;
    next = advance(next);
  }
  __syncthreads();
  store_y(stored, storedChunk, inputs + (~turn & 1) * Q * XS);
#endif
}
`;
