/**
 * CUDA text of `sample`: one block of 1,024 threads draws one row's token.
 *
 * Nothing is sorted. A threshold is found bit pair by bit pair: how much lies at or above a key is summed for three keys
 * at once, with keys that order as their numbers do (a float's bits). To have few numbers to sum, those that can be kept
 * are first put into a list in shared memory:
 *
 * - top-k: every thread's largest logit is known, so the k-th largest of these is a bound that at least k logits reach.
 * - top-p: weights that all together miss the mass that may be left out are not needed.
 *
 * A list that would not fit leaves the sums to walks over the whole row, which is exact too, but takes about ten times as
 * long. Sums are float64 in a fixed order, so the same inputs give the same token.
 *
 * Every warp owns a run of ids, its lanes neighbouring quads, so that walking the warps, then their rows of quads, then
 * lanes visits ids in order, which is the order of the draw.
 *
 * Defines: X, type of the logits; STREAM, number of the random stream.
 */
export const SAMPLE_SOURCE = String.raw`
#define THREADS 1024
#define WARPS 32
/* Threads that sum lists; more would wait for each other longer than they work. */
#define LISTING 256
#define CAPACITY 12288

/* Orders as the number does. */
__device__ __forceinline__ u32 key_of(float x) {
  union { float value; u32 bits; } u; u.value = x;
  return u.bits & 0x80000000u ? ~u.bits : u.bits | 0x80000000u;
}
__device__ __forceinline__ float value_of(u32 key) {
  union { float value; u32 bits; } u; u.bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
  return u.value;
}

/* The probability relative to the likeliest token's; also where a tiny temperature makes the inverse infinite. */
__device__ __forceinline__ float weight_of(float score, float best, float inverse) {
  return score == best ? 1.0f : expf((score - best) * inverse);
}

/* Calls f(id, score) for the thread's ids below n in ascending order. */
template <typename F> __device__ __forceinline__ void walk(const X *row, int n, F f) {
  const int steps = (n + 4 * THREADS - 1) / (4 * THREADS);
  int quad = (threadIdx.x >> 5) * steps * 32 + (threadIdx.x & 31);
  for (int i = 0; i < steps; i += 4, quad += 128) {
    float v[4][4];
    #pragma unroll
    for (int j = 0; j < 4; j++) {
      if (i + j < steps && 4 * (quad + 32 * j) < n) load_row<4>(v[j], row + 4 * (quad + 32 * j));
    }
    #pragma unroll
    for (int j = 0; j < 4; j++) {
      if (i + j >= steps) continue;
      int id = 4 * (quad + 32 * j);
      if (id < n) f(id, v[j][0]);
      if (id + 1 < n) f(id + 1, v[j][1]);
      if (id + 2 < n) f(id + 2, v[j][2]);
      if (id + 3 < n) f(id + 3, v[j][3]);
    }
  }
}

__device__ __forceinline__ double warp_sum64(double x) {
  #pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) x += __shfl_xor_sync(FULL_WARP, x, mask);
  return x;
}

/* Sum over the block, the same for all; cells: 32 doubles. */
__device__ __forceinline__ double block_sum64(double x, double *cells) {
  x = warp_sum64(x);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) cells[threadIdx.x >> 5] = x;
  __syncthreads();
  return warp_sum64(cells[threadIdx.x & 31]);
}

/*
 * The largest key between low and high at or above which there is at least 'need': each(g) calls g(key, amount) for all
 * of the thread's numbers, of which only the first warps have some. The warps tell each other their sums in one
 * half of the cells and then in the other, so that one barrier a step is enough. cells: 2 * 3 * 32 floats; result: one number.
 */
template <typename E> __device__ __forceinline__ u32 threshold(E each, float need, u32 low, u32 high, int warps, float *cells, u32 *result) {
  int shift = 30;
  while (shift >= 0 && (low >> shift) == (high >> shift)) shift -= 2;
  u32 found = shift == 30 ? 0u : (high >> (shift + 2)) << (shift + 2);
  const int warp = threadIdx.x >> 5;
  __syncthreads();
  for (int half = 0; shift >= 0; shift -= 2, half ^= 1) {
    float *mine = cells + 96 * half;
    const u32 first = found | (1u << shift), second = found | (2u << shift), third = found | (3u << shift);
    float a = 0.0f, b = 0.0f, c = 0.0f;
    if (warp < warps) {
      each([&](u32 key, float amount) {
        a += key >= first ? amount : 0.0f;
        b += key >= second ? amount : 0.0f;
        c += key >= third ? amount : 0.0f;
      });
      a = warp_sum(a);
      b = warp_sum(b);
      c = warp_sum(c);
      if ((threadIdx.x & 31) == 0) {
        mine[warp] = a;
        mine[32 + warp] = b;
        mine[64 + warp] = c;
      }
    }
    __syncthreads();
    if (warp < warps) {
      a = b = c = 0.0f;
      for (int w = 0; w < warps; w++) {
        a += mine[w];
        b += mine[32 + w];
        c += mine[64 + w];
      }
      found = c >= need ? third : b >= need ? second : a >= need ? first : found;
    }
  }
  if (threadIdx.x == 0) *result = found;
  __syncthreads();
  return *result;
}

/* Where a thread's numbers begin when each has 'count', and how many there are in all; cells: 32 ints. */
__device__ __forceinline__ int place_of(int count, int *cells, int &total) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int sum = count;
  #pragma unroll
  for (int delta = 1; delta < 32; delta <<= 1) {
    int other = __shfl_up_sync(FULL_WARP, sum, delta);
    if (lane >= delta) sum += other;
  }
  __syncthreads();
  if (lane == 31) cells[warp] = sum;
  __syncthreads();
  int all = cells[lane], before = lane < warp ? all : 0;
  #pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) {
    all += __shfl_xor_sync(FULL_WARP, all, mask);
    before += __shfl_xor_sync(FULL_WARP, before, mask);
  }
  total = all;
  return before + sum - count;
}

/* Two words of Philox 4x32-10 for draw number 'draw' of row 'row': number 2 draw and the one after it of the row's stream. */
__device__ __forceinline__ double uniform(u32 seed, u32 draw, u32 row) {
  u32 c0 = draw >> 1, c1 = 0u, c2 = STREAM, c3 = row, k0 = seed, k1 = 0u;
  for (int i = 0; i < 10; i++) {
    u64 p = (u64)0xd2511f53u * c0, q = (u64)0xcd9e8d57u * c2;
    c0 = (u32)(q >> 32) ^ c1 ^ k0;
    c1 = (u32)q;
    c2 = (u32)(p >> 32) ^ c3 ^ k1;
    c3 = (u32)p;
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  u32 high = (draw & 1u ? c2 : c0) >> 5, low = (draw & 1u ? c3 : c1) >> 6;
  return ((double)high * 67108864.0 + (double)low) * (1.0 / 9007199254740992.0);
}

/* logits: (rows, columns); settings: temperature, topK, topP, minP, usable ids; random: seed, draw; ids: (rows). */
extern "C" __global__ void __launch_bounds__(THREADS, 1) sample(
  const X *logits, int stride, int columns, const float *settings, const int *random, int *ids
) {
  extern __shared__ u32 list[];
  __shared__ double cells[32];
  __shared__ float sums[192];
  __shared__ int counts[32];
  __shared__ u32 keys[32];
  __shared__ double rest;
  __shared__ int owner;
  __shared__ u32 thread_keys[THREADS];
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
  const X *row = logits + (i64)blockIdx.x * stride;
  const float temperature = settings[0], top_p = settings[2], min_p = settings[3];
  const int n = settings[4] < (float)columns ? (int)settings[4] : columns;

  /* The largest logit, of equals the lowest id. Not a number counts as infinite. */
  float own = -INFINITY;
  int own_id = 0x7fffffff;
  walk(row, n, [&](int id, float score) {
    if (!(score <= own)) {
      own = score == score ? score : INFINITY;
      own_id = id;
    }
  });
  /* The smallest of the threads' largest, for top-k. */
  u32 least_key = key_of(own);
  thread_keys[tid] = least_key;
  for (int level = 0; level < 2; level++) {
    #pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) {
      float other = __shfl_xor_sync(FULL_WARP, own, mask);
      int other_id = __shfl_xor_sync(FULL_WARP, own_id, mask);
      u32 other_key = __shfl_xor_sync(FULL_WARP, least_key, mask);
      if (other > own || (other == own && other_id < own_id)) { own = other; own_id = other_id; }
      if (other_key < least_key) least_key = other_key;
    }
    if (level == 1) break;
    if (lane == 0) { sums[warp] = own; counts[warp] = own_id; keys[warp] = least_key; }
    __syncthreads();
    own = sums[lane];
    own_id = counts[lane];
    least_key = keys[lane];
  }
  const float best = own;
  const int best_id = own_id;
  /* No logit is finite, or one is infinite or not a number. */
  if (!(best > -INFINITY && best < INFINITY)) {
    if (tid == 0) ids[blockIdx.x] = -1;
    return;
  }
  if (temperature == 0.0f) {
    if (tid == 0) ids[blockIdx.x] = best_id;
    return;
  }
  const float inverse = 1.0f / temperature;

  /* Top-k: the k-th largest logit. */
  float kept_score = -INFINITY;
  const int k = settings[1] < (float)n ? (int)settings[1] : 0;
  /* What the list holds, if it holds all that can be kept. */
  bool listed = false;
  int entries = 0;
  if (k > 0) {
    u32 low = key_of(-INFINITY);
    const u32 high = key_of(best);
    auto of_threads = [&](auto g) { for (int i = tid; i < THREADS; i += LISTING) g(thread_keys[i], 1.0f); };
    if (k <= THREADS) low = threshold(of_threads, (float)k, least_key, high, LISTING / 32, sums, keys);
    const float bound = value_of(low);
    int count = 0;
    walk(row, n, [&](int id, float score) { if (score >= bound) count++; });
    int at = place_of(count, counts, entries);
    listed = entries <= CAPACITY;
    if (listed) {
      if (count > 0) walk(row, n, [&](int id, float score) { if (score >= bound) list[at++] = key_of(score); });
      __syncthreads();
      auto of_list = [&](auto g) { for (int i = tid; i < entries; i += LISTING) g(list[i], 1.0f); };
      kept_score = value_of(threshold(of_list, (float)k, low, high, LISTING / 32, sums, keys));
    } else {
      auto of_row = [&](auto g) { walk(row, n, [&](int id, float score) { g(key_of(score), 1.0f); }); };
      kept_score = value_of(threshold(of_row, (float)k, low, high, WARPS, sums, keys));
    }
  }

  /* The last kept token under top-p and min-p together: of two limits the tighter one. */
  float least = min_p;
  int last = 0x7fffffff;
  if (top_p < 1.0f) {
    /* Calls f(weight) for the kept tokens of the thread. */
    float bound = kept_score;
    auto of_kept = [&](auto f) {
      walk(row, n, [&](int id, float score) { if (score >= bound) f(weight_of(score, best, inverse)); });
    };
    double mass = 0.0;
    if (listed) {
      /* Scores become weights. */
      for (int i = tid; i < entries; i += THREADS) {
        float score = value_of(list[i]);
        float weight = score >= kept_score ? weight_of(score, best, inverse) : 0.0f;
        list[i] = key_of(weight);
        mass += (double)weight;
      }
    } else {
      of_kept([&](float weight) { mass += (double)weight; });
    }
    mass = block_sum64(mass, cells);
    const double need = (double)top_p * mass;
    /* Float32 rounds up at most by a part in 2^23. */
    const float floor = (float)((1.0 - (double)top_p) * mass / (double)n) * 0.999999f;
    /* Scores below this have smaller weights, with some room for rounding. */
    bound = fmaxf(kept_score, best + (logf(floor) - 0.01f) * temperature);
    if (!listed) {
      int count = 0;
      of_kept([&](float weight) { if (weight >= floor) count++; });
      int at = place_of(count, counts, entries);
      listed = entries <= CAPACITY;
      if (listed && count > 0) of_kept([&](float weight) { if (weight >= floor) list[at++] = key_of(weight); });
      __syncthreads();
    }
    const u32 low = key_of(floor), high = key_of(1.0f);
    auto of_list = [&](auto g) {
      for (int i = tid; i < entries; i += LISTING) g(list[i], value_of(list[i]));
    };
    auto of_row = [&](auto g) { of_kept([&](float weight) { g(key_of(weight), weight); }); };
    const float cut = value_of(listed ? threshold(of_list, (float)need, low, high, LISTING / 32, sums, keys)
                                      : threshold(of_row, (float)need, low, high, WARPS, sums, keys));
    if (cut >= least) {
      least = cut;
      /* Of equal weights the lower ids first, as many as the mass still needs. */
      double above = 0.0;
      int equal = 0, equals;
      auto compare = [&](float weight) {
        if (weight > cut) above += (double)weight;
        else if (weight == cut) equal++;
      };
      if (listed) {
        for (int i = tid; i < entries; i += THREADS) compare(value_of(list[i]));
      } else {
        of_kept(compare);
      }
      above = block_sum64(above, cells);
      place_of(equal, counts, equals);
      double wanted = cut > 0.0f ? (need - above) / (double)cut : (double)equals;
      if (wanted < (double)equals && equals > 1) {
        int take = (int)wanted;
        if ((double)take < wanted) take++;
        if (take < 1) take = 1;
        /* The id of the last one taken: the lowest up to which there are so many. */
        int from = 0, to = n - 1;
        while (from < to) {
          int middle = from + (to - from) / 2;
          int some = 0, reached;
          walk(row, n, [&](int id, float score) {
            if (id <= middle && score >= kept_score && weight_of(score, best, inverse) == cut) some++;
          });
          place_of(some, counts, reached);
          if (reached >= take) to = middle;
          else from = middle + 1;
        }
        last = from;
      }
    }
  }

  /* The draw, in the order of ids: first the warp that owns the token, then its row of quads, then the lane. */
  if (least > 0.0f) kept_score = fmaxf(kept_score, best + (logf(least) - 0.01f) * temperature);
  auto weigh = [&](int id, float score) {
    if (score < kept_score) return 0.0f;
    float weight = weight_of(score, best, inverse);
    return weight > least || (weight == least && id <= last) ? weight : 0.0f;
  };
  double mass = 0.0;
  walk(row, n, [&](int id, float score) { mass += (double)weigh(id, score); });
  mass = warp_sum64(mass);
  __syncthreads();
  if (lane == 0) cells[warp] = mass;
  __syncthreads();
  if (warp == 0) {
    const double own_mass = cells[lane];
    double upto = own_mass;
    #pragma unroll
    for (int delta = 1; delta < 32; delta <<= 1) {
      double other = __shfl_up_sync(FULL_WARP, upto, delta);
      if (lane >= delta) upto += other;
    }
    const double target = uniform((u32)random[0], (u32)random[1], blockIdx.x) * __shfl_sync(FULL_WARP, upto, 31);
    /* The first that goes beyond the target; where rounding leaves none, the last that has anything. */
    int chosen = target < upto ? lane : 32, fallback = own_mass > 0.0 ? lane : -1;
    #pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) {
      int earlier = __shfl_xor_sync(FULL_WARP, chosen, mask), later = __shfl_xor_sync(FULL_WARP, fallback, mask);
      if (earlier < chosen) chosen = earlier;
      if (later > fallback) fallback = later;
    }
    if (chosen == 32) chosen = fallback;
    if (lane == chosen) {
      rest = target - (upto - own_mass);
      owner = chosen;
    }
  }
  __syncthreads();
  if (warp != owner) return;

  const int steps = (n + 4 * THREADS - 1) / (4 * THREADS);
  auto quad_mass = [&](int i, float (&w)[4]) {
    const int id = 4 * ((warp * steps + i) * 32 + lane);
    double sum = 0.0;
    #pragma unroll
    for (int j = 0; j < 4; j++) {
      w[j] = id + j < n ? weigh(id + j, to_float(row[id + j])) : 0.0f;
      sum += (double)w[j];
    }
    return sum;
  };
  double left = rest;
  int at = 0;
  double before_at = 0.0;
  for (int i = 0; i < steps; i++) {
    float w[4];
    const double sum = warp_sum64(quad_mass(i, w));
    if (sum == 0.0) continue;
    at = i;
    before_at = left;
    if (left < sum) break;
    left -= sum;
  }
  float w[4];
  const double sum = quad_mass(at, w);
  double upto = sum;
  #pragma unroll
  for (int delta = 1; delta < 32; delta <<= 1) {
    double other = __shfl_up_sync(FULL_WARP, upto, delta);
    if (lane >= delta) upto += other;
  }
  upto -= sum;
  int found = 0x7fffffff, last_kept = -1;
  #pragma unroll
  for (int j = 0; j < 4; j++) {
    const int id = 4 * ((warp * steps + at) * 32 + lane) + j;
    if (w[j] == 0.0f) continue;
    last_kept = id;
    upto += (double)w[j];
    if (before_at < upto && id < found) found = id;
  }
  #pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) {
    int earlier = __shfl_xor_sync(FULL_WARP, found, mask), later = __shfl_xor_sync(FULL_WARP, last_kept, mask);
    if (earlier < found) found = earlier;
    if (later > last_kept) last_kept = later;
  }
  if (lane == 0) ids[blockIdx.x] = found != 0x7fffffff ? found : last_kept;
}
`;

/** Dynamic shared memory: the list. */
export const SAMPLE_SHARED_BYTES = 4 * 12288;
