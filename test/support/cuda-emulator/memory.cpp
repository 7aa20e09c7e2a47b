/*
 * The emulated device's memory and its matrix products. Memory comes filled with 0xff bytes (NaN, or -1) between two
 * guards of the same bytes that nothing may write.
 */
#include "runtime.h"
#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

namespace emulator {

static constexpr size_t GUARD = 256;
static std::map<uintptr_t, size_t> pieces;
static char message[2048];
static bool has_failed = false;

void fail(const char *format, ...) {
  if (has_failed) return;
  has_failed = true;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
}

bool failed() { return has_failed; }

static bool intact(const char *guard) {
  return std::all_of(guard, guard + GUARD, [](char c) { return c == (char)0xff; });
}

bool check_range(const void *begin, size_t bytes, const char *what) {
  if (bytes == 0) return true;
  auto next = pieces.upper_bound((uintptr_t)begin);
  if (next != pieces.begin()) {
    auto &[start, size] = *std::prev(next);
    if ((uintptr_t)begin + bytes <= start + size) return true;
  }
  fail("%s: %zu bytes at %p are not within a piece of device memory", what, bytes, begin);
  return false;
}

bool check_guards(const char *after) {
  for (auto &[start, size] : pieces) {
    bool before = !intact((char *)start - GUARD), behind = !intact((char *)start + size);
    if (!before && !behind) continue;
    memset((char *)start - GUARD, 0xff, GUARD);
    memset((char *)start + size, 0xff, GUARD);
    fail("%s: something was written %s the %zu bytes of device memory at %p", after, before ? "in front of" : "behind", size,
         (void *)start);
    return false;
  }
  return true;
}

/* Elements: 0 float32, 1 bf16, 2 f16. */
float decode(const void *p, size_t index, int element) {
  if (element == 0) return ((const float *)p)[index];
  uint16_t bits = ((const uint16_t *)p)[index];
  if (element == 1) {
    uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
  }
  int exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
  float size = fraction ? NAN : INFINITY;
  if (exponent < 31) size = std::ldexp((float)(exponent ? fraction + 1024 : fraction), std::max(exponent, 1) - 25);
  return bits & 0x8000 ? -size : size;
}

void encode(void *p, size_t index, int element, float x) {
  if (element == 0) {
    ((float *)p)[index] = x;
    return;
  }
  uint16_t &out = ((uint16_t *)p)[index];
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if (std::isnan(x)) {
    out = 0x7fff;
  } else if (element == 1) {
    out = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  } else {
    int exponent;
    float size = std::fabs(x);
    std::frexp(size, &exponent);
    if (size == 0.0f) exponent = -100;
    /* The spacing of f16 around x; rint rounds ties to even. */
    int spacing = std::max(exponent - 11, -24);
    float steps = std::rint(std::ldexp(size, -spacing));
    bool fits = std::isfinite(x) && std::ldexp(steps, spacing) <= 65504.0f;
    uint32_t whole = fits ? (uint32_t)(steps + 1024.0f * (float)(spacing + 24)) : 0x7c00;
    out = (uint16_t)((bits >> 16 & 0x8000) | whole);
  }
}

}  // namespace emulator

using namespace emulator;

extern "C" {

struct EmuOperand {
  void *pointer;
  int64_t stride, batch_stride;
  int32_t element, transposed;
};

/* Null when there was no error since the last call. */
const char *emu_error() {
  const char *text = has_failed ? message : nullptr;
  has_failed = false;
  return text;
}

uint64_t emu_allocate(uint64_t bytes) {
  size_t whole = (bytes + 2 * GUARD + 255) / 256 * 256;
  char *base = (char *)aligned_alloc(256, whole);
  if (!base) return 0;
  memset(base, 0xff, whole);
  pieces[(uintptr_t)base + GUARD] = bytes;
  return (uint64_t)base + GUARD;
}

int emu_free(uint64_t pointer) {
  auto piece = pieces.find(pointer);
  if (piece == pieces.end()) {
    fail("free: %p is no device memory", (void *)pointer);
    return 1;
  }
  bool good = check_guards("free");
  pieces.erase(piece);
  free((char *)pointer - GUARD);
  return !good;
}

uint64_t emu_host_allocate(uint64_t bytes) {
  char *base = (char *)aligned_alloc(4096, (bytes + 4095) / 4096 * 4096 + (bytes == 0) * 4096);
  if (base) memset(base, 0, bytes);
  return (uint64_t)base;
}

void emu_host_free(uint64_t pointer) { free((void *)pointer); }

int emu_copy_in(uint64_t device, const void *from, uint64_t bytes) {
  if (!check_range((void *)device, bytes, "copy to the device")) return 1;
  memcpy((void *)device, from, bytes);
  return 0;
}

int emu_copy_out(void *to, uint64_t device, uint64_t bytes) {
  if (!check_range((void *)device, bytes, "copy from the device")) return 1;
  memcpy(to, (void *)device, bytes);
  return 0;
}

int emu_zero(uint64_t device, uint64_t bytes) {
  if (!check_range((void *)device, bytes, "fill")) return 1;
  memset((void *)device, 0, bytes);
  return 0;
}

static void to_rows(const EmuOperand &x, int64_t batch, int64_t rows, int64_t columns, std::vector<float> &out) {
  for (int64_t row = 0; row < rows; row++) {
    for (int64_t column = 0; column < columns; column++) {
      int64_t index = batch * x.batch_stride + (x.transposed ? column * x.stride + row : row * x.stride + column);
      out[(size_t)(row * columns + column)] = decode(x.pointer, (size_t)index, x.element);
    }
  }
}

static bool check_operand(const EmuOperand &x, int64_t batches, int64_t rows, int64_t columns, const char *what) {
  if (x.transposed) std::swap(rows, columns);
  int64_t last = (batches - 1) * x.batch_stride + (rows - 1) * x.stride + columns;
  if (x.stride < columns && rows > 1) {
    fail("%s: a stride of %lld elements for rows of %lld", what, (long long)x.stride, (long long)columns);
    return false;
  }
  return check_range(x.pointer, (size_t)last * (x.element ? 2 : 4), what);
}

/* d = a b (+ d) with sums in float64, rounded once. */
int emu_gemm(const EmuOperand *operands, int64_t m, int64_t n, int64_t k, int64_t batches, int accumulate) {
  const EmuOperand &a = operands[0], &b = operands[1], &d = operands[2];
  if (m <= 0 || n <= 0 || batches <= 0) return 0;
  if (k > 0 && !check_operand(a, batches, m, k, "product, operand a")) return 1;
  if (k > 0 && !check_operand(b, batches, k, n, "product, operand b")) return 1;
  if (!check_operand(d, batches, m, n, "product, result")) return 1;
  constexpr int64_t ROWS = 4, COLUMNS = 64;
  std::vector<float> left((size_t)(m * k)), right((size_t)(k * n));
  for (int64_t batch = 0; batch < batches; batch++) {
    if (batch == 0 || a.batch_stride) to_rows(a, batch, m, k, left);
    if (batch == 0 || b.batch_stride) to_rows(b, batch, k, n, right);
    for (int64_t column0 = 0; column0 < n; column0 += COLUMNS) {
      int64_t columns = std::min(COLUMNS, n - column0);
      for (int64_t row0 = 0; row0 < m; row0 += ROWS) {
        int64_t rows = std::min(ROWS, m - row0);
        double sums[ROWS][COLUMNS] = {};
        for (int64_t i = 0; i < k; i++) {
          const float *from = &right[(size_t)(i * n + column0)];
          for (int64_t row = 0; row < rows; row++) {
            double factor = left[(size_t)((row0 + row) * k + i)];
            for (int64_t column = 0; column < columns; column++) sums[row][column] += factor * from[column];
          }
        }
        for (int64_t row = 0; row < rows; row++) {
          for (int64_t column = 0; column < columns; column++) {
            int64_t r = row0 + row, c = column0 + column;
            size_t index = (size_t)(batch * d.batch_stride + (d.transposed ? c * d.stride + r : r * d.stride + c));
            double sum = sums[row][column] + (accumulate ? decode(d.pointer, index, d.element) : 0.0f);
            encode(d.pointer, index, d.element, (float)sum);
          }
        }
      }
    }
  }
  return 0;
}
}
