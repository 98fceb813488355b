// A linear of a few rows: several outputs at once, of several rows at once.
//
// Weights are row-major, (outputs, inputs), in float32, bfloat16, 8 bits with a scale for each
// output, or 4 bits with a scale for each 32. No row of activations depends on another one.

#pragma once

#include "activations.h"
#include "four_bits.h"
#include "products.h"
#include "vectors.h"

extern "C" {

struct Linear {
  const void* weight;
  const float* scales;  // null but for 8 bits
  const float* bias;    // may be null
  int64_t outputs;
  int64_t inputs;
  int64_t type;
};

}  // extern "C"

namespace {

constexpr int BLOCK = 16;  // outputs that a thread computes in turn

template <typename W, int ROWS, int OUTPUTS>
inline void some_outputs(const Linear& linear, const Activations& x, int64_t row, float* y,
                         int64_t y_stride, int64_t begin, int64_t end) {
  const W* weight = static_cast<const W*>(linear.weight);
  int64_t row_size = x.size / WeightsIn<W>::NUMBER;
  auto* multiplied = x.multiplied(row, typename MultipliedWith<W>::Type{});
  int64_t n = begin;
  float sums[OUTPUTS * ROWS];
  auto finish = [&](int count) {
    for (int o = 0; o < count; o++)
      for (int r = 0; r < ROWS; r++) {
        float value = sums[o * ROWS + r];
        if (linear.scales) value *= linear.scales[n + o];
        if (linear.bias) value += linear.bias[n + o];
        y[r * y_stride + n + o - begin] = value;
      }
  };
  for (; n + OUTPUTS <= end; n += OUTPUTS) {
    products<ROWS, OUTPUTS>(weight + n * row_size, multiplied, x.scales(row), x.size, sums);
    finish(OUTPUTS);
  }
  for (; n < end; n++) {
    products<ROWS, 1>(weight + n * row_size, multiplied, x.scales(row), x.size, sums);
    finish(1);
  }
}

template <typename W>
inline void outputs_of(const Linear& linear, const Activations& x, float* y, int64_t y_stride,
                       int64_t begin, int64_t end) {
  for (int64_t row = 0; row < x.rows;) {
    int64_t taken = next_rows(x.rows - row);
    float* to = y + row * y_stride;
    switch (taken) {
      case 1: some_outputs<W, 1, 8>(linear, x, row, to, y_stride, begin, end); break;
      case 2: some_outputs<W, 2, 4>(linear, x, row, to, y_stride, begin, end); break;
      case 3: some_outputs<W, 3, 4>(linear, x, row, to, y_stride, begin, end); break;
#ifdef __AVX512F__
      case 5: some_outputs<W, 5, 4>(linear, x, row, to, y_stride, begin, end); break;
#endif
      default: some_outputs<W, 4, 4>(linear, x, row, to, y_stride, begin, end);
    }
    row += taken;
  }
}

// Outputs begin to end of all rows; y[0] is output begin of the first row. The activations must be
// prepared for the type of the weights.
void compute(const Linear& linear, const Activations& x, float* y, int64_t y_stride, int64_t begin,
             int64_t end) {
  switch (linear.type) {
    case FLOAT32: outputs_of<float>(linear, x, y, y_stride, begin, end); break;
    case BFLOAT16: outputs_of<bfloat16>(linear, x, y, y_stride, begin, end); break;
    case INT4: outputs_of<FourBits>(linear, x, y, y_stride, begin, end); break;
    default: outputs_of<int8_t>(linear, x, y, y_stride, begin, end);
  }
}

}  // namespace
