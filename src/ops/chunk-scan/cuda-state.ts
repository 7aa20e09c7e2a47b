/** Part of the chunked CUDA kernel of the chunk scan: a warp's state, where it lies in memory, and how a chunk changes it. */

export const STATE_SOURCE = String.raw`  /*
   * The state: for two tiles of p, accumulators of (16 p, 8 n), rows of p; for the last of an odd number of tiles, of
   * (16 n, 8 p), so that no row is left empty.
   */
  float s[HEADS][STATES][4];
  float *state = nullptr;
  auto find_state = [&](int batch) { state = slotTable ? (float *)(slotTable[slots[batch]] + stateOffset) : nullptr; };
  /* Where accumulators e and e + 1 lie in the state; none: -1. */
  auto state_place = [&](int h, int i, int e, int &second) {
    bool last = i >= PAIRS * 2 * KT;
    int k = last ? i - PAIRS * 2 * KT : i % (2 * KT);
    int p = last ? 8 * (TILES - 1) + 2 * q : 16 * (i / (2 * KT)) + g + 4 * e;
    int n = last ? 16 * k + g + 4 * e : 8 * k + 2 * q;
    bool there = head + h < heads && p0 + p < P && n < N;
    second = there && (last ? p0 + p + 1 < P : n + 1 < N) ? (last ? N : 1) : 0;
    return there ? ((i64)(head + h) * P + p0 + p) * N + n : -1;
  };
  auto load_state = [&]() {
    #pragma unroll
    for (int h = 0; h < HEADS; h++) {
      #pragma unroll
      for (int i = 0; i < STATES; i++) {
        #pragma unroll
        for (int e = 0; e < 4; e += 2) {
          int second;
          i64 at = state_place(h, i, e, second);
          s[h][i][e] = at >= 0 ? state[at] : 0.0f;
          s[h][i][e + 1] = second ? state[at + second] : 0.0f;
        }
      }
    }
  };
  auto store_state = [&]() {
    #pragma unroll
    for (int h = 0; h < HEADS; h++) {
      #pragma unroll
      for (int i = 0; i < STATES; i++) {
        #pragma unroll
        for (int e = 0; e < 4; e += 2) {
          int second;
          i64 at = state_place(h, i, e, second);
          if (at >= 0) state[at] = s[h][i][e];
          if (second) state[at + second] = s[h][i][e + 1];
        }
      }
    }
  };
  /* What a segment of a sequence keeps: this warp's state, and its heads' log decays. */
  int segments = gridDim.z + STATES_ONLY;
  auto place_kept = [&](int batch, int at) { return ((i64)batch * segments + at) * (gridDim.x * WARPS) + unit; };
  auto keep_state = [&](i64 place) {
    #pragma unroll
    for (int h = 0; h < HEADS; h++) {
      #pragma unroll
      for (int i = 0; i < STATES; i++) {
        const float *v = s[h][i];
        kept[((place * HEADS + h) * STATES + i) * 32 + lane] = make_float4(v[0], v[1], v[2], v[3]);
      }
    }
  };
  /* s = s 2^logs + what is kept. */
  auto add_kept = [&](i64 place, bool decayed) {
    #pragma unroll
    for (int h = 0; h < HEADS; h++) {
      float factor = decayed ? fast_exp2(keptDecays[place * HEADS + h]) : 0.0f;
      #pragma unroll
      for (int i = 0; i < STATES; i++) {
        float4 v = kept[((place * HEADS + h) * STATES + i) * 32 + lane];
        float *to = s[h][i];
        to[0] = fmaf(to[0], factor, v.x);
        to[1] = fmaf(to[1], factor, v.y);
        to[2] = fmaf(to[2], factor, v.z);
        to[3] = fmaf(to[3], factor, v.w);
      }
    }
  };
  auto clear_state = [&]() {
    #pragma unroll
    for (int h = 0; h < HEADS; h++) {
      #pragma unroll
      for (int i = 0; i < STATES; i++) {
        #pragma unroll
        for (int e = 0; e < 4; e++) s[h][i][e] = 0.0f;
      }
    }
  };
  auto load_x = [&](u32 (&xf)[HEADS][4][TILES][2], const HALF *xs) {
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
  };
  /* s = s decayed over the chunk + what its steps add. */
  auto update = [&](const u32 (&xf)[HEADS][4][TILES][2], const HALF *bs, const float *table, int tiles) {
    #pragma unroll
    for (int h = 0; h < HEADS; h++) {
      float decay = fast_exp2(table[h * TABLE + Q - 1]);
      #pragma unroll
      for (int i = 0; i < STATES; i++) {
        #pragma unroll
        for (int e = 0; e < 4; e++) s[h][i][e] *= decay;
      }
    }
    #pragma unroll
    for (int j = 0; j < 4; j++) {
      if (j >= tiles) continue;
      u32 xa[HEADS][PAIRS + 1][4], last[HEADS][2];
      #pragma unroll
      for (int h = 0; h < HEADS; h++) {
        const float *factors = table + h * TABLE + 2 * Q + 96 + 16 * j + 2 * q;
        float2 v = *(const float2 *)factors, w = *(const float2 *)(factors + 8);
        #pragma unroll
        for (int m = 0; m < PAIRS; m++) {
          xa[h][m][0] = scale_pair(xf[h][j][2 * m][0], v.x, v.y);
          xa[h][m][1] = scale_pair(xf[h][j][2 * m + 1][0], v.x, v.y);
          xa[h][m][2] = scale_pair(xf[h][j][2 * m][1], w.x, w.y);
          xa[h][m][3] = scale_pair(xf[h][j][2 * m + 1][1], w.x, w.y);
        }
        last[h][0] = scale_pair(xf[h][j][TILES - 1][0], v.x, v.y);
        last[h][1] = scale_pair(xf[h][j][TILES - 1][1], w.x, w.y);
      }
      const HALF *brow = bs + (16 * j + (lane & 15)) * NS + (lane >> 4) * 8;
      #pragma unroll
      for (int k = 0; k < KT; k++) {
        u32 bb[4];
        ldmatrix4_transposed(bb, brow + 16 * k);
        /* b as a right operand, and b^T as a left one: moves cost less than loading it in the other order. */
        u32 left[2] = {bb[0], bb[1]}, right[2] = {bb[2], bb[3]}, rows[4] = {bb[0], bb[2], bb[1], bb[3]};
        #pragma unroll
        for (int h = 0; h < HEADS; h++) {
          #pragma unroll
          for (int m = 0; m < PAIRS; m++) {
            mma16816<HALF>(s[h][(m * KT + k) * 2], xa[h][m], left);
            mma16816<HALF>(s[h][(m * KT + k) * 2 + 1], xa[h][m], right);
          }
          if (TILES % 2 == 1) mma16816<HALF>(s[h][TILES % 2 == 1 ? PAIRS * 2 * KT + k : 0], rows, last[h]);
        }
      }
    }
  };`;
