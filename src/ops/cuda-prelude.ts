/**
 * Device code that every CUDA kernel begins with: 16-bit floats, vector loads, warp and block sums, and the tensor-core
 * and asynchronous-copy instructions as functions. NVRTC compiles it without any header. With `MATMAMBA_EMULATED` the
 * instructions are left to a host emulator (test/support/cuda-emulator), so kernels use nothing but these functions,
 * `threadIdx`, `blockIdx`, `blockDim`, `gridDim`, `__shared__`, `__syncthreads`, `__syncwarp` and `__shfl_*_sync`.
 */

export const CUDA_PRELUDE = String.raw`
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct __align__(2) bf16 { u16 bits; };
struct __align__(2) f16 { u16 bits; };

#ifndef MATMAMBA_EMULATED
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ float to_float(f16 x) { float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits)); return y; }
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) {
  bf16 y; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y;
}
template <> __device__ __forceinline__ f16 from_float<f16>(float x) {
  f16 y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y;
}
/* Two floats as 16-bit ones in a register, the first in the low half. */
template <typename T> __device__ __forceinline__ u32 pack2(float low, float high);
template <> __device__ __forceinline__ u32 pack2<bf16>(float low, float high) {
  u32 y; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low)); return y;
}
template <> __device__ __forceinline__ u32 pack2<f16>(float low, float high) {
  u32 y; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low)); return y;
}

/* d += a b on a 16 x 8 tile, k = 16: a row-major, b column-major, registers as in PTX mma.m16n8k16. */
template <typename T> __device__ __forceinline__ void mma16816(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]);
template <> __device__ __forceinline__ void mma16816<bf16>(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <> __device__ __forceinline__ void mma16816<f16>(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* The 8 x 8 tile of 16-bit elements that lies in a register of each lane, as ldmatrix has it, transposed. */
__device__ __forceinline__ u32 transpose_tile(u32 x) {
  u32 y; asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x)); return y;
}
__device__ __forceinline__ u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }
/* Four (two) 8 x 8 tiles of 16-bit elements from shared memory; thread i gives the address of row i % 8 of tile i / 8. */
__device__ __forceinline__ void ldmatrix4(u32 (&r)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
    : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix4_transposed(u32 (&r)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
    : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix2(u32 (&r)[2], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
    : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix2_transposed(u32 (&r)[2], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
    : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}
/* Copies 16 bytes to shared memory in the background, or zeroes them when not valid. */
__device__ __forceinline__ void copy_async16(void *to, const void *from, bool valid) {
  int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" : : : "memory"); }
/* Waits until at most N of the committed groups are still under way. */
template <int N> __device__ __forceinline__ void copy_async_wait() { asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory"); }
/* 16 bytes that are read once and left out of the first-level cache. */
__device__ __forceinline__ uint4 load_stream16(const void *from) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
  return v;
}
/* Fetches the 128 bytes around an address into the second-level cache, without waiting. */
__device__ __forceinline__ void prefetch_l2(const void *from) { asm volatile("prefetch.global.L2 [%0];" : : "l"(from)); }
/*
 * For kernels that may start while the one before them still runs (programmatic dependent launch), without any effect
 * otherwise: waits until it is done and its writes are seen; lets the kernel after this one start.
 */
#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void wait_for_kernel_before() { asm volatile("griddepcontrol.wait;" : : : "memory"); }
__device__ __forceinline__ void let_next_kernel_start() { asm volatile("griddepcontrol.launch_dependents;" : : : "memory"); }
#else
__device__ __forceinline__ void wait_for_kernel_before() {}
__device__ __forceinline__ void let_next_kernel_start() {}
#endif
/* 2^x, about 2 ulp. */
__device__ __forceinline__ float fast_exp2(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
/* log2, with an error of 2^-22 for x from 1/2 to 2 and of as many bits of the result otherwise. */
__device__ __forceinline__ float fast_log2(float x) { float y; asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
__device__ __forceinline__ float fast_exp(float x) { return fast_exp2(x * 1.4426950408889634f); }
__device__ __forceinline__ float fast_reciprocal(float x) { float y; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
#endif

#ifdef MATMAMBA_EMULATED
__device__ __forceinline__ uint4 load_stream16(const void *from) { return *(const uint4 *)from; }
__device__ __forceinline__ void prefetch_l2(const void *) {}
__device__ __forceinline__ void wait_for_kernel_before() {}
__device__ __forceinline__ void let_next_kernel_start() {}
#endif

#define FULL_WARP 0xffffffffu

#ifdef MATMAMBA_EMULATED
__device__ __forceinline__ u32 transpose_tile(u32 x) {
  int lane = threadIdx.x & 31, from = 8 * (lane & 3) + (lane >> 3), shift = (lane >> 2 & 1) * 16;
  u32 low = __shfl_sync(FULL_WARP, x, from), high = __shfl_sync(FULL_WARP, x, from + 4);
  return (low >> shift & 0xffff) | high >> shift << 16;
}
#endif

/* N consecutive elements as floats; the address is aligned to N elements (16 bytes at most a load). */
template <int N> __device__ __forceinline__ void load_row(float (&out)[N], const float *from) {
  if constexpr (N % 4 == 0) {
    #pragma unroll
    for (int i = 0; i < N; i += 4) { float4 v = *(const float4 *)(from + i); out[i] = v.x; out[i + 1] = v.y; out[i + 2] = v.z; out[i + 3] = v.w; }
  } else {
    for (int i = 0; i < N; i++) out[i] = from[i];
  }
}
template <int N, typename T> __device__ __forceinline__ void load_row(float (&out)[N], const T *from) {
  if constexpr (N % 8 == 0) {
    #pragma unroll
    for (int i = 0; i < N; i += 8) {
      union { uint4 v; T e[8]; } u; u.v = *(const uint4 *)(from + i);
      for (int j = 0; j < 8; j++) out[i + j] = to_float(u.e[j]);
    }
  } else if constexpr (N % 4 == 0) {
    #pragma unroll
    for (int i = 0; i < N; i += 4) {
      union { uint2 v; T e[4]; } u; u.v = *(const uint2 *)(from + i);
      for (int j = 0; j < 4; j++) out[i + j] = to_float(u.e[j]);
    }
  } else {
    for (int i = 0; i < N; i++) out[i] = to_float(from[i]);
  }
}
template <int N> __device__ __forceinline__ void store_row(float *to, const float (&in)[N]) {
  if constexpr (N % 4 == 0) {
    for (int i = 0; i < N; i += 4) *(float4 *)(to + i) = make_float4(in[i], in[i + 1], in[i + 2], in[i + 3]);
  } else {
    for (int i = 0; i < N; i++) to[i] = in[i];
  }
}
template <int N, typename T> __device__ __forceinline__ void store_row(T *to, const float (&in)[N]) {
  if constexpr (N % 8 == 0) {
    #pragma unroll
    for (int i = 0; i < N; i += 8) {
      union { uint4 v; u32 e[4]; } u;
      for (int j = 0; j < 4; j++) u.e[j] = pack2<T>(in[i + 2 * j], in[i + 2 * j + 1]);
      *(uint4 *)(to + i) = u.v;
    }
  } else if constexpr (N % 4 == 0) {
    #pragma unroll
    for (int i = 0; i < N; i += 4) {
      union { uint2 v; u32 e[2]; } u;
      for (int j = 0; j < 2; j++) u.e[j] = pack2<T>(in[i + 2 * j], in[i + 2 * j + 1]);
      *(uint2 *)(to + i) = u.v;
    }
  } else {
    for (int i = 0; i < N; i++) to[i] = from_float<T>(in[i]);
  }
}

__device__ __forceinline__ float warp_sum(float x) {
  #pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) x += __shfl_xor_sync(FULL_WARP, x, mask);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  #pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, mask));
  return x;
}
/* Sum over a block of up to 1,024 threads, the same on every thread; cells: 32 floats of shared memory. */
__device__ __forceinline__ float block_sum(float x, float *cells) {
  x = warp_sum(x);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) cells[threadIdx.x >> 5] = x;
  __syncthreads();
  int warps = (blockDim.x + 31) >> 5;
  x = (threadIdx.x & 31) < warps ? cells[threadIdx.x & 31] : 0.0f;
  return warp_sum(x);
}
__device__ __forceinline__ float block_max(float x, float *cells) {
  x = warp_max(x);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) cells[threadIdx.x >> 5] = x;
  __syncthreads();
  int warps = (blockDim.x + 31) >> 5;
  x = (threadIdx.x & 31) < warps ? cells[threadIdx.x & 31] : -INFINITY;
  return warp_max(x);
}
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }
/* ln(1 + e^x), the identity above 20. */
__device__ __forceinline__ float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }
`;
