// Weights in 4 bits: groups of 32 with a scale and a least weight, and their products.

#pragma once

#include <algorithm>
#include <utility>

#include "activations.h"
#include "products.h"
#include "vectors.h"

namespace {

// 64 weights that follow each other in a row, in two groups: the first one in the lower bits, the
// second one in the upper ones. A weight is bits * scale + least.
struct FourBits {
  static constexpr int GROUP = 32, NUMBER = 2 * GROUP, LARGEST = 15;
  bfloat16 scales[2], least[2];
  uint8_t bits[GROUP];

  void unpack(float* x) const {
    for (int i = 0; i < GROUP; i++) {
      x[i] = (bits[i] & LARGEST) * widen(scales[0]) + widen(least[0]);
      x[i + GROUP] = (bits[i] >> 4) * widen(scales[1]) + widen(least[1]);
    }
  }
};
static_assert(sizeof(FourBits) == 40 && FourBits::NUMBER == EightBits::NUMBER);

template <typename W>
struct WeightsIn {
  static constexpr int NUMBER = 1;
};
template <>
struct WeightsIn<FourBits> {
  static constexpr int NUMBER = FourBits::NUMBER;
};

#ifdef __AVX512BW__
// Two numbers, each for the lanes of one group.
inline Floats of_groups(const bfloat16* numbers) {
  int32_t both;
  std::memcpy(&both, numbers, sizeof both);
  const __m512i shifts = _mm512_inserti64x4(_mm512_set1_epi32(16), _mm256_setzero_si256(), 1);
  __m512i shifted = _mm512_sllv_epi32(_mm512_set1_epi32(both), shifts);
  return (Floats)_mm512_and_si512(shifted, _mm512_set1_epi32(0xFFFF0000));
}

// Weights as a vector of bytes, and what each sum of four products is scaled with.
struct Unpacked {
  __m512i steps;
  Floats scales, least;

  explicit Unpacked(const FourBits& weights)
      : scales(of_groups(weights.scales)), least(of_groups(weights.least)) {
    __m256i bytes = _mm256_loadu_si256((const __m256i*)weights.bits), mask = _mm256_set1_epi8(15);
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
    steps = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_and_si256(bytes, mask)), high, 1);
  }

  Floats products(const EightBits& x) const {
    __m512i values = _mm512_loadu_si512(x.steps);
#ifdef __AVX512VNNI__
    __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), steps, values);
#else
    __m512i sums = _mm512_madd_epi16(_mm512_maddubs_epi16(steps, values), _mm512_set1_epi16(1));
#endif
    return to_floats((Integers)sums) * (scales * x.scale) + least * wide_lanes(x.sums);
  }
};
#elif defined(__AVX2__)
struct Unpacked {
  __m256i low, high;
  float scales[2], least[2];

  explicit Unpacked(const FourBits& weights)
      : scales{widen(weights.scales[0]), widen(weights.scales[1])},
        least{widen(weights.least[0]), widen(weights.least[1])} {
    __m256i bytes = _mm256_loadu_si256((const __m256i*)weights.bits), mask = _mm256_set1_epi8(15);
    low = _mm256_and_si256(bytes, mask);
    high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
  }

  static Floats sums_of_four(__m256i steps, const int8_t* x) {
    __m256i pairs = _mm256_maddubs_epi16(steps, _mm256_loadu_si256((const __m256i*)x));
    return to_floats((Integers)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  Floats products(const EightBits& x) const {
    return sums_of_four(low, x.steps) * (scales[0] * x.scale) + least[0] * wide_lanes(x.sums) +
           sums_of_four(high, x.steps + FourBits::GROUP) * (scales[1] * x.scale) +
           least[1] * wide_lanes(x.sums + LANES);
  }
};
#endif

#ifdef __AVX2__
template <int ROWS, int OUTPUTS>
inline void products(const FourBits* weight, const EightBits* x, int64_t size, float* sums) {
  int64_t row = size / FourBits::NUMBER;
  Floats lanes[OUTPUTS][ROWS] = {};
  for (int o = 0; o < OUTPUTS; o++)
    for (int64_t k = 0; k < row; k++) {
      const FourBits* at = weight + o * row + k;
      __builtin_prefetch(reinterpret_cast<const char*>(at) + AHEAD);
      Unpacked weights(*at);
      for (int r = 0; r < ROWS; r++) lanes[o][r] += weights.products(x[r * row + k]);
    }
  sums_of<OUTPUTS * ROWS>(&lanes[0][0], sums);
}
#else
template <int ROWS, int OUTPUTS>
inline void products(const FourBits* weight, const float* x, int64_t size, float* sums) {
  int64_t row = size / FourBits::NUMBER;
  for (int o = 0; o < OUTPUTS; o++)
    for (int r = 0; r < ROWS; r++) {
      float sum = 0, weights[FourBits::NUMBER];
      for (int64_t k = 0; k < row; k++) {
        weight[o * row + k].unpack(weights);
        sum += product(weights, x + r * size + k * FourBits::NUMBER, FourBits::NUMBER);
      }
      sums[o * ROWS + r] = sum;
    }
}
#endif

// The bits of one group, its scale and its least weight: those with the least squared error among
// some, which cut off more or less of the largest weights.
struct Group {
  bfloat16 scale = {}, least = {};
  uint8_t bits[FourBits::GROUP];

  explicit Group(const float* x) {
    auto [low, high] = std::minmax_element(x, x + FourBits::GROUP);
    float middle = *low / 2 + *high / 2, half = *high / 2 - *low / 2, best = INFINITY;
    float unit = half > 0 ? half : 1;  // squares of large weights are infinite
    for (float kept : {1.0f, 0.95f, 0.9f, 0.85f, 0.8f}) {
      bfloat16 step, from;
      narrow(half * kept / FourBits::LARGEST * 2, step);
      narrow(middle - half * kept, from);
      float error = 0;
      for (int i = 0; i < FourBits::GROUP; i++) {
        float missed = nearest(x[i], step, from) * widen(step) + widen(from) - x[i];
        error += missed / unit * (missed / unit);
      }
      if (error < best) {
        best = error;
        scale = step;
        least = from;
      }
    }
    for (int i = 0; i < FourBits::GROUP; i++)
      bits[i] = static_cast<uint8_t>(nearest(x[i], scale, least));
  }

  static float nearest(float x, bfloat16 scale, bfloat16 least) {
    float step = widen(scale), inverse = step == 0 ? 0 : 1 / step;
    float steps = std::nearbyint((x - widen(least)) * inverse);
    return std::min(std::max(steps, 0.0f), static_cast<float>(FourBits::LARGEST));
  }
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
    for (auto [group, of] : {std::pair(0, &low), std::pair(1, &high)}) {
      result[block].scales[group] = of->scale;
      result[block].least[group] = of->least;
    }
    for (int i = 0; i < FourBits::GROUP; i++)
      result[block].bits[i] = static_cast<uint8_t>(low.bits[i] | high.bits[i] << 4);
  }
}

void cpuaccel_unpack(const FourBits* weight, void* result, int64_t type, int64_t count) {
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < count; block++) {
    float x[FourBits::NUMBER];
    weight[block].unpack(x);
    if (type == FLOAT32)
      std::memcpy(static_cast<float*>(result) + block * FourBits::NUMBER, x, sizeof x);
    else
      narrow_all(x, static_cast<bfloat16*>(result) + block * FourBits::NUMBER, FourBits::NUMBER);
  }
}

}  // extern "C"
