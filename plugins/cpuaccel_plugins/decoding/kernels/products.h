// Sums of products of weights and activations, of several rows at once.

#pragma once

#include "activations.h"
#include "vectors.h"

namespace {

constexpr int CACHE_LINE = 64;
constexpr int FETCHED_AHEAD = 16384;  // bytes: the processor's own prefetching stops where a page ends

// Rows whose sums, for four outputs, stay in the registers.
#ifdef __AVX512F__
constexpr int MOST_AT_ONCE = 5;
#else
constexpr int MOST_AT_ONCE = 4;
#endif

// Call a function with a number from 1 to MOST as a constant.
template <int MOST, typename F>
inline void with_constant(int64_t number, F function) {
  if constexpr (MOST > 1)
    if (number < MOST) return with_constant<MOST - 1>(number, function);
  function(std::integral_constant<int, MOST>{});
}

// Call function(number of rows as a constant, first row) for all rows, as many at once as their sums
// fit into the registers; they are divided evenly.
template <int MOST = MOST_AT_ONCE, typename F>
inline void for_some_rows(int64_t rows, F function) {
  for (int64_t row = 0; row < rows;) {
    int64_t left = rows - row, times = (left + MOST - 1) / MOST;
    int64_t taken = (left + times - 1) / times;
    with_constant<MOST>(taken, [&](auto number) { function(number, row); });
    row += taken;
  }
}

// How a vector of weights is multiplied with activations, and added to sums.
template <typename W, typename X>
struct Multiplier {
  static constexpr int NUMBER = LANES;
  static Floats at(const W* data) { return wide_lanes(data); }
  static Floats values_at(const X* data) { return wide_lanes(data); }
  static void add(Floats& sums, Floats weights, Floats values) { sums += weights * values; }
};

#ifdef __AVX512BF16__
template <>
struct Multiplier<bfloat16, bfloat16> {
  static constexpr int NUMBER = 2 * LANES;
  static __m512bh at(const bfloat16* data) { return (__m512bh)_mm512_loadu_si512(data); }
  static __m512bh values_at(const bfloat16* data) { return at(data); }
  static void add(Floats& sums, __m512bh weights, __m512bh values) {
    sums = (Floats)_mm512_dpbf16_ps((__m512)sums, weights, values);
  }
};
#endif

// The sums of vectors, and of what is left from column k on. Rows of weights are `stride` apart.
template <int ROWS, int OUTPUTS, typename W, typename X>
inline void finish_sums(const Floats (&lanes)[OUTPUTS][ROWS], const W* weight, int64_t stride,
                        const X* x, int64_t size, int64_t k, float* sums) {
  sums_of<OUTPUTS * ROWS>(&lanes[0][0], sums);
  for (; k < size; k++)
    for (int o = 0; o < OUTPUTS; o++)
      for (int r = 0; r < ROWS; r++)
        sums[o * ROWS + r] += widen(weight[o * stride + k]) * widen(x[r * size + k]);
}

// ROWS rows and OUTPUTS outputs, of weights that are read from memory: one output after the other,
// from one place to the next.
template <int ROWS, int OUTPUTS, typename W, typename X>
inline void products(const W* weight, const X* x, int64_t size, float* sums) {
  using Of = Multiplier<W, X>;
  constexpr int CHAINS = ROWS == 1 ? 4 : ROWS == 2 ? 2 : 1;  // an addition waits for that before it
  constexpr int64_t STEP = CHAINS * Of::NUMBER;
  Floats lanes[OUTPUTS][ROWS];
  int64_t whole = size / Of::NUMBER * Of::NUMBER;
  for (int o = 0; o < OUTPUTS; o++) {
    const W* row = weight + o * size;
    Floats chains[CHAINS][ROWS] = {};
    auto add = [&](Floats(&chain)[ROWS], int64_t k) {
      if (k * sizeof(W) % CACHE_LINE == 0)
        __builtin_prefetch(reinterpret_cast<const char*>(row + k) + FETCHED_AHEAD);
      auto weights = Of::at(row + k);
      for (int r = 0; r < ROWS; r++) Of::add(chain[r], weights, Of::values_at(x + r * size + k));
    };
    int64_t k = 0;
    for (; k + STEP <= whole; k += STEP)
      for (int c = 0; c < CHAINS; c++) add(chains[c], k + c * Of::NUMBER);
    for (; k < whole; k += Of::NUMBER) add(chains[0], k);
    for (int r = 0; r < ROWS; r++) {
      lanes[o][r] = chains[0][r];
      for (int c = 1; c < CHAINS; c++) lanes[o][r] += chains[c][r];
    }
  }
  finish_sums(lanes, weight, size, x, size, whole, sums);
}

// The same of what is in a cache of the processor: all outputs at once, so that activations are read
// once for all of them.
template <int ROWS, int OUTPUTS, typename W, typename X>
inline void cached_products(const W* weight, int64_t stride, const X* x, int64_t size,
                            float* sums) {
  using Of = Multiplier<W, X>;
  Floats lanes[OUTPUTS][ROWS] = {};
  int64_t k = 0;
  for (; k + Of::NUMBER <= size; k += Of::NUMBER) {
    decltype(Of::values_at(x)) values[ROWS];
    for (int r = 0; r < ROWS; r++) values[r] = Of::values_at(x + r * size + k);
    for (int o = 0; o < OUTPUTS; o++) {
      auto weights = Of::at(weight + o * stride + k);
      for (int r = 0; r < ROWS; r++) Of::add(lanes[o][r], weights, values[r]);
    }
  }
  finish_sums(lanes, weight, stride, x, size, k, sums);
}

}  // namespace
