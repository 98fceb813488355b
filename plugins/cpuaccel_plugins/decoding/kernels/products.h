// Sums of products of weights and activations, of several rows at once.

#pragma once

#include "activations.h"
#include "vectors.h"

namespace {

constexpr int CACHE_LINE = 64;

// Fetch weights that are computed with later, once for each line of the cache.
template <typename W>
inline void prefetch(const W* weight, int64_t column) {
  if (column * sizeof(W) % CACHE_LINE == 0)
    __builtin_prefetch(reinterpret_cast<const char*>(weight) + AHEAD);
}

// How many sums of a row are computed at once: each addition waits for the one before it.
template <int ROWS>
constexpr int SUMS = ROWS == 1 ? 4 : ROWS == 2 ? 2 : 1;

// The sums of vectors, and of what is left from column k on.
template <int ROWS, typename W, typename X>
inline void finish_sums(const Floats (&lanes)[SUMS<ROWS>][ROWS], const W* weight, const X* x,
                        int64_t size, int64_t k, float* sums) {
  for (int r = 0; r < ROWS; r++) {
    Floats all = lanes[0][r];
    for (int s = 1; s < SUMS<ROWS>; s++) all += lanes[s][r];
    sums[r] = sum_of(all);
    for (int64_t rest = k; rest < size; rest++)
      sums[r] += widen(weight[rest]) * widen(x[r * size + rest]);
  }
}

// One output of ROWS rows: weights are read once for these rows, from one place to the next.
template <int ROWS, typename W>
inline void products(const W* weight, const float* x, int64_t size, float* sums) {
  Floats lanes[SUMS<ROWS>][ROWS] = {};
  int64_t k = 0;
  auto add = [&](Floats (&to)[ROWS], int64_t at) {
    prefetch(weight + at, at);
    Floats wide = wide_lanes(weight + at);
    for (int r = 0; r < ROWS; r++) to[r] += wide * wide_lanes(x + r * size + at);
  };
  for (; k + SUMS<ROWS> * LANES <= size; k += SUMS<ROWS> * LANES)
    for (int s = 0; s < SUMS<ROWS>; s++) add(lanes[s], k + s * LANES);
  for (; k + LANES <= size; k += LANES) add(lanes[0], k);
  finish_sums(lanes, weight, x, size, k, sums);
}

#ifdef __AVX512BF16__
template <int ROWS>
inline void products(const bfloat16* weight, const bfloat16* x, int64_t size, float* sums) {
  constexpr int PAIRS = 2 * LANES;
  auto pairs_at = [](const bfloat16* data) { return (__m512bh)_mm512_loadu_si512(data); };
  Floats lanes[SUMS<ROWS>][ROWS] = {};
  int64_t k = 0;
  auto add = [&](Floats (&to)[ROWS], int64_t at) {
    prefetch(weight + at, at);
    __m512bh pairs = pairs_at(weight + at);
    for (int r = 0; r < ROWS; r++)
      to[r] = (Floats)_mm512_dpbf16_ps((__m512)to[r], pairs, pairs_at(x + r * size + at));
  };
  for (; k + SUMS<ROWS> * PAIRS <= size; k += SUMS<ROWS> * PAIRS)
    for (int s = 0; s < SUMS<ROWS>; s++) add(lanes[s], k + s * PAIRS);
  for (; k + PAIRS <= size; k += PAIRS) add(lanes[0], k);
  finish_sums(lanes, weight, x, size, k, sums);
}
#endif

}  // namespace
