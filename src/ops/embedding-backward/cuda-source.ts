/**
 * Adding token gradients to the rows of a table, always in the order of positions, without atomics: tokens are sorted by
 * (id, position), and runs of one id are summed.
 *
 * 1. `sort_chunks`: a block sorts CHUNK keys (id in the high half, position in the low one; ids outside the table get the
 *    largest) in shared memory by a bitonic network (Batcher 1968).
 * 2. `merge_chunks`: a key's place among all is the number of smaller keys in every chunk, found by binary search.
 * 3. `sum_tiles`: a block walks TILE sorted tokens. A run of one id inside the tile is added to its row; the sum of a run
 *    that reaches over the tile's start (`head`) or end (`tail`) is kept apart.
 * 4. `join_tiles`: where a run's tail is, it and the heads of the tiles after it are added to the row.
 */

export const CHUNK = 2048;
export const TILE = 16;

export const EMBEDDING_BACKWARD_SOURCE = String.raw`
#define NONE 0xffffffffu

extern "C" __global__ void __launch_bounds__(1024) sort_chunks(const int *ids, int tokens, int vocabulary, u64 *keys) {
  __shared__ u64 cells[CHUNK];
  int thread = threadIdx.x, first = blockIdx.x * CHUNK;
  for (int i = thread; i < CHUNK; i += CHUNK / 2) {
    u32 position = (u32)(first + i);
    u32 id = first + i < tokens ? (u32)ids[first + i] : NONE;
    cells[i] = ((u64)(id < (u32)vocabulary ? id : NONE) << 32) | position;
  }
  int before = CHUNK;
  for (int size = 2; size <= CHUNK; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      /* Up to a stride of 32 a warp compares among its own 64 keys. */
      if (before > 32 || stride > 32) __syncthreads();
      else __syncwarp();
      int i = 2 * thread - (thread & (stride - 1));
      u64 left = cells[i], right = cells[i + stride];
      if ((left > right) == ((i & size) == 0)) {
        cells[i] = right;
        cells[i + stride] = left;
      }
      before = stride;
    }
  }
  __syncthreads();
  for (int i = thread; i < CHUNK; i += CHUNK / 2) keys[first + i] = cells[i];
}

extern "C" __global__ void merge_chunks(const u64 *keys, int chunks, int *ids, int *positions) {
  u64 key = keys[blockIdx.x * blockDim.x + threadIdx.x];
  int place = 0;
  /* Eight searches at a time, for their loads to be under way together. */
  for (int first = 0; first < chunks; first += 8) {
    int below[8] = {};
    #pragma unroll 1
    for (int step = CHUNK / 2; step > 0; step /= 2) {
      #pragma unroll
      for (int j = 0; j < 8; j++) {
        if (first + j < chunks && keys[(first + j) * CHUNK + below[j] + step - 1] < key) below[j] += step;
      }
    }
    #pragma unroll
    for (int j = 0; j < 8; j++) {
      if (first + j < chunks) place += below[j] + (keys[(first + j) * CHUNK + below[j]] < key ? 1 : 0);
    }
  }
  ids[place] = (int)(key >> 32);
  positions[place] = (int)(u32)key;
}

__device__ __forceinline__ void store_sum(float *to, const float (&sum)[4], const float (&old)[4], int column, int width) {
  float values[4];
  #pragma unroll
  for (int i = 0; i < 4; i++) values[i] = column + i < width ? old[i] + sum[i] : 0.0f;
  store_row<4>(to, values);
}

/* Grid: tiles x slices of columns, 4 a thread. partials: (tiles, 2, columns), heads and tails. */
extern "C" __global__ void sum_tiles(const int *ids, const int *positions, const DY_TYPE *dy, int dyStride, float *dWeight,
                                     int dWeightStride, float *partials, int tiles, int width, int columns) {
  /* The ids of the tile between their neighbours'. */
  __shared__ int near[TILE + 2];
  __shared__ int places[TILE];
  int tile = blockIdx.x, thread = threadIdx.x;
  if (thread < TILE + 2) {
    int at = tile * TILE + thread - 1;
    near[thread] = at >= 0 && at < tiles * TILE ? ids[at] : -1;
  }
  if (thread < TILE) places[thread] = positions[tile * TILE + thread];
  __syncthreads();
  int column = (int)(blockIdx.y * blockDim.x + thread) * 4;
  if (column >= columns) return;
  float *heads = partials + (i64)tile * 2 * columns + column;
  const float zeros[4] = {};
  float sum[4] = {};
  for (int first = 0; first < TILE; first += 4) {
    float rows[4][4], old[4][4];
    #pragma unroll
    for (int j = 0; j < 4; j++) {
      int id = near[first + j + 1];
      if (id < 0) continue;
      load_row<4>(rows[j], dy + (i64)places[first + j] * dyStride + column);
      if (id != near[0] && id != near[first + j + 2]) load_row<4>(old[j], dWeight + (i64)id * dWeightStride + column);
    }
    #pragma unroll
    for (int j = 0; j < 4; j++) {
      int id = near[first + j + 1];
      if (id < 0) continue;
      #pragma unroll
      for (int i = 0; i < 4; i++) sum[i] += rows[j][i];
      bool ends = id != near[first + j + 2];
      if (!ends && first + j + 1 < TILE) continue;
      if (id == near[0]) store_sum(heads, sum, zeros, column, width);
      else if (!ends) store_sum(heads + columns, sum, zeros, column, width);
      else store_sum(dWeight + (i64)id * dWeightStride + column, sum, old[j], column, width);
      #pragma unroll
      for (int i = 0; i < 4; i++) sum[i] = 0.0f;
    }
  }
}

/* Grid: tiles x slices of 128 columns; 8 warps share the heads, their sums are added in the order of warps. */
extern "C" __global__ void join_tiles(const int *ids, float *dWeight, int dWeightStride, const float *partials, int tiles,
                                      int width, int columns) {
  __shared__ float sums[8][128];
  int tile = blockIdx.x, end = (tile + 1) * TILE;
  int id = ids[end - 1];
  if (id < 0 || tile + 1 >= tiles || ids[end] != id || (tile > 0 && ids[end - TILE - 1] == id)) return;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int column = (int)(blockIdx.y * 32 + lane) * 4;
  bool active = column < columns;
  float sum[4] = {};
  for (int first = tile + 1 + warp; first < tiles; first += 32) {
    bool same[4];
    float heads[4][4];
    #pragma unroll
    for (int j = 0; j < 4; j++) same[j] = first + 8 * j < tiles && ids[(first + 8 * j) * TILE] == id;
    #pragma unroll
    for (int j = 0; j < 4; j++) {
      if (same[j] && active) load_row<4>(heads[j], partials + (i64)(first + 8 * j) * 2 * columns + column);
    }
    #pragma unroll
    for (int j = 0; j < 4; j++) {
      if (!same[j] || !active) continue;
      #pragma unroll
      for (int i = 0; i < 4; i++) sum[i] += heads[j][i];
    }
    if (!same[3]) break;
  }
  store_row<4>(&sums[warp][lane * 4], sum);
  __syncthreads();
  if (warp != 0 || !active) return;
  float old[4];
  load_row<4>(sum, partials + ((i64)tile * 2 + 1) * columns + column);
  float *to = dWeight + (i64)id * dWeightStride + column;
  load_row<4>(old, to);
  for (int other = 0; other < 8; other++) {
    #pragma unroll
    for (int i = 0; i < 4; i++) sum[i] += sums[other][lane * 4 + i];
  }
  store_sum(to, sum, old, column, width);
}
`;
