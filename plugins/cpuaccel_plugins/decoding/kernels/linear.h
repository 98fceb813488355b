// Linears of a few rows, and, with packed weights, of many.
//
// Weights are row-major, (outputs, inputs), in float32 or bfloat16, or packed in 8 or 4 bits: in panels
// of as many outputs as a vector has lanes. So a thread reads weights from one place to the next, and
// no sum over lanes is needed. No row of activations depends on another one.

#pragma once

#include "activations.h"
#include "packing.h"
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

// What is computed at once where rows are many: its sums fit into the registers twice.
#ifdef __AVX512F__
constexpr int TILE_ROWS = 6, TILE_PANELS = 2;
#else
constexpr int TILE_ROWS = 2, TILE_PANELS = 2;
#endif

template <typename W>
inline void outputs_of(const Linear& linear, const Activations& x, float* y, int64_t y_stride,
                       int64_t begin, int64_t end) {
  constexpr int OUTPUTS = 4;
  const W* weight = static_cast<const W*>(linear.weight);
  for_some_rows(x.rows, [&](auto number, int64_t row) {
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
      products<ROWS, OUTPUTS>(weight + n * x.size, multiplied, x.size, sums);
      finish(n, OUTPUTS);
    }
    for (; n < end; n++) {
      products<ROWS, 1>(weight + n * x.size, multiplied, x.size, sums);
      finish(n, 1);
    }
  });
}

// Those sums of a panel's outputs, with biases, that are between `begin` and `end`; y[0] is `begin`.
inline void store_sums(const Linear& linear, const Floats& sums, int64_t panel, int64_t begin,
                       int64_t end, float* y) {
  int64_t first = panel * LANES;
  if (begin <= first && first + LANES <= end) {
    Floats whole = linear.bias ? sums + wide_lanes(linear.bias + first) : sums;
    std::memcpy(y + first - begin, &whole, sizeof whole);
    return;
  }
  for (int64_t n = std::max(begin, first); n < std::min(end, first + LANES); n++)
    y[n - begin] = sums[n - first] + (linear.bias ? linear.bias[n] : 0);
}

template <int PARTS, typename Format>
inline void packed_outputs(const Format& format, const Linear& linear, const QuantizedRows& x,
                           int64_t rows, float* y, int64_t y_stride, int64_t begin, int64_t end) {
  for (int64_t panel = begin / LANES; panel * LANES < end; panel++) {
    const int8_t* at = static_cast<const int8_t*>(linear.weight) + panel * format.panel_bytes;
    for_some_rows<PARTS == 1 ? MOST_AT_ONCE : PRECISE_ROWS>(rows, [&](auto number, int64_t row) {
      constexpr int ROWS = decltype(number)::value;
      Floats sums[1][PARTS * ROWS];
      format.template sums<PARTS * ROWS, 1>(at, x, PARTS * row, sums);
      for (int r = 0; r < ROWS; r++) {
        Floats sum = sums[0][PARTS * r];
        for (int part = 1; part < PARTS; part++) sum += sums[0][PARTS * r + part];
        store_sums(linear, sum, panel, begin, end, y + (row + r) * y_stride);
      }
    });
  }
}

// Outputs begin to end of all rows; y[0] is output begin of the first row. The activations must be
// prepared for the type of the weights.
void compute(const Linear& linear, const Activations& x, float* y, int64_t y_stride, int64_t begin,
             int64_t end) {
  switch (linear.type) {
    case FLOAT32: outputs_of<float>(linear, x, y, y_stride, begin, end); break;
    case BFLOAT16: outputs_of<bfloat16>(linear, x, y, y_stride, begin, end); break;
    default:
      with_format(linear.type, linear.inputs, [&](auto format) {
        if (x.quantized().parts == 1)
          packed_outputs<1>(format, linear, x.quantized(), x.rows, y, y_stride, begin, end);
        else
          packed_outputs<MOST_PARTS>(format, linear, x.quantized(), x.rows, y, y_stride, begin, end);
      });
  }
}

template <typename Format>
inline void packed_rows(const Format& format, const Linear& linear, const QuantizedRows& x,
                        int64_t rows, float* y, int64_t y_stride) {
  constexpr int64_t CHUNK = 64;  // rows that a thread computes with the same weights
  int64_t panels = panels_of(linear.outputs);
#pragma omp for schedule(static) collapse(2)
  for (int64_t first = 0; first < panels; first += TILE_PANELS)
    for (int64_t chunk = 0; chunk < rows; chunk += CHUNK) {
      const int8_t* at = static_cast<const int8_t*>(linear.weight) + first * format.panel_bytes;
      int64_t end = std::min(rows, chunk + CHUNK);
      for (int64_t row = chunk; row < end; row += TILE_ROWS)
        with_constant<TILE_PANELS>(panels - first, [&](auto panel_number) {
          with_constant<TILE_ROWS>(end - row, [&](auto row_number) {
            constexpr int PANELS = decltype(panel_number)::value;
            constexpr int ROWS = decltype(row_number)::value;
            Floats sums[PANELS][ROWS];
            format.template sums<ROWS, PANELS>(at, x, row, sums);
            for (int p = 0; p < PANELS; p++)
              for (int r = 0; r < ROWS; r++)
                store_sums(linear, sums[p][r], first + p, 0, linear.outputs,
                           y + (row + r) * y_stride);
          });
        });
    }
}

// All outputs of many rows, with packed weights. Within a parallel region.
inline void many_rows(const Linear& linear, const QuantizedRows& x, int64_t rows, float* y,
                      int64_t y_stride) {
  with_format(linear.type, linear.inputs,
              [&](auto format) { packed_rows(format, linear, x, rows, y, y_stride); });
}

}  // namespace
