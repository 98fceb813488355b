// Vectors of the processor's own length, and numbers in float32 and shorter types.
//
// They are those of GCC and clang; intrinsics stand where these make scalar code of them.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif

struct bfloat16 {
  uint16_t bits;
};

template <typename T>
using Lanes __attribute__((vector_size(LANES * sizeof(T)))) = T;
using Floats = Lanes<float>;

template <typename T>
inline Lanes<T> lanes_at(const void* data) {
  Lanes<T> result;
  std::memcpy(&result, data, sizeof result);
  return result;
}

inline Floats wide_lanes(const float* data) { return lanes_at<float>(data); }

// GCC 12 makes scalar code of __builtin_convertvector from 8 and 16 bits.
#if defined(__AVX512F__)
inline Floats wide_lanes(const int8_t* data) {
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)data)));
}
inline Floats wide_lanes(const bfloat16* data) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)data));
  return (Floats)_mm512_slli_epi32(wide, 16);
}
#elif defined(__AVX2__)
inline Floats wide_lanes(const int8_t* data) {
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)data)));
}
inline Floats wide_lanes(const bfloat16* data) {
  __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)data));
  return (Floats)_mm256_slli_epi32(wide, 16);
}
#else
inline Floats wide_lanes(const int8_t* data) {
  return __builtin_convertvector(__builtin_convertvector(lanes_at<int8_t>(data), Lanes<int32_t>),
                                 Floats);
}
inline Floats wide_lanes(const bfloat16* data) {
  return (Floats)(__builtin_convertvector(lanes_at<uint16_t>(data), Lanes<uint32_t>) << 16);
}
#endif

#if defined(__AVX512F__)
inline float sum_of(Floats lanes) { return _mm512_reduce_add_ps((__m512)lanes); }
#elif defined(__AVX2__)
inline float sum_of(Floats lanes) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128((__m256)lanes),
                           _mm256_extractf128_ps((__m256)lanes, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
#else
inline float sum_of(Floats lanes) {
  float sum = 0;
  for (int l = 0; l < LANES; l++) sum += lanes[l];
  return sum;
}
#endif

inline float largest_of(Floats lanes) {
#ifdef __AVX512F__
  return _mm512_reduce_max_ps((__m512)lanes);
#else
  return *std::max_element(&lanes[0], &lanes[0] + LANES);
#endif
}

// The sums of COUNT vectors, four at once: by turns that takes three times as many instructions.
template <int COUNT>
inline void sums_of(const Floats* lanes, float* sums) {
  int i = 0;
#ifdef __AVX2__
  for (; i + 4 <= COUNT; i += 4) {
#ifdef __AVX512F__
    auto pair = [](Floats a, Floats b) {
      return _mm512_add_ps(_mm512_unpacklo_ps((__m512)a, (__m512)b),
                           _mm512_unpackhi_ps((__m512)a, (__m512)b));
    };
    __m512d ab = (__m512d)pair(lanes[i], lanes[i + 1]), cd = (__m512d)pair(lanes[i + 2], lanes[i + 3]);
    __m512 whole = _mm512_add_ps((__m512)_mm512_unpacklo_pd(ab, cd),
                                 (__m512)_mm512_unpackhi_pd(ab, cd));
    __m256 upper = (__m256)_mm512_extractf64x4_pd((__m512d)whole, 1);
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(whole), upper);
#else
    auto pair = [](Floats a, Floats b) {
      return _mm256_add_ps(_mm256_unpacklo_ps((__m256)a, (__m256)b),
                           _mm256_unpackhi_ps((__m256)a, (__m256)b));
    };
    __m256d ab = (__m256d)pair(lanes[i], lanes[i + 1]), cd = (__m256d)pair(lanes[i + 2], lanes[i + 3]);
    __m256 half = _mm256_add_ps((__m256)_mm256_unpacklo_pd(ab, cd),
                                (__m256)_mm256_unpackhi_pd(ab, cd));
#endif
    _mm_storeu_ps(sums + i, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
  }
#endif
  for (; i < COUNT; i++) sums[i] = sum_of(lanes[i]);
}

// e to the power of each lane, within a few units in the last place; 0 and infinity beyond float32.
inline Floats exp_lanes(Floats x) {
  constexpr float LEAST = -87, LARGEST = 88, LOG2_E = 1.44269504f, TO_INTEGER = 12582912;
  constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
  Floats shifted = x * LOG2_E + TO_INTEGER, powers = shifted - TO_INTEGER;
  Floats rest = x - powers * LN2_HIGH - powers * LN2_LOW;
  Floats sum = rest * (1.0f / 5040) + (1.0f / 720);
  for (float factor : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    sum = sum * rest + factor;
  Lanes<int32_t> bits = (Lanes<int32_t>)sum + ((Lanes<int32_t>)shifted << 23);
  Lanes<int32_t> infinite = (Lanes<int32_t>)(Floats{} + INFINITY);
  Lanes<int32_t> is_large = x > LARGEST, is_nan = x != x;
  bits = (bits & (x >= LEAST) & ~is_large) | (infinite & is_large);
  return (Floats)((bits & ~is_nan) | ((Lanes<int32_t>)x & is_nan));
}

// The error function within 3e-7, after Abramowitz and Stegun, 7.1.26.
inline Floats erf_lanes(Floats x) {
  Floats size = x < 0 ? -x : x, share = 1.0f / (1.0f + 0.3275911f * size);
  Floats sum = Floats{} + 1.061405429f;
  for (float factor : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f})
    sum = sum * share + factor;
  Floats result = 1.0f - sum * share * exp_lanes(-x * x);
  return x < 0 ? -result : result;
}

inline float widen(float value) { return value; }
inline float widen(int8_t value) { return static_cast<float>(value); }
inline float widen(bfloat16 value) {
  uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

inline void narrow(float value, float& result) { result = value; }
inline void narrow(float value, bfloat16& result) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (std::isnan(value)) {
    result.bits = 0x7FC0;
  } else {  // to nearest, ties to even
    result.bits = static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
  }
}

template <typename W>
inline float product(const W* weight, const float* x, int64_t size) {
  Floats lanes = {};
  int64_t k = 0;
  for (; k + LANES <= size; k += LANES) lanes += wide_lanes(weight + k) * wide_lanes(x + k);
  float sum = sum_of(lanes);
  for (; k < size; k++) sum += widen(weight[k]) * x[k];
  return sum;
}

enum Type : int64_t { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, INT4 = 3 };

inline bool has_few_bits(int64_t type) { return type == INT8 || type == INT4; }

inline float load(const void* data, int64_t type, int64_t index) {
  return type == FLOAT32 ? static_cast<const float*>(data)[index]
                         : widen(static_cast<const bfloat16*>(data)[index]);
}

inline void store(void* data, int64_t type, int64_t index, float value) {
  if (type == FLOAT32) {
    static_cast<float*>(data)[index] = value;
  } else {
    narrow(value, static_cast<bfloat16*>(data)[index]);
  }
}

}  // namespace
