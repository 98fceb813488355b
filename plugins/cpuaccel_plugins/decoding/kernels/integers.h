// Rows of activations in integers, and how the processor multiplies them with weights in 8 bits.
//
// With AVX512-VNNI weights are multiplied with activations in 8 bits. Of a few rows, which reading the
// weights bounds, activations have 16 bits: a row is then two rows in 8 bits, of which the first is
// multiplied with 256. On other processors activations have 16 bits as they are: products of bytes could
// overflow there.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "vectors.h"

namespace {

constexpr int AHEAD = 2048;  // bytes: the processor's own prefetching stops where a page ends

// Into the second cache: in the first one it would take the place of the activations.
inline void prefetch(const int8_t* data) { __builtin_prefetch(data, 0, 2); }

#ifdef __AVX512VNNI__
// Unsigned bytes are multiplied with signed ones: weights are stored with 128 added.
using Step = int8_t;
constexpr int INTERLEAVED = 4, LARGEST_STEP = 127, ADDED = 128, MOST_PARTS = 2;
#else
using Step = int16_t;
constexpr int INTERLEAVED = 2, LARGEST_STEP = 32767, ADDED = 0, MOST_PARTS = 1;
#endif
constexpr int LARGEST_OF_PARTS = 127 * 256 + 127;

using Integers = Lanes<int32_t>;

inline Integers all_lanes(int32_t number) { return Integers{} + number; }

// INTERLEAVED activations, in each lane.
inline Integers interleaved_at(const Step* data) {
  int32_t lane;
  static_assert(sizeof lane == INTERLEAVED * sizeof(Step));
  std::memcpy(&lane, data, sizeof lane);
  return all_lanes(lane);
}

// INTERLEAVED weights for each lane, and the sums with their products added.
#if defined(__AVX512VNNI__)
inline Integers steps_at(const int8_t* data) { return lanes_at<int32_t>(data); }
inline Integers add_products(Integers sums, Integers steps, Integers values) {
  return (Integers)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)steps, (__m512i)values);
}
#elif defined(__AVX512BW__)
inline Integers steps_at(const int8_t* data) {
  return (Integers)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)data));
}
inline Integers add_products(Integers sums, Integers steps, Integers values) {
  return sums + (Integers)_mm512_madd_epi16((__m512i)steps, (__m512i)values);
}
#elif defined(__AVX2__)
inline Integers steps_at(const int8_t* data) {
  return (Integers)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)data));
}
inline Integers add_products(Integers sums, Integers steps, Integers values) {
  return sums + (Integers)_mm256_madd_epi16((__m256i)steps, (__m256i)values);
}
#else
inline Integers steps_at(const int8_t* data) {
  int16_t wide[2 * LANES];
  for (int i = 0; i < 2 * LANES; i++) wide[i] = data[i];
  return lanes_at<int32_t>(wide);
}
inline Integers add_products(Integers sums, Integers steps, Integers values) {
  Integers first = (steps << 16 >> 16) * (values << 16 >> 16);
  return sums + first + (steps >> 16) * (values >> 16);
}
#endif

// GCC would read the same weights from memory for each row of activations.
inline void keep_in_register(Integers& steps) {
#ifdef __AVX512F__
  asm("" : "+v"(steps));
#endif
}

inline Floats to_floats(Integers integers) { return __builtin_convertvector(integers, Floats); }

// Numbers in integers of up to `most`, and what they must be multiplied with: NaN if one of them is not
// finite.
template <typename T>
inline float to_steps(const float* x, T* result, int64_t size, int most) {
  constexpr float SMALLEST = 1e-30f;      // the inverse of the scale must be finite
  constexpr float TO_INTEGER = 12582912;  // 1.5 * 2^23: the last bits are the integer
  uint32_t largest_bits = 0;
  for (int64_t i = 0; i < size; i++) {
    uint32_t bits;
    std::memcpy(&bits, x + i, sizeof bits);
    largest_bits = std::max(largest_bits, bits & 0x7FFFFFFF);
  }
  float largest;
  std::memcpy(&largest, &largest_bits, sizeof largest);
  if (!(largest >= SMALLEST && std::isfinite(largest))) {
    std::fill(result, result + size, static_cast<T>(0));
    return std::isfinite(largest) ? 0.0f : NAN;
  }
  float factor = most / largest;
  for (int64_t i = 0; i < size; i++) {
    float shifted = x[i] * factor + TO_INTEGER;
    int32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    result[i] = static_cast<T>(bits);
  }
  return largest / most;
}

// Some activations of a row, which share a scale.
struct QuantizedGroup {
  static constexpr int SIZE = 32;
  float scale;
  float sum;      // of the steps
  int32_t start;  // of sums of products with weights that have ADDED
  Step steps[SIZE];
};

// Rows of activations. A row has one part, or two: see above.
class QuantizedRows {
 public:
  static constexpr int64_t GROUP = QuantizedGroup::SIZE;
  int64_t groups = 0;
  int parts = 1;

  QuantizedRows() = default;
  QuantizedRows(int64_t rows, int64_t size, int parts = 1) { resize(rows, size, parts); }

  static int64_t padded(int64_t size) { return (size + GROUP - 1) / GROUP * GROUP; }

  void resize(int64_t rows, int64_t size, int row_parts) {
    parts = row_parts;
    groups = padded(size) / GROUP;
    data_.resize(rows * parts * groups);
  }

  bool empty() const { return data_.empty(); }

  // The first group of a part of a row: `row` counts the parts of all rows before it, too.
  const QuantizedGroup* row(int64_t row) const { return &data_[row * groups]; }

  // Set `count` numbers of a row from `column` on, which begins a group, and pads the last one.
  void set(int64_t row, int64_t column, const float* x, int64_t count) {
    for (int64_t at = 0; at < count; at += GROUP) {
      int64_t group = (column + at) / GROUP, full = std::min(GROUP, count - at);
      if (parts == 1) {
        Step steps[GROUP] = {};
        set_part(row, group, steps, to_steps(x + at, steps, full, LARGEST_STEP));
        continue;
      }
      int16_t both[GROUP] = {};
      Step high[GROUP], low[GROUP];
      float scale = to_steps(x + at, both, full, LARGEST_OF_PARTS);
      for (int i = 0; i < GROUP; i++) {
        low[i] = static_cast<int8_t>(both[i]);
        high[i] = static_cast<Step>((both[i] - low[i]) / 256);
      }
      set_part(2 * row, group, high, 256 * scale);
      set_part(2 * row + 1, group, low, scale);
    }
  }

 private:
  std::vector<QuantizedGroup> data_;

  void set_part(int64_t row, int64_t group, const Step (&steps)[GROUP], float scale) {
    QuantizedGroup& set = data_[row * groups + group];
    int32_t sum = std::accumulate(steps, steps + GROUP, 0);
    set.scale = scale;
    set.sum = static_cast<float>(sum);
    set.start = -ADDED * sum;
    std::copy(steps, steps + GROUP, set.steps);
  }
};

}  // namespace
