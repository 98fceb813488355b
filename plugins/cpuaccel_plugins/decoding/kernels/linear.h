// Linears of a few rows, and of many with weights in 8 bits.
//
// Weights are row-major, (outputs, inputs), in float32, bfloat16, or 4 bits with a scale for each 32;
// or packed in 8 bits. No row of activations depends on another one.

#pragma once

#include "activations.h"
#include "eight_bits.h"
#include "four_bits.h"
#include "products.h"
#include "vectors.h"

extern "C" {

struct Linear {
  const void* weight;
  const float* bias;  // may be null
  int64_t outputs;
  int64_t inputs;
  int64_t type;
};

}  // extern "C"

namespace {

constexpr int BLOCK = 16;  // outputs that a thread computes in turn

constexpr int TILE_ROWS = 4, TILE_PANELS = 4;  // what is computed at once where rows are many

template <typename W>
inline void outputs_of(const Linear& linear, const Activations& x, float* y, int64_t y_stride,
                       int64_t begin, int64_t end) {
  constexpr int OUTPUTS = 4;
  const W* weight = static_cast<const W*>(linear.weight);
  int64_t row_size = x.size / WeightsIn<W>::NUMBER;
  for (int64_t row = 0; row < x.rows;) {
    int64_t taken = next_rows(x.rows - row);
    with_constant<MOST_AT_ONCE>(taken, [&](auto number) {
      constexpr int ROWS = decltype(number)::value;
      auto* multiplied = x.multiplied(row, typename MultipliedWith<W>::Type{});
      float sums[OUTPUTS * ROWS];
      auto finish = [&](int64_t n, int64_t count) {
        for (int64_t o = 0; o < count; o++)
          for (int r = 0; r < ROWS; r++)
            y[(row + r) * y_stride + n + o - begin] =
                sums[o * ROWS + r] + (linear.bias ? linear.bias[n + o] : 0);
      };
      int64_t n = begin;
      for (; n + OUTPUTS <= end; n += OUTPUTS) {
        products<ROWS, OUTPUTS>(weight + n * row_size, multiplied, x.size, sums);
        finish(n, OUTPUTS);
      }
      for (; n < end; n++) {
        products<ROWS, 1>(weight + n * row_size, multiplied, x.size, sums);
        finish(n, 1);
      }
    });
    row += taken;
  }
}

// Store the sums of a panel's outputs that are among those from `begin` to `end`.
template <typename Store>
inline void store_sums(const Linear& linear, const Floats& sums, int64_t panel, int64_t begin,
                       int64_t end, Store store) {
  int64_t first = panel * LANES;
  for (int64_t n = std::max(begin, first); n < std::min(end, first + LANES); n++)
    store(n, sums[n - first] + (linear.bias ? linear.bias[n] : 0));
}

inline void packed_outputs(const Linear& linear, const QuantizedRows& x, int64_t rows, float* y,
                           int64_t y_stride, int64_t begin, int64_t end) {
  Packed packed(linear.inputs);
  for (int64_t panel = begin / LANES; panel * LANES < end; panel++) {
    const int8_t* at = static_cast<const int8_t*>(linear.weight) + panel * packed.panel_bytes;
    for (int64_t row = 0; row < rows;) {
      int64_t taken = next_rows(rows - row);
      with_constant<MOST_AT_ONCE>(taken, [&](auto number) {
        constexpr int ROWS = decltype(number)::value;
        Floats sums[1][ROWS];
        packed_sums<ROWS, 1>(at, packed, x, row, sums);
        for (int r = 0; r < ROWS; r++)
          store_sums(linear, sums[0][r], panel, begin, end,
                     [&](int64_t n, float sum) { y[(row + r) * y_stride + n - begin] = sum; });
      });
      row += taken;
    }
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
    default: packed_outputs(linear, x.quantized(), x.rows, y, y_stride, begin, end);
  }
}

// Many rows, with weights in 8 bits: y in the type of x.
void compute_many(const Linear& linear, const void* x, void* y, int64_t type, int64_t rows) {
  constexpr int64_t CHUNK = 16 * TILE_ROWS;  // rows that a thread computes with the same weights
  Packed packed(linear.inputs);
  QuantizedRows quantized;
  quantized.resize(rows, linear.inputs);
  int64_t panels = Packed::panels(linear.outputs), inputs = linear.inputs;
#pragma omp parallel
  {
    std::vector<float> wide(inputs);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
      for (int64_t i = 0; i < inputs; i++) wide[i] = load(x, type, row * inputs + i);
      quantized.set(row, 0, wide.data(), inputs);
    }
#pragma omp for schedule(static) collapse(2)
    for (int64_t first = 0; first < panels; first += TILE_PANELS)
      for (int64_t chunk = 0; chunk < rows; chunk += CHUNK) {
        const int8_t* at = static_cast<const int8_t*>(linear.weight) + first * packed.panel_bytes;
        int64_t count = std::min<int64_t>(TILE_PANELS, panels - first);
        int64_t end = std::min(rows, chunk + CHUNK);
        for (int64_t row = chunk; row < end; row += TILE_ROWS)
          with_constant<TILE_PANELS>(count, [&](auto panel_number) {
            with_constant<TILE_ROWS>(end - row, [&](auto row_number) {
              constexpr int p = decltype(panel_number)::value;
              constexpr int r = decltype(row_number)::value;
              Floats sums[p][r];
              packed_sums<r, p>(at, packed, quantized, row, sums);
              for (int i = 0; i < p; i++)
                for (int j = 0; j < r; j++)
                  store_sums(linear, sums[i][j], first + i, 0, linear.outputs,
                             [&](int64_t n, float sum) {
                               store(y, type, (row + j) * linear.outputs + n, sum);
                             });
            });
          });
      }
  }
}

}  // namespace
