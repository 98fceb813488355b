// Rows of activations, in the types in which the processor multiplies them with weights.
//
// Widening weights to float32 would take longer than reading them. So where the processor has the
// instructions for it, weights in bfloat16 are multiplied with activations in bfloat16, those in 8 bits
// with activations in 16 bits, and those in 4 bits with activations in 8 bits. Activations in 16 and 8
// bits share a scale in groups of 256 and of 64: sums are exact within a group, and the largest error
// of an activation is 1/65534 and 1/254 of the largest in its group.

#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t GROUP = 256;

// Activations in 8 bits: value i is steps[i] * scale. sums[i] is that of four, from value 4 * i on.
struct EightBits {
  static constexpr int64_t NUMBER = 64;
  int8_t steps[NUMBER];
  float sums[NUMBER / 4];
  float scale;
};

struct FourBits;  // see four_bits.h

template <typename W>
struct MultipliedWith {
  using Type = float;
};
#ifdef __AVX2__
template <>
struct MultipliedWith<int8_t> {
  using Type = int16_t;
};
template <>
struct MultipliedWith<FourBits> {
  using Type = EightBits;
};
#endif
#ifdef __AVX512BF16__
template <>
struct MultipliedWith<bfloat16> {
  using Type = bfloat16;
};
#endif

inline void narrow_all(const float* x, bfloat16* result, int64_t size) {
  int64_t i = 0;
#ifdef __AVX512BF16__
  for (; i + LANES <= size; i += LANES) {
    __m256bh brief = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
    std::memcpy(result + i, &brief, sizeof brief);
  }
#endif
  for (; i < size; i++) narrow(x[i], result[i]);
}

// Numbers in integers of up to LARGEST, and what they must be multiplied with: NaN if one of them is
// not finite.
template <typename T, int LARGEST>
inline float to_integers(const float* x, T* result, int64_t size) {
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
  float factor = LARGEST / largest;
  for (int64_t i = 0; i < size; i++) {
    float shifted = x[i] * factor + TO_INTEGER;
    int32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    result[i] = static_cast<T>(bits);
  }
  return largest / LARGEST;
}

inline void narrow_all(const float* x, EightBits* result, int64_t size) {
  for (; size > 0; size -= EightBits::NUMBER, x += EightBits::NUMBER, result++) {
    result->scale = to_integers<int8_t, 127>(x, result->steps, EightBits::NUMBER);
    for (int64_t i = 0; i < EightBits::NUMBER / 4; i++) {
      const int8_t* four = result->steps + 4 * i;
      result->sums[i] = (four[0] + four[1] + four[2] + four[3]) * result->scale;
    }
  }
}

class Activations {
 public:
  const int64_t rows, size;

  Activations(int64_t rows, int64_t size) : rows(rows), size(size), wide_(rows * size) {}

  float* row(int64_t r) { return &wide_[r * size]; }

  // How many parts of them must be narrowed before they are multiplied with weights of a type.
  int64_t reserve(int64_t type) {
    if (type == INT8 && !std::is_same_v<MultipliedWith<int8_t>::Type, float>) {
      short_.resize(rows * size);
      scales_.resize(rows * groups());
      return rows * groups();
    }
    if (type == INT4 && !std::is_same_v<MultipliedWith<FourBits>::Type, float>) {
      bytes_.resize(rows * size / EightBits::NUMBER);
      return rows * groups();
    }
    if (type == BFLOAT16 && !std::is_same_v<MultipliedWith<bfloat16>::Type, float>) {
      brief_.resize(rows * size);
      return rows * groups();
    }
    return 0;
  }

  void narrow_part(int64_t type, int64_t part) {
    int64_t begin = part / groups() * size + part % groups() * GROUP;
    int64_t count = std::min(GROUP, size - part % groups() * GROUP);
    if (type == INT8)
      scales_[part] = to_integers<int16_t, 32767>(&wide_[begin], &short_[begin], count);
    else if (type == INT4)
      narrow_all(&wide_[begin], &bytes_[begin / EightBits::NUMBER], count);
    else
      narrow_all(&wide_[begin], &brief_[begin], count);
  }

  // Narrow all of them, unless that was done for another linear.
  void prepare(int64_t type) {
    if (type == INT8 ? !short_.empty() : type == INT4 ? !bytes_.empty() : !brief_.empty()) return;
    int64_t parts = reserve(type);
    for (int64_t part = 0; part < parts; part++) narrow_part(type, part);
  }

  // One row, and the scales of its groups: null but for 16 bits.
  const float* multiplied(int64_t r, float) const { return &wide_[r * size]; }
  const int16_t* multiplied(int64_t r, int16_t) const { return &short_[r * size]; }
  const bfloat16* multiplied(int64_t r, bfloat16) const { return &brief_[r * size]; }
  const EightBits* multiplied(int64_t r, EightBits) const {
    return &bytes_[r * size / EightBits::NUMBER];
  }
  const float* scales(int64_t r) const {
    return scales_.empty() ? nullptr : &scales_[r * groups()];
  }

 private:
  int64_t groups() const { return (size + GROUP - 1) / GROUP; }

  std::vector<float> wide_, scales_;
  std::vector<int16_t> short_;
  std::vector<EightBits> bytes_;
  std::vector<bfloat16> brief_;
};

}  // namespace
