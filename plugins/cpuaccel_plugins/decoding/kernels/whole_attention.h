// Attention of many queries to all keys, without a mask: that of an encoder.
//
// Keys and values are copied once into panels, so that no sums over lanes are needed. A few queries at
// a time read them, some hundred keys after each other; their scores stay in the nearest cache, and
// what was summed before is scaled down where a larger score comes.

#pragma once

#include <algorithm>
#include <vector>

#include "attention.h"
#include "vectors.h"

namespace {

// Queries and vectors of keys whose scores fit into the registers.
#ifdef __AVX512F__
constexpr int QUERIES = 6, PANEL_VECTORS = 4;
#else
constexpr int QUERIES = 4, PANEL_VECTORS = 2;
#endif
constexpr int64_t PANEL = PANEL_VECTORS * LANES;
constexpr int64_t KEYS_AT_ONCE = 512;
constexpr size_t MOST_KEPT_BYTES = 64 << 20;  // of panels, for the next call
constexpr int64_t QUERIES_OF_THREAD = 16 * QUERIES;  // that a thread computes in turn

// How many numbers of a type one lane multiplies at once: they lie side by side.
template <typename W>
constexpr int64_t PAIR = sizeof(float) / sizeof(W);

inline void put(float* to, Floats lanes) { std::memcpy(to, &lanes, sizeof lanes); }
#ifdef __AVX512BF16__
inline void put(bfloat16* to, Floats lanes) {
  __m256bh brief = _mm512_cvtneps_pbh((__m512)lanes);
  std::memcpy(to, &brief, sizeof brief);
}
#endif

// sums += a * b. a: (ROWS, steps) pairs, rows `stride` numbers apart. b: (steps, lanes) pairs, with
// `width` lanes in a step.
template <int ROWS, int VECTORS>
inline void multiply(const float* a, int64_t stride, const float* b, int64_t width, int64_t steps,
                     Floats (&sums)[ROWS][VECTORS]) {
  for (int64_t k = 0; k < steps; k++) {
    Floats lanes[VECTORS];
    for (int v = 0; v < VECTORS; v++) lanes[v] = wide_lanes(b + k * width + v * LANES);
    for (int r = 0; r < ROWS; r++)
      for (int v = 0; v < VECTORS; v++) sums[r][v] += a[r * stride + k] * lanes[v];
  }
}

#ifdef __AVX512BF16__
template <int ROWS, int VECTORS>
inline void multiply(const bfloat16* a, int64_t stride, const bfloat16* b, int64_t width,
                     int64_t steps, Floats (&sums)[ROWS][VECTORS]) {
  for (int64_t k = 0; k < steps; k++) {
    __m512bh lanes[VECTORS];
    for (int v = 0; v < VECTORS; v++)
      lanes[v] = (__m512bh)_mm512_loadu_si512(b + 2 * (k * width + v * LANES));
    for (int r = 0; r < ROWS; r++) {
      int32_t pair;
      std::memcpy(&pair, a + r * stride + 2 * k, sizeof pair);
      __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
      for (int v = 0; v < VECTORS; v++)
        sums[r][v] = (Floats)_mm512_dpbf16_ps((__m512)sums[r][v], lanes[v], both);
    }
  }
}
#endif

// 2 to the power of each lane, none of them above 0; NaN stays NaN.
template <typename W>
inline Floats exp2_lanes(Floats x) {
  constexpr float LEAST = -126;
  x = x < LEAST ? Floats{} + LEAST : x;
#ifdef __AVX512F__
  Floats whole = (Floats)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);
  Floats rest = x - whole;
#else
  constexpr float TO_INTEGER = 12582912;
  Floats shifted = x + TO_INTEGER, rest = x - (shifted - TO_INTEGER);
#endif
  Floats sum;
  if constexpr (sizeof(W) == sizeof(float)) {  // within 1e-7
    sum = rest * 1.32647273e-3f + 9.67151299e-3f;
    for (float factor : {5.55073359e-2f, 2.40222424e-1f, 6.93147004e-1f}) sum = sum * rest + factor;
  } else {  // within 1e-4
    sum = rest * 5.50089292e-2f + 2.42210969e-1f;
    sum = sum * rest + 6.93282902e-1f;
  }
  sum = sum * rest + 1.0f;
#ifdef __AVX512F__
  return (Floats)_mm512_scalef_ps((__m512)sum, (__m512)whole);
#else
  Lanes<int32_t> is_nan = x != x, bits = (Lanes<int32_t>)sum + ((Lanes<int32_t>)shifted << 23);
  return (Floats)((bits & ~is_nan) | ((Lanes<int32_t>)x & is_nan));
#endif
}

// Keys and values of one head in panels: of keys (padded / PANEL, size / PAIR, PANEL, PAIR), of values
// (padded / PAIR, size, PAIR). Zeros follow the last key.
template <typename W>
struct Panels {
  W *keys, *values;
  int64_t number, padded, size;

  // Fill the panel that begins with key `first`.
  void fill(const float* key, int64_t key_stride, const float* value, int64_t value_stride,
            int64_t first) const {
    W *key_panel = keys + first * size, *value_panel = values + first * size;
    int64_t count = std::min(PANEL, number - first);
    if (count < PANEL) {
      std::fill(key_panel, key_panel + PANEL * size, W{});
      std::fill(value_panel, value_panel + PANEL * size, W{});
    }
    for (int64_t j = 0; j < count; j++) {
      const float *k = key + (first + j) * key_stride, *v = value + (first + j) * value_stride;
      for (int64_t d = 0; d < size; d += PAIR<W>)
        for (int64_t p = 0; p < PAIR<W>; p++)
          narrow(k[d + p], key_panel[(d / PAIR<W> * PANEL + j) * PAIR<W> + p]);
      for (int64_t d = 0; d < size; d++)
        narrow(v[d], value_panel[(j / PAIR<W> * size + d) * PAIR<W> + j % PAIR<W>]);
    }
  }
};

// What a few queries of one head read and write, all shaped (QUERIES, *).
template <typename W>
struct Few {
  int64_t size;
  std::vector<W> queries = std::vector<W>(QUERIES * size);  // in units of log 2
  std::vector<float> scores = std::vector<float>(QUERIES * KEYS_AT_ONCE);
  std::vector<W> shares = std::vector<W>(QUERIES * KEYS_AT_ONCE);
  std::vector<float> context = std::vector<float>(QUERIES * size);
  float highest[QUERIES], totals[QUERIES];

  void attend(const Panels<W>& panels) {
    std::fill(highest, highest + QUERIES, -INFINITY);
    std::fill(totals, totals + QUERIES, 0.0f);
    std::fill(context.begin(), context.end(), 0.0f);
    for (int64_t first = 0; first < panels.number; first += KEYS_AT_ONCE) {
      int64_t count = std::min(KEYS_AT_ONCE, panels.number - first);
      int64_t padded = (count + PANEL - 1) / PANEL * PANEL;
      for (int64_t j = 0; j < padded; j += PANEL) {
        Floats sums[QUERIES][PANEL_VECTORS] = {};
        multiply(queries.data(), size, panels.keys + (first + j) * size, PANEL, size / PAIR<W>,
                 sums);
        for (int q = 0; q < QUERIES; q++)
          for (int v = 0; v < PANEL_VECTORS; v++)
            put(&scores[q * KEYS_AT_ONCE + j + v * LANES], sums[q][v]);
      }
      for (int q = 0; q < QUERIES; q++) share(q, count, padded);
      int64_t d = 0;
      for (; d + PANEL <= size; d += PANEL) add_values<PANEL_VECTORS>(panels, first, padded, d);
      for (; d < size; d += LANES) add_values<1>(panels, first, padded, d);
    }
    for (int q = 0; q < QUERIES; q++)
      for (int64_t d = 0; d < size; d++) context[q * size + d] /= totals[q];
  }

  // Turn the scores of a query into shares, and scale down what was summed before.
  void share(int q, int64_t count, int64_t padded) {
    float* own = &scores[q * KEYS_AT_ONCE];
    std::fill(own + count, own + padded, -INFINITY);
    Floats most = Floats{} + highest[q], sums = {};
    for (int64_t j = 0; j < padded; j += LANES) {
      Floats lanes = wide_lanes(own + j);
      most = lanes > most ? lanes : most;
    }
    float top = largest_of(most);
    if (top == -INFINITY) top = 0;
    Floats kept = exp2_lanes<W>(Floats{} + (highest[q] - top));
    highest[q] = top;
    for (int64_t j = 0; j < padded; j += LANES) {
      Floats lanes = exp2_lanes<W>(wide_lanes(own + j) - top);
      sums += lanes;
      put(&shares[q * KEYS_AT_ONCE + j], lanes);
    }
    totals[q] = totals[q] * kept[0] + sum_of(sums);
    for (int64_t d = q * size; d < (q + 1) * size; d += LANES)
      put(&context[d], wide_lanes(&context[d]) * kept);
  }

  template <int VECTORS>
  void add_values(const Panels<W>& panels, int64_t first, int64_t padded, int64_t d) {
    Floats sums[QUERIES][VECTORS];
    for (int q = 0; q < QUERIES; q++)
      for (int v = 0; v < VECTORS; v++)
        sums[q][v] = wide_lanes(&context[q * size + d + v * LANES]);
    multiply(shares.data(), KEYS_AT_ONCE, panels.values + first * size + d * PAIR<W>, size,
             padded / PAIR<W>, sums);
    for (int q = 0; q < QUERIES; q++)
      for (int v = 0; v < VECTORS; v++) put(&context[q * size + d + v * LANES], sums[q][v]);
  }
};

// query, key, value: float32. The head size is a multiple of LANES. context: float32 (batch, queries,
// heads, head size).
template <typename W>
void attend_to_all(const Heads& heads, const Cached& query, const Cached& key, const Cached& value,
                   int64_t batch, float* context) {
  constexpr double LOG2_E = 1.4426950408889634;
  int64_t size = heads.head_size, units = batch * heads.heads, keys = key.tokens;
  int64_t padded = (keys + PANEL - 1) / PANEL * PANEL, width = heads.heads * size;
  float scaling = static_cast<float>(heads.scaling * LOG2_E);
  // Fresh memory would take a tenth of the time, which the system spends on its pages.
  static thread_local std::vector<W> panels;
  int64_t numbers = units * padded * size;
  if (2 * numbers > static_cast<int64_t>(panels.size())) panels.resize(2 * numbers);
  W *key_panels = panels.data(), *value_panels = key_panels + numbers;
  auto head_of = [&](const Cached& cached, int64_t unit) {
    return static_cast<const float*>(cached.data) + unit / heads.heads * cached.batch_stride +
           unit % heads.heads * cached.head_stride;
  };
  auto panels_of = [&](int64_t unit) {
    int64_t at = unit * padded * size;
    return Panels<W>{key_panels + at, value_panels + at, keys, padded, size};
  };
#pragma omp parallel
  {
    Few<W> few{size};
#pragma omp for schedule(static) collapse(2)
    for (int64_t unit = 0; unit < units; unit++)
      for (int64_t first = 0; first < padded; first += PANEL)
        panels_of(unit).fill(head_of(key, unit), key.token_stride, head_of(value, unit),
                             value.token_stride, first);
#pragma omp for schedule(dynamic) collapse(2)
    for (int64_t unit = 0; unit < units; unit++)
      for (int64_t begin = 0; begin < query.tokens; begin += QUERIES_OF_THREAD) {
        int64_t end = std::min(query.tokens, begin + QUERIES_OF_THREAD);
        for (int64_t token = begin; token < end; token += QUERIES) {
          int64_t rows = std::min<int64_t>(QUERIES, end - token);
          for (int64_t r = 0; r < rows; r++) {
            const float* own = head_of(query, unit) + (token + r) * query.token_stride;
            for (int64_t d = 0; d < size; d++) narrow(own[d] * scaling, few.queries[r * size + d]);
          }
          few.attend(panels_of(unit));
          for (int64_t r = 0; r < rows; r++) {
            int64_t row = unit / heads.heads * query.tokens + token + r;
            std::copy_n(&few.context[r * size], size,
                        context + row * width + unit % heads.heads * size);
          }
        }
      }
  }
  if (panels.size() * sizeof(W) > MOST_KEPT_BYTES) std::vector<W>().swap(panels);
}

}  // namespace
