/** Part of the chunked CUDA kernel of the chunk scan: products c . b of a chunk, its y, and y's way to memory. */

export const PRODUCTS_SOURCE = String.raw`  /* Writes y from where x was; each thread takes the pieces that it stages next. */
  auto store_y = [&](int batch, int chunk, const HALF *xs) {
    i64 first = (i64)batch * length + chunk * Q;
    int count = length - chunk * Q;
    constexpr int ACROSS = power_of_two(XP), STEP = 32 * WARPS / ACROSS;
    int piece = thread % ACROSS * 8, row = thread / ACROSS, at = base + piece;
    if (piece >= 8 * XP || at >= end) return;
    TY *to = y + (first + row) * yStride + at;
    bool whole = at >= start && at + 8 <= min(end, channels);
    if (whole && count >= Q && Q % STEP == 0) {
      #pragma unroll
      for (int k = 0; k * STEP < Q; k++) store8(to + (i64)(k * STEP) * yStride, xs + x_place(row + k * STEP, piece));
    } else {
      for (int r = row; r < min(count, Q); r += STEP, to += (i64)STEP * yStride) {
        const HALF *from = xs + x_place(r, piece);
        if (whole) store8(to, from);
        else {
          for (int e = 0; e < 8; e++) {
            if (at + e >= start && at + e < end) to[e] = from_float<TY>(at + e < channels ? to_float(from[e]) : 0.0f);
          }
        }
      }
    }
  };
  /* Row tiles of 16 steps that have a real step. */
  auto tiles_of = [&](const Place &p) { return min((p.real - p.chunk * Q + 15) / 16, 4); };

  /* Tiles of c . b on and below the diagonal. */
  auto score = [&](const Place &p, const HALF *bs, float *scores) {
    const HALF *cs = bs + Q * NS;
    int tiles = tiles_of(p);
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
  };

  /* y of a chunk, in the place of x, and the state behind it. */
  auto multiply = [&](const Place &p, const HALF *bs, HALF *xs, const float *scores, const float *table) {
    const HALF *cs = bs + Q * NS;
    int tiles = tiles_of(p);
    u32 xf[HEADS][4][TILES][2];
    load_x(xf, xs);
    __syncwarp();
    bool carried = p.chunk > 0 || slotTable;
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
              const bool last = tile == 2 * PAIRS;
              const int e = last ? 0 : tile % 2 * 2, at = last ? PAIRS * 2 * KT + k : (tile / 2 * KT + k) * 2;
              const float *first = s[h][at] + e, *second = last ? first + 2 : s[h][last ? at : at + 1] + e;
              u32 sb[2] = {pack2<HALF>(first[0], first[1]), pack2<HALF>(second[0], second[1])};
              if (last) {
                sb[0] = transpose_tile(sb[0]);
                sb[1] = transpose_tile(sb[1]);
              }
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
        #pragma unroll
        for (int h = 0; h < HEADS; h++) {
          const float *sums = table + h * TABLE, *sources = sums + Q;
          float above = sums[16 * i + g], below = sums[16 * i + g + 8];
          /* Of the steps before these 16: decayed up to the last of them, then from there on. */
          float edge = i > 0 ? sums[i > 0 ? 16 * i - 1 : 0] : 0.0f;
          if (i > 0) {
            float factor = fast_exp2(edge);
            #pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
              #pragma unroll
              for (int e = 0; e < 4; e++) out[h][m][tile][e] *= factor;
            }
          }
          #pragma unroll
          for (int j = 0; j < i; j++) {
            const float4 *score = (const float4 *)scores + (i * (i + 1) / 2 + j) * 64 + lane;
            float4 low = score[0], high = score[32];
            const float *factors = sums + 2 * Q + 8 * i * (i - 1) + 16 * j + 2 * q;
            float2 v = *(const float2 *)factors, w = *(const float2 *)(factors + 8);
            u32 decayed[4];
            decayed[0] = pack2<HALF>(low.x * v.x, low.y * v.y);
            decayed[1] = pack2<HALF>(low.z * v.x, low.w * v.y);
            decayed[2] = pack2<HALF>(high.x * w.x, high.y * w.y);
            decayed[3] = pack2<HALF>(high.z * w.x, high.w * w.y);
            #pragma unroll
            for (int tile = 0; tile < TILES; tile++) mma16816<HALF>(out[h][m][tile], decayed, xf[h][j][tile]);
          }
          float first = fast_exp2(above - edge), second = fast_exp2(below - edge);
          #pragma unroll
          for (int tile = 0; tile < TILES; tile++) {
            out[h][m][tile][0] *= first;
            out[h][m][tile][1] *= first;
            out[h][m][tile][2] *= second;
            out[h][m][tile][3] *= second;
          }
          {
            const float4 *score = (const float4 *)scores + (i * (i + 1) / 2 + i) * 64 + lane;
            float4 low = score[0], high = score[32];
            const float *source = sources + 16 * i + 2 * q;
            float2 v = *(const float2 *)source, w = *(const float2 *)(source + 8);
            /* 2^(a[i] - v[j]) of later steps j may be infinite: they are left out, not multiplied by zero. */
            float near0 = 2 * q <= g ? low.x * fast_exp2(above - v.x) : 0.0f;
            float near1 = 2 * q + 1 <= g ? low.y * fast_exp2(above - v.y) : 0.0f;
            float far0 = 2 * q <= g ? high.z * fast_exp2(below - w.x) : 0.0f;
            float far1 = 2 * q + 1 <= g ? high.w * fast_exp2(below - w.y) : 0.0f;
            u32 decayed[4];
            decayed[0] = pack2<HALF>(near0, near1);
            decayed[1] = pack2<HALF>(low.z * fast_exp2(below - v.x), low.w * fast_exp2(below - v.y));
            decayed[2] = 0;
            decayed[3] = pack2<HALF>(far0, far1);
            #pragma unroll
            for (int tile = 0; tile < TILES; tile++) mma16816<HALF>(out[h][m][tile], decayed, xf[h][i][tile]);
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
    if (p.chunk + 1 < stop_of(p) || (slotTable && p.chunk * Q + Q >= p.real)) update(xf, bs, table, tiles);
  };`;
