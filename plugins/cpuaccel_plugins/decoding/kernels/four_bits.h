// Weights in 4 bits: groups of 32 with one scale, and their products.

#pragma once

#include <algorithm>

#include "activations.h"
#include "products.h"
#include "vectors.h"

namespace {

// 64 weights that follow each other in a row, in two groups: the first one in the lower bits, the
// second one in the upper ones. A weight is (bits - 8) * scale.
struct FourBits {
  static constexpr int GROUP = 32, NUMBER = 2 * GROUP;
  bfloat16 scales[2];
  uint8_t bits[GROUP];

  int step(int i) const { return (i < GROUP ? bits[i] & 15 : bits[i - GROUP] >> 4) - 8; }
  float weight(int i) const { return step(i) * widen(scales[i / GROUP]); }
};
static_assert(sizeof(FourBits) == 36 && FourBits::NUMBER == EightBits::NUMBER);

template <typename W>
struct WeightsIn {
  static constexpr int NUMBER = 1;
};
template <>
struct WeightsIn<FourBits> {
  static constexpr int NUMBER = FourBits::NUMBER;
};

#ifdef __AVX512BW__
// Weights as a vector of bytes, and the scale of each sum of four products.
struct Unpacked {
  __m512i steps;
  Floats scales;

  explicit Unpacked(const FourBits& weights) {
    __m256i bytes = _mm256_loadu_si256((const __m256i*)weights.bits), mask = _mm256_set1_epi8(15);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
    steps = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_and_si256(bytes, mask)), high, 1);
    int32_t both;
    std::memcpy(&both, weights.scales, sizeof both);
    const __m512i shifts = _mm512_inserti64x4(_mm512_set1_epi32(16), _mm256_setzero_si256(), 1);
    __m512i shifted = _mm512_sllv_epi32(_mm512_set1_epi32(both), shifts);
    scales = (Floats)_mm512_and_si512(shifted, _mm512_set1_epi32(0xFFFF0000));
  }

  Floats products(const EightBits& x) const {
    __m512i values = _mm512_loadu_si512(x.steps), sums = _mm512_loadu_si512(x.offsets);
#ifdef __AVX512VNNI__
    sums = _mm512_dpbusd_epi32(sums, steps, values);
#else
    __m512i pairs = _mm512_maddubs_epi16(steps, values);
    sums = _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#endif
    return to_floats(sums) * (scales * x.scale);
  }
};
#elif defined(__AVX2__)
struct Unpacked {
  __m256i low, high;
  float scales[2];

  explicit Unpacked(const FourBits& weights)
      : scales{widen(weights.scales[0]), widen(weights.scales[1])} {
    __m256i bytes = _mm256_loadu_si256((const __m256i*)weights.bits), mask = _mm256_set1_epi8(15);
    low = _mm256_and_si256(bytes, mask);
    high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
  }

  static Floats group_products(__m256i steps, const int8_t* x, const int32_t* offsets) {
    __m256i pairs = _mm256_maddubs_epi16(steps, _mm256_loadu_si256((const __m256i*)x));
    __m256i sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    return to_floats(_mm256_add_epi32(sums, _mm256_loadu_si256((const __m256i*)offsets)));
  }

  Floats products(const EightBits& x) const {
    return group_products(low, x.steps, x.offsets) * (scales[0] * x.scale) +
           group_products(high, x.steps + FourBits::GROUP, x.offsets + FourBits::GROUP / 4) *
               (scales[1] * x.scale);
  }
};
#endif

#ifdef __AVX2__
template <int ROWS, int OUTPUTS>
inline void products(const FourBits* weight, const EightBits* x, const float*, int64_t size,
                     float* sums) {
  int64_t row = size / FourBits::NUMBER;
  Floats lanes[OUTPUTS][ROWS] = {};
  for (int64_t k = 0; k < row; k++)
    for (int o = 0; o < OUTPUTS; o++) {
      const FourBits* at = weight + o * row + k;
      __builtin_prefetch(reinterpret_cast<const char*>(at) + AHEAD);
      Unpacked weights(*at);
      for (int r = 0; r < ROWS; r++) lanes[o][r] += weights.products(x[r * row + k]);
    }
  for (int o = 0; o < OUTPUTS; o++)
    for (int r = 0; r < ROWS; r++) sums[o * ROWS + r] = sum_of(lanes[o][r]);
}
#else
template <int ROWS, int OUTPUTS>
inline void products(const FourBits* weight, const float* x, const float*, int64_t size,
                     float* sums) {
  int64_t row = size / FourBits::NUMBER;
  for (int o = 0; o < OUTPUTS; o++)
    for (int r = 0; r < ROWS; r++) {
      float sum = 0;
      for (int64_t k = 0; k < size; k++)
        sum += weight[o * row + k / FourBits::NUMBER].weight(k % FourBits::NUMBER) * x[r * size + k];
      sums[o * ROWS + r] = sum;
    }
}
#endif

// The steps of one group, and its scale: the one with the least squared error among some.
struct Group {
  bfloat16 scale = {};
  uint8_t steps[FourBits::GROUP];

  explicit Group(const float* x) {
    constexpr float DIVISORS[] = {8, 7.5f, 7, 8.5f, 9, 9.5f, 10, -7, -7.5f, -8, -8.5f, -9};
    float largest = 0, least = INFINITY;
    for (int i = 0; i < FourBits::GROUP; i++)
      if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
    for (float divisor : DIVISORS) {
      bfloat16 tried;
      narrow(largest / divisor, tried);
      float step = widen(tried), inverse = step == 0 ? 0 : 1 / step, sum = 0;
      for (int i = 0; i < FourBits::GROUP; i++) {
        float error = nearest(x[i] * inverse) * step - x[i];
        sum += error * error;
      }
      if (sum < least) {
        least = sum;
        scale = tried;
      }
    }
    float step = widen(scale), inverse = step == 0 ? 0 : 1 / step;
    for (int i = 0; i < FourBits::GROUP; i++)
      steps[i] = static_cast<uint8_t>(nearest(x[i] * inverse) + 8);
  }

  static float nearest(float x) { return std::min(std::max(std::nearbyint(x), -8.0f), 7.0f); }
};

}  // namespace

extern "C" {

// Weights in float32 or bfloat16 to 4 bits, and back. count: how many blocks of 64 there are.
void cpuaccel_pack(const void* weight, int64_t type, FourBits* result, int64_t count) {
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < count; block++) {
    float x[FourBits::NUMBER];
    for (int i = 0; i < FourBits::NUMBER; i++)
      x[i] = load(weight, type, block * FourBits::NUMBER + i);
    Group low(x), high(x + FourBits::GROUP);
    result[block].scales[0] = low.scale;
    result[block].scales[1] = high.scale;
    for (int i = 0; i < FourBits::GROUP; i++)
      result[block].bits[i] = static_cast<uint8_t>(low.steps[i] | high.steps[i] << 4);
  }
}

void cpuaccel_unpack(const FourBits* weight, void* result, int64_t type, int64_t count) {
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < count; block++)
    for (int i = 0; i < FourBits::NUMBER; i++)
      store(result, type, block * FourBits::NUMBER + i, weight[block].weight(i));
}

}  // extern "C"
