// Weights in 8 bits, and their products with activations in integers.
//
// A panel of as many outputs as a vector has lanes has a block for each 64 inputs: two scales for each
// output, one for each 32 of these inputs, in bfloat16, then the weights, so that a vector holds
// INTERLEAVED inputs of all outputs.

#pragma once

#include <algorithm>
#include <cmath>

#include "integers.h"
#include "vectors.h"

namespace {

class EightBits {
 public:
  int64_t panel_bytes;

  explicit EightBits(int64_t inputs)
      : inputs_(QuantizedRows::padded(inputs)) {
    panel_bytes = (inputs_ + 2 * GROUP - 1) / (2 * GROUP) * BLOCK_BYTES;
  }

  // Sums of ROWS rows, from `row` on, for the outputs of PANELS panels.
  template <int ROWS, int PANELS>
  void sums(const int8_t* panels, const QuantizedRows& x, int64_t row,
            Floats (&result)[PANELS][ROWS]) const {
    const QuantizedGroup* first = x.row(row);
    Floats sums[PANELS][ROWS] = {};  // in registers, as the result is not
    for (int64_t group = 0; group < x.groups; group++) {
      const int8_t* steps_of_group = panels + place(group * GROUP, 0);
      Integers whole[PANELS][ROWS];
      for (int p = 0; p < PANELS; p++)
        for (int r = 0; r < ROWS; r++) whole[p][r] = all_lanes(first[r * x.groups + group].start);
#pragma GCC unroll 8
      for (int i = 0; i < GROUP; i += INTERLEAVED) {
        Integers steps[PANELS];
        for (int p = 0; p < PANELS; p++) {
          const int8_t* at = steps_of_group + p * panel_bytes + i * LANES;
          prefetch(at + (PANELS == 1 ? AHEAD : PANELS * panel_bytes));
          steps[p] = steps_at(at);
          keep_in_register(steps[p]);
        }
        for (int r = 0; r < ROWS; r++) {
          Integers values = interleaved_at(first[r * x.groups + group].steps + i);
          for (int p = 0; p < PANELS; p++)
            whole[p][r] = add_products(whole[p][r], steps[p], values);
        }
      }
      for (int p = 0; p < PANELS; p++) {
        const int8_t* scales = panels + p * panel_bytes + scales_place(group);
        Floats scale = wide_lanes(reinterpret_cast<const bfloat16*>(scales));
        for (int r = 0; r < ROWS; r++)
          sums[p][r] += to_floats(whole[p][r]) * (scale * first[r * x.groups + group].scale);
      }
    }
    for (int p = 0; p < PANELS; p++)
      for (int r = 0; r < ROWS; r++) result[p][r] = sums[p][r];
  }

  // Pack the weights of the output in a lane; x is padded with zeros. The panel is zero before.
  void pack(const float* x, int8_t* panel, int64_t lane) const {
    for (int64_t begin = 0; begin < inputs_; begin += GROUP) {
      bfloat16 scale = scale_of(x + begin);
      reinterpret_cast<bfloat16*>(panel + scales_place(begin / GROUP))[lane] = scale;
      for (int64_t i = begin; i < begin + GROUP; i++)
        panel[place(i, lane)] = static_cast<int8_t>(step_of(x[i], scale) + ADDED);
    }
  }

  void unpack(const int8_t* panel, int64_t lane, float* x) const {
    for (int64_t i = 0; i < inputs_; i++) {
      auto step = static_cast<int8_t>(panel[place(i, lane)] - ADDED);
      auto* scales = reinterpret_cast<const bfloat16*>(panel + scales_place(i / GROUP));
      x[i] = step * widen(scales[lane]);
    }
  }

 private:
  static constexpr int64_t GROUP = QuantizedRows::GROUP;  // inputs whose weights share a scale
  static constexpr int64_t SCALES = 2 * LANES * sizeof(bfloat16);
  static constexpr int64_t BLOCK_BYTES = SCALES + 2 * GROUP * LANES;
  int64_t inputs_;

  static int64_t scales_place(int64_t group) {
    return group / 2 * BLOCK_BYTES + group % 2 * (SCALES / 2);
  }

  static int64_t place(int64_t input, int64_t lane) {
    int64_t within = input % (2 * GROUP);
    return input / (2 * GROUP) * BLOCK_BYTES + SCALES +
           (within / INTERLEAVED * LANES + lane) * INTERLEAVED + within % INTERLEAVED;
  }

  // Where rounding makes the scale smaller, the largest step is clamped: it is off by at most a half,
  // as others are.
  static bfloat16 scale_of(const float* x) {
    constexpr float SMALLEST = 1e-30f;  // its inverse must be finite
    float largest = 0;
    bool finite = true;
    for (int64_t i = 0; i < GROUP; i++) {
      finite = finite && std::isfinite(x[i]);
      largest = std::max(largest, std::fabs(x[i]));
    }
    bfloat16 scale;
    float exact = std::max(largest / 127, SMALLEST);
    narrow(finite ? exact : NAN, scale);
    return scale;
  }

  static int step_of(float x, bfloat16 scale) {
    float step = std::nearbyint(x / widen(scale));
    return static_cast<int>(std::isnan(step) ? 0 : std::clamp(step, -127.0f, 127.0f));
  }
};

}  // namespace
