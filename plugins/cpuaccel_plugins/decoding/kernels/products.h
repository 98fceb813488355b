// Sums of products of weights and activations: several outputs at once, of several rows at once.

#pragma once

#include "activations.h"
#include "vectors.h"

namespace {

constexpr int AHEAD = 16384;  // bytes: the processor's own prefetching stops where a page ends
constexpr int CACHE_LINE = 64;

// Rows whose sums, for four outputs, stay in the registers.
#ifdef __AVX512F__
constexpr int MOST_AT_ONCE = 5;
#else
constexpr int MOST_AT_ONCE = 4;
#endif

// How many of the rows that are left are computed at once: they are divided evenly.
inline int64_t next_rows(int64_t left) {
  int64_t times = (left + MOST_AT_ONCE - 1) / MOST_AT_ONCE;
  return (left + times - 1) / times;
}

// Fetch weights that are computed with later, once for each line of the cache.
template <typename W>
inline void prefetch(const W* weight, int64_t column) {
  if (column * sizeof(W) % CACHE_LINE == 0)
    __builtin_prefetch(reinterpret_cast<const char*>(weight) + AHEAD);
}

// The sums of vectors, and of what is left from column k on.
template <int ROWS, int OUTPUTS, typename W, typename X>
inline void finish_sums(const Floats (&lanes)[OUTPUTS][ROWS], const W* weight, int64_t stride,
                        const X* x, int64_t size, int64_t k, float* sums) {
  sums_of<OUTPUTS * ROWS>(&lanes[0][0], sums);
  for (; k < size; k++)
    for (int o = 0; o < OUTPUTS; o++)
      for (int r = 0; r < ROWS; r++)
        sums[o * ROWS + r] += widen(weight[o * stride + k]) * widen(x[r * size + k]);
}

// OUTPUTS outputs of ROWS rows at once: activations are read once for all of these outputs, and
// weights, whose rows are `stride` apart, once for all of these rows.
template <int ROWS, int OUTPUTS, typename W>
inline void products(const W* weight, int64_t stride, const float* x, int64_t size, float* sums) {
  Floats lanes[OUTPUTS][ROWS] = {};
  int64_t k = 0;
  for (; k + LANES <= size; k += LANES) {
    Floats activations[ROWS];
    for (int r = 0; r < ROWS; r++) activations[r] = wide_lanes(x + r * size + k);
    for (int o = 0; o < OUTPUTS; o++) {
      const W* at = weight + o * stride + k;
      prefetch(at, k);
      Floats wide = wide_lanes(at);
      for (int r = 0; r < ROWS; r++) lanes[o][r] += wide * activations[r];
    }
  }
  finish_sums(lanes, weight, stride, x, size, k, sums);
}

template <int ROWS, int OUTPUTS, typename W>
inline void products(const W* weight, const float* x, const float*, int64_t size, float* sums) {
  products<ROWS, OUTPUTS>(weight, size, x, size, sums);
}

#ifdef __AVX512BF16__
template <int ROWS, int OUTPUTS>
inline void products(const bfloat16* weight, const bfloat16* x, const float*, int64_t size,
                     float* sums) {
  constexpr int PAIRS = 2 * LANES;
  auto pairs_at = [](const bfloat16* data) { return (__m512bh)_mm512_loadu_si512(data); };
  Floats lanes[OUTPUTS][ROWS] = {};
  int64_t k = 0;
  for (; k + PAIRS <= size; k += PAIRS) {
    __m512bh activations[ROWS];
    for (int r = 0; r < ROWS; r++) activations[r] = pairs_at(x + r * size + k);
    for (int o = 0; o < OUTPUTS; o++) {
      const bfloat16* at = weight + o * size + k;
      prefetch(at, k);
      __m512bh pairs = pairs_at(at);
      for (int r = 0; r < ROWS; r++)
        lanes[o][r] = (Floats)_mm512_dpbf16_ps((__m512)lanes[o][r], pairs, activations[r]);
    }
  }
  finish_sums(lanes, weight, size, x, size, k, sums);
}
#endif

#ifdef __AVX2__
#ifdef __AVX512BW__
using Integers = __m512i;
inline Integers integers_at(const int16_t* data) { return _mm512_loadu_si512(data); }
inline Integers integers_at(const int8_t* data) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)data));
}
inline Integers add_products(Integers sums, Integers one, Integers other) {
#ifdef __AVX512VNNI__
  return _mm512_dpwssd_epi32(sums, one, other);
#else
  return _mm512_add_epi32(sums, _mm512_madd_epi16(one, other));
#endif
}
inline Floats to_floats(Integers integers) { return (Floats)_mm512_cvtepi32_ps(integers); }
#else
using Integers = __m256i;
inline Integers integers_at(const int16_t* data) {
  return _mm256_loadu_si256((const __m256i*)data);
}
inline Integers integers_at(const int8_t* data) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)data));
}
inline Integers add_products(Integers sums, Integers one, Integers other) {
  return _mm256_add_epi32(sums, _mm256_madd_epi16(one, other));
}
inline Floats to_floats(Integers integers) { return (Floats)_mm256_cvtepi32_ps(integers); }
#endif

template <int ROWS, int OUTPUTS>
inline void products(const int8_t* weight, const int16_t* x, const float* scales, int64_t size,
                     float* sums) {
  constexpr int COUNT = sizeof(Integers) / sizeof(int16_t);
  static_assert(sizeof(Integers) == sizeof(Floats) && GROUP % COUNT == 0);
  int64_t groups = (size + GROUP - 1) / GROUP;
  Floats lanes[OUTPUTS][ROWS] = {};
  std::fill(sums, sums + OUTPUTS * ROWS, 0.0f);
  for (int64_t group = 0; group < groups; group++) {
    int64_t k = group * GROUP, end = std::min(size, k + GROUP);
    Integers whole[OUTPUTS][ROWS] = {};
    for (; k + COUNT <= end; k += COUNT) {
      Integers activations[ROWS];
      for (int r = 0; r < ROWS; r++) activations[r] = integers_at(x + r * size + k);
      for (int o = 0; o < OUTPUTS; o++) {
        const int8_t* at = weight + o * size + k;
        prefetch(at, k);
        Integers steps = integers_at(at);
        for (int r = 0; r < ROWS; r++)
          whole[o][r] = add_products(whole[o][r], steps, activations[r]);
      }
    }
    for (int o = 0; o < OUTPUTS; o++)
      for (int r = 0; r < ROWS; r++) {
        float scale = scales[r * groups + group];
        lanes[o][r] += to_floats(whole[o][r]) * scale;
        for (int64_t rest = k; rest < end; rest++)
          sums[o * ROWS + r] += weight[o * size + rest] * x[r * size + rest] * scale;
      }
  }
  float wide[OUTPUTS * ROWS];
  sums_of<OUTPUTS * ROWS>(&lanes[0][0], wide);
  for (int i = 0; i < OUTPUTS * ROWS; i++) sums[i] += wide[i];
}
#endif

}  // namespace
