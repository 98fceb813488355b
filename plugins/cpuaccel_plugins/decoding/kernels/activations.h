// Rows of activations, in the types in which the processor multiplies them with weights.
//
// Widening weights to float32 would take longer than reading them. So where the processor has the
// instructions for it, weights in bfloat16 are multiplied with activations in bfloat16, and those in 8
// and 4 bits with activations in integers (integers.h).

#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "integers.h"
#include "vectors.h"

namespace {

constexpr int64_t PRECISE_ROWS = 4;  // up to as many rows have 16 bits for weights of few bits
constexpr int64_t PART = 256;  // activations that a thread narrows in turn

template <typename W>
struct MultipliedWith {
  using Type = float;
};
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

class Activations {
 public:
  const int64_t rows, size;

  Activations(int64_t rows, int64_t size) : rows(rows), size(size), wide_(rows * size) {}

  float* row(int64_t r) { return &wide_[r * size]; }

  // How many parts of them must be narrowed before they are multiplied with weights of a type.
  int64_t reserve(int64_t type) {
    if (has_few_bits(type)) {
      quantized_.resize(rows, size, rows <= PRECISE_ROWS ? MOST_PARTS : 1);
      return rows * parts();
    }
    if (type == BFLOAT16 && !std::is_same_v<MultipliedWith<bfloat16>::Type, float>) {
      brief_.resize(rows * size);
      return rows * parts();
    }
    return 0;
  }

  void narrow_part(int64_t type, int64_t part) {
    int64_t row = part / parts(), column = part % parts() * PART;
    int64_t begin = row * size + column, count = std::min(PART, size - column);
    if (has_few_bits(type))
      quantized_.set(row, column, &wide_[begin], count);
    else
      narrow_all(&wide_[begin], &brief_[begin], count);
  }

  // Narrow all of them, unless that was done for another linear.
  void prepare(int64_t type) {
    if (has_few_bits(type) ? !quantized_.empty() : !brief_.empty()) return;
    int64_t parts = reserve(type);
    for (int64_t part = 0; part < parts; part++) narrow_part(type, part);
  }

  // One row, in the type that weights are multiplied with.
  const float* multiplied(int64_t r, float) const { return &wide_[r * size]; }
  const bfloat16* multiplied(int64_t r, bfloat16) const { return &brief_[r * size]; }
  const QuantizedRows& quantized() const { return quantized_; }

 private:
  int64_t parts() const { return (size + PART - 1) / PART; }

  std::vector<float> wide_;
  std::vector<bfloat16> brief_;
  QuantizedRows quantized_;
};

}  // namespace
