/*
 * CUDA C on the host: what the kernels and the prelude use, as C++20 for g++, without any header. It stands in front of
 * the prelude, in the same unnamed namespace, so that every function is local to its kernel library. Threads are fibers
 * of the runtime; whatever needs more than one thread is asked of it through `emu`.
 */
static EmuContext *emu;
static char *emu_dynamic_shared;

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __constant__ static
#define __shared__ static __attribute__((section("emu_shared")))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define INFINITY (__builtin_inff())
#define NAN (__builtin_nanf(""))

#define threadIdx (emu->thread)
#define blockIdx (emu->block)
#define blockDim (emu->block_size)
#define gridDim (emu->grid)
#define warpSize 32

/* Vectors and their makers, aligned as on the device (a misaligned access traps). */
#define EMU_VECTORS(scalar, name) \
  struct __align__(2 * sizeof(scalar)) name##2 { scalar x, y; }; \
  struct name##3 { scalar x, y, z; }; \
  struct __align__(sizeof(scalar) > 4 ? 16 : 4 * sizeof(scalar)) name##4 { scalar x, y, z, w; }; \
  static inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; } \
  static inline name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; } \
  static inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
EMU_VECTORS(float, float)
EMU_VECTORS(double, double)
EMU_VECTORS(int, int)
EMU_VECTORS(unsigned, uint)
EMU_VECTORS(short, short)
EMU_VECTORS(unsigned short, ushort)
EMU_VECTORS(signed char, char)
EMU_VECTORS(unsigned char, uchar)
EMU_VECTORS(long long, longlong)
EMU_VECTORS(unsigned long long, ulonglong)
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

/* Bits. */
template <typename To, typename From> static inline To emu_bits(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  __builtin_memcpy(&y, &x, sizeof(y));
  return y;
}
static inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
static inline int __float_as_int(float x) { return emu_bits<int>(x); }
static inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
static inline float __int_as_float(int x) { return emu_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return emu_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return emu_bits<double>(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz((unsigned)x); }
static inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)x); }
static inline unsigned __umulhi(unsigned x, unsigned y) { return (unsigned)(((unsigned long long)x * y) >> 32); }
static inline int __mulhi(int x, int y) { return (int)(((long long)x * y) >> 32); }
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return (unsigned long long)(((unsigned __int128)x * y) >> 64);
}
static inline int __mul24(int x, int y) { return (int)((unsigned)(x << 8 >> 8) * (unsigned)(y << 8 >> 8)); }
static inline unsigned __umul24(unsigned x, unsigned y) { return (x & 0xffffff) * (y & 0xffffff); }
static inline unsigned __brev(unsigned x) {
  unsigned y = 0;
  for (int i = 0; i < 32; i++) y |= ((x >> i) & 1) << (31 - i);
  return y;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return (unsigned)((((unsigned long long)high << 32 | low) << (shift & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return (unsigned)(((unsigned long long)high << 32 | low) >> (shift & 31));
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  unsigned long long both = (unsigned long long)y << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) {
    unsigned pick = selector >> (4 * i), byte = (unsigned)(both >> (8 * (pick & 7))) & 0xff;
    if (pick & 8) byte = byte & 0x80 ? 0xff : 0;
    result |= byte << (8 * i);
  }
  return result;
}

/* Mathematics. The C library's functions are within an ulp or so of the device's. */
extern "C" {
int printf(const char *, ...);
#define EMU_MATH(name) float name##f(float) noexcept; double name(double) noexcept;
EMU_MATH(exp) EMU_MATH(exp2) EMU_MATH(expm1) EMU_MATH(log) EMU_MATH(log2) EMU_MATH(log10) EMU_MATH(log1p) EMU_MATH(sqrt)
EMU_MATH(cbrt) EMU_MATH(sin) EMU_MATH(cos) EMU_MATH(tan) EMU_MATH(tanh) EMU_MATH(erf) EMU_MATH(erfc) EMU_MATH(fabs)
EMU_MATH(floor) EMU_MATH(ceil) EMU_MATH(trunc) EMU_MATH(round) EMU_MATH(rint) EMU_MATH(sinh) EMU_MATH(cosh) EMU_MATH(atan)
#undef EMU_MATH
#define EMU_MATH(name) float name##f(float, float) noexcept; double name(double, double) noexcept;
EMU_MATH(fmax) EMU_MATH(fmin) EMU_MATH(fmod) EMU_MATH(pow) EMU_MATH(copysign) EMU_MATH(atan2)
#undef EMU_MATH
float fmaf(float, float, float) noexcept;
double fma(double, double, double) noexcept;
float ldexpf(float, int) noexcept;
int abs(int) noexcept;
}
#define EMU_OVERLOAD(name) \
  static inline float name(float x) { return name##f(x); }
EMU_OVERLOAD(exp) EMU_OVERLOAD(exp2) EMU_OVERLOAD(log) EMU_OVERLOAD(log2) EMU_OVERLOAD(log1p) EMU_OVERLOAD(sqrt)
EMU_OVERLOAD(fabs) EMU_OVERLOAD(floor) EMU_OVERLOAD(ceil) EMU_OVERLOAD(tanh)
#undef EMU_OVERLOAD
static inline float abs(float x) { return fabsf(x); }
static inline float rsqrtf(float x) { return (float)(1.0 / sqrt((double)x)); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline bool isnan(float x) { return x != x; }
static inline bool isinf(float x) { return fabsf(x) == INFINITY; }
static inline bool isfinite(float x) { return fabsf(x) < INFINITY; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return rsqrtf(x); }
static inline float __expf(float x) { return expf(x); }
static inline float __logf(float x) { return logf(x); }
static inline float __log2f(float x) { return log2f(x); }
static inline float __powf(float x, float y) { return powf(x, y); }
static inline float __sinf(float x) { return sinf(x); }
static inline float __cosf(float x) { return cosf(x); }
static inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
static inline int __float2int_rn(float x) { return (int)rintf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline int __float2int_rd(float x) { return (int)floorf(x); }
static inline unsigned __float2uint_rn(float x) { return (unsigned)rintf(x); }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
#define EMU_EXTREMA(type) \
  static inline type min(type x, type y) { return x < y ? x : y; } \
  static inline type max(type x, type y) { return x > y ? x : y; }
EMU_EXTREMA(int)
EMU_EXTREMA(unsigned)
EMU_EXTREMA(long)
EMU_EXTREMA(unsigned long)
EMU_EXTREMA(long long)
EMU_EXTREMA(unsigned long long)
#undef EMU_EXTREMA
static inline unsigned min(unsigned x, int y) { return min(x, (unsigned)y); }
static inline unsigned min(int x, unsigned y) { return min((unsigned)x, y); }
static inline unsigned max(unsigned x, int y) { return max(x, (unsigned)y); }
static inline unsigned max(int x, unsigned y) { return max((unsigned)x, y); }
static inline long long min(long long x, int y) { return min(x, (long long)y); }
static inline long long min(int x, long long y) { return min((long long)x, y); }
static inline long long max(long long x, int y) { return max(x, (long long)y); }
static inline long long max(int x, long long y) { return max((long long)x, y); }
static inline float min(float x, float y) { return fminf(x, y); }
static inline float max(float x, float y) { return fmaxf(x, y); }
static inline double min(double x, double y) { return fmin(x, y); }
static inline double max(double x, double y) { return fmax(x, y); }

/* Memory with a caching hint. */
template <typename T> static inline T __ldg(const T *p) { return *p; }
template <typename T> static inline T __ldcg(const T *p) { return *p; }
template <typename T> static inline T __ldca(const T *p) { return *p; }
template <typename T> static inline T __ldcs(const T *p) { return *p; }
template <typename T> static inline T __ldlu(const T *p) { return *p; }
template <typename T> static inline void __stcg(T *p, T x) { *p = x; }
template <typename T> static inline void __stcs(T *p, T x) { *p = x; }
template <typename T> static inline void __stwb(T *p, T x) { *p = x; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

/* Barriers and warp collectives; `site` is the caller's line. */
static inline void __syncthreads(int site = __builtin_LINE()) { emu->barrier(site, 0); }
static inline int __syncthreads_count(int predicate, int site = __builtin_LINE()) { return emu->barrier(site, predicate); }
static inline int __syncthreads_or(int predicate, int site = __builtin_LINE()) { return emu->barrier(site, predicate) != 0; }
static inline int __syncthreads_and(int predicate, int site = __builtin_LINE()) { return emu->barrier(site, !predicate) == 0; }
static inline void __syncwarp(unsigned mask = 0xffffffffu, int site = __builtin_LINE()) {
  emu->collective(EMU_SYNC, site, mask, nullptr);
}
template <typename T> static inline T emu_shuffle(int kind, unsigned mask, T x, int lane, int width, int site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles take values of 4 or 8 bytes");
  EmuShuffle operands = {0, lane, width, 0};
  __builtin_memcpy(&operands.value, &x, sizeof(T));
  emu->collective(kind, site, mask, &operands);
  T y;
  __builtin_memcpy(&y, &operands.result, sizeof(T));
  return y;
}
template <typename T> static inline T __shfl_sync(unsigned mask, T x, int lane, int width = 32, int site = __builtin_LINE()) {
  return emu_shuffle(EMU_SHUFFLE, mask, x, lane, width, site);
}
template <typename T>
static inline T __shfl_up_sync(unsigned mask, T x, unsigned delta, int width = 32, int site = __builtin_LINE()) {
  return emu_shuffle(EMU_SHUFFLE_UP, mask, x, (int)delta, width, site);
}
template <typename T>
static inline T __shfl_down_sync(unsigned mask, T x, unsigned delta, int width = 32, int site = __builtin_LINE()) {
  return emu_shuffle(EMU_SHUFFLE_DOWN, mask, x, (int)delta, width, site);
}
template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T x, int lanes, int width = 32, int site = __builtin_LINE()) {
  return emu_shuffle(EMU_SHUFFLE_XOR, mask, x, lanes, width, site);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, int site = __builtin_LINE()) {
  EmuShuffle operands = {predicate != 0, 0, 32, 0};
  emu->collective(EMU_BALLOT, site, mask, &operands);
  return (unsigned)operands.result;
}
static inline int __any_sync(unsigned mask, int predicate, int site = __builtin_LINE()) {
  return __ballot_sync(mask, predicate, site) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, int site = __builtin_LINE()) {
  return __ballot_sync(mask, predicate, site) == mask;
}
static inline unsigned __activemask() { return 0xffffffffu; }

/* 16-bit floats: rounded to the nearest, ties to even; a NaN stays one. */
struct bf16;
struct f16;
template <typename T> struct EmuHalf { static constexpr int kind = 0; };
template <> struct EmuHalf<bf16> { static constexpr int kind = 1; };
template <> struct EmuHalf<f16> { static constexpr int kind = 2; };
static inline float emu_from_f16(unsigned short bits) {
  unsigned sign = (unsigned)(bits & 0x8000) << 16, exponent = (bits >> 10) & 31, fraction = bits & 0x3ff;
  if (exponent == 0) return __uint_as_float(sign | __float_as_uint((float)fraction * 0x1p-24f));
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | fraction << 13);
  return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}
static inline unsigned short emu_to_f16(float x) {
  unsigned bits = __float_as_uint(x), sign = (bits >> 16) & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) return 0x7fff;
  if (size >= 0x477ff000) return (unsigned short)(sign | 0x7c00);
  /* Below 2^-14 the spacing is 2^-24, which is what adding 2^-1 leaves in a float's last place. */
  if (size < 0x38800000) return (unsigned short)(sign | (__float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000));
  return (unsigned short)(sign | ((size - 0x38000000 + 0xfff + ((size >> 13) & 1)) >> 13));
}
static inline unsigned short emu_to_bf16(float x) {
  unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return (unsigned short)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
static inline float to_float(float x) { return x; }
template <typename T> static inline float to_float(T x) {
  static_assert(EmuHalf<T>::kind != 0);
  if constexpr (EmuHalf<T>::kind == 1) return __uint_as_float((unsigned)x.bits << 16);
  else return emu_from_f16(x.bits);
}
template <typename T> static inline T from_float(float x) {
  T y;
  if constexpr (EmuHalf<T>::kind == 1) y.bits = emu_to_bf16(x);
  else if constexpr (EmuHalf<T>::kind == 2) y.bits = emu_to_f16(x);
  else { static_assert(__is_same(T, float)); y = x; }
  return y;
}
template <typename T> static inline unsigned pack2(float low, float high) {
  return from_float<T>(low).bits | (unsigned)from_float<T>(high).bits << 16;
}

/* Tensor-core and asynchronous instructions. */
template <typename T>
static inline void mma16816(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int site = __builtin_LINE()) {
  static_assert(EmuHalf<T>::kind != 0);
  EmuProduct operands = {d, a, b};
  emu->collective(EmuHalf<T>::kind == 1 ? EMU_MMA_BF16 : EMU_MMA_F16, site, 0xffffffffu, &operands);
}
static inline void emu_ldmatrix(int kind, unsigned *registers, const void *row, int site) {
  EmuMatrix operands = {registers, row};
  emu->collective(kind, site, 0xffffffffu, &operands);
}
static inline void ldmatrix4(unsigned (&r)[4], const void *row, int site = __builtin_LINE()) {
  emu_ldmatrix(EMU_LDMATRIX4, r, row, site);
}
static inline void ldmatrix4_transposed(unsigned (&r)[4], const void *row, int site = __builtin_LINE()) {
  emu_ldmatrix(EMU_LDMATRIX4_TRANSPOSED, r, row, site);
}
static inline void ldmatrix2(unsigned (&r)[2], const void *row, int site = __builtin_LINE()) {
  emu_ldmatrix(EMU_LDMATRIX2, r, row, site);
}
static inline void ldmatrix2_transposed(unsigned (&r)[2], const void *row, int site = __builtin_LINE()) {
  emu_ldmatrix(EMU_LDMATRIX2_TRANSPOSED, r, row, site);
}
static inline void copy_async16(void *to, const void *from, bool valid, int site = __builtin_LINE()) {
  emu->copy_async(to, from, valid, site);
}
static inline void copy_async_commit() { emu->copy_commit(); }
template <int N> static inline void copy_async_wait() { emu->copy_wait(N); }

/* Approximations flush what is too small for a normal float. */
static inline float emu_flush(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }
static inline float fast_exp2(float x) { return emu_flush(exp2f(emu_flush(x))); }
static inline float fast_log2(float x) { return log2f(emu_flush(x)); }
static inline float fast_exp(float x) { return fast_exp2(x * 1.4426950408889634f); }
static inline float fast_reciprocal(float x) { return emu_flush(1.0f / emu_flush(x)); }

/* Calls a kernel with arguments by address, and says what its parameters are. */
template <typename T> static constexpr char emu_parameter() {
  if (sizeof(T) == 8) return 'p';
  if (__is_same(T, float)) return 'f';
  return sizeof(T) == 4 ? 'i' : '?';
}
template <typename... P> struct EmuParameters {
  static constexpr char text[] = {emu_parameter<P>()..., 0};
};
template <int... I> struct EmuIndices {};
template <typename... P, int... I> static inline void emu_apply(void (*kernel)(P...), void **arguments, EmuIndices<I...>) {
  (void)arguments;
  kernel(*(P *)arguments[I]...);
}
template <typename... P> static inline void emu_call(void (*kernel)(P...), void **arguments) {
  emu_apply(kernel, arguments, EmuIndices<__integer_pack(sizeof...(P))...>{});
}
template <typename... P> static constexpr const char *emu_parameters(void (*)(P...)) { return EmuParameters<P...>::text; }
