/* The arithmetic of warp collectives: every lane's operands are there, the results are written to all of them. */
#include "runtime.h"
#include <bit>
#include <cstring>

namespace emulator {

static float table[2][65536];
static const bool filled = [] {
  for (int i = 0; i < 65536; i++) {
    uint16_t bits = (uint16_t)i;
    table[0][i] = decode(&bits, 0, 1);
    table[1][i] = decode(&bits, 0, 2);
  }
  return true;
}();

static const char *shuffle(int kind, unsigned mask, void *const *operands) {
  for (int lane = 0; lane < 32; lane++) {
    if (!(mask >> lane & 1)) continue;
    auto &own = *(EmuShuffle *)operands[lane];
    bool fits = own.width >= 1 && own.width <= 32 && (own.width & (own.width - 1)) == 0;
    if (!fits) return "a shuffle's width must be a power of 2 up to 32";
    int first = lane & ~(own.width - 1), last = first + own.width - 1, from = lane;
    if (kind == EMU_SHUFFLE) from = first + (own.lane & (own.width - 1));
    if (kind == EMU_SHUFFLE_UP) from = lane - own.lane < first ? lane : lane - own.lane;
    if (kind == EMU_SHUFFLE_DOWN) from = lane + own.lane > last ? lane : lane + own.lane;
    if (kind == EMU_SHUFFLE_XOR) from = (lane ^ own.lane) > last ? lane : lane ^ own.lane;
    if (from < 0 || from > 31) return "a shuffle reads a lane beyond the warp";
    if (!(mask >> from & 1)) return "a shuffle reads a lane that is not in its mask";
    own.result = ((EmuShuffle *)operands[from])->value;
  }
  return nullptr;
}

/* Registers of lane 4 g + t. a: rows g and g + 8, columns 2 t, 2 t + 1 (registers 0, 1) and 8 more (2, 3);
   b: rows 2 t, 2 t + 1 (register 0) and 8 more (1), column g; d: rows g (0, 1) and g + 8 (2, 3), columns 2 t, 2 t + 1. */
static void product(void *const *operands, const float *decoded) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; lane++) {
    auto &own = *(EmuProduct *)operands[lane];
    int g = lane >> 2, t = lane & 3;
    for (int r = 0; r < 4; r++) {
      for (int half = 0; half < 2; half++) {
        a[g + 8 * (r & 1)][2 * t + half + 8 * (r >> 1)] = decoded[own.a[r] >> (16 * half) & 0xffff];
      }
    }
    for (int r = 0; r < 2; r++) {
      for (int half = 0; half < 2; half++) b[2 * t + half + 8 * r][g] = decoded[own.b[r] >> (16 * half) & 0xffff];
    }
  }
  float sums[16][8];
  for (int row = 0; row < 16; row++) {
    double sum[8] = {};
    for (int k = 0; k < 16; k++) {
      for (int column = 0; column < 8; column++) sum[column] += (double)a[row][k] * b[k][column];
    }
    for (int column = 0; column < 8; column++) {
      float *d = ((EmuProduct *)operands[4 * (row & 7) + (column >> 1)])->d + 2 * (row >> 3) + (column & 1);
      sums[row][column] = (float)(*d + sum[column]);
    }
  }
  for (int lane = 0; lane < 32; lane++) {
    float *d = ((EmuProduct *)operands[lane])->d;
    for (int i = 0; i < 4; i++) d[i] = sums[(lane >> 2) + 8 * (i >> 1)][2 * (lane & 3) + (i & 1)];
  }
}

/* Lane 8 j + i gives row i of tile j. Lane 4 g + t gets elements 2 t, 2 t + 1 of row g, or of column g when transposed. */
static const char *load_matrices(void *const *operands, int tiles, bool transposed, bool (*in_shared)(const void *)) {
  uint16_t cells[4][8][8];
  for (int lane = 0; lane < 8 * tiles; lane++) {
    const void *row = ((EmuMatrix *)operands[lane])->row;
    if ((uintptr_t)row % 16 != 0) return "ldmatrix needs rows aligned to 16 bytes";
    if (!in_shared(row)) return "ldmatrix reads memory that is not shared memory";
    memcpy(cells[lane >> 3][lane & 7], row, 16);
  }
  for (int lane = 0; lane < 32; lane++) {
    unsigned *registers = ((EmuMatrix *)operands[lane])->registers;
    int g = lane >> 2, t = lane & 3;
    for (int tile = 0; tile < tiles; tile++) {
      auto &cell = cells[tile];
      unsigned low = transposed ? cell[2 * t][g] : cell[g][2 * t], high = transposed ? cell[2 * t + 1][g] : cell[g][2 * t + 1];
      registers[tile] = low | high << 16;
    }
  }
  return nullptr;
}

const char *perform(int kind, unsigned mask, void *const *operands, bool (*in_shared)(const void *)) {
  switch (kind) {
    case EMU_SHUFFLE:
    case EMU_SHUFFLE_UP:
    case EMU_SHUFFLE_DOWN:
    case EMU_SHUFFLE_XOR:
      return shuffle(kind, mask, operands);
    case EMU_BALLOT: {
      unsigned votes = 0;
      for (int lane = 0; lane < 32; lane++) {
        if (mask >> lane & 1 && ((EmuShuffle *)operands[lane])->value) votes |= 1u << lane;
      }
      for (int lane = 0; lane < 32; lane++) {
        if (mask >> lane & 1) ((EmuShuffle *)operands[lane])->result = votes;
      }
      return nullptr;
    }
    case EMU_MMA_BF16:
    case EMU_MMA_F16:
      product(operands, table[kind == EMU_MMA_F16]);
      return nullptr;
    case EMU_LDMATRIX2:
    case EMU_LDMATRIX4:
    case EMU_LDMATRIX2_TRANSPOSED:
    case EMU_LDMATRIX4_TRANSPOSED:
      return load_matrices(operands, kind == EMU_LDMATRIX4 || kind == EMU_LDMATRIX4_TRANSPOSED ? 4 : 2,
                           kind == EMU_LDMATRIX2_TRANSPOSED || kind == EMU_LDMATRIX4_TRANSPOSED, in_shared);
    default:
      return nullptr;
  }
}

}  // namespace emulator
