// Weights in 8 bits, and their products with activations in integers.
//
// A panel of as many outputs as a vector has lanes begins with its scales, one for each output and
// each 128 inputs, in bfloat16. Then come the weights, so that a vector holds INTERLEAVED inputs of
// all outputs.

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
      : inputs_(QuantizedRows::padded(inputs)),
        scales_bytes_(((inputs_ + TOGETHER - 1) / TOGETHER * LANES * sizeof(bfloat16) + 63) / 64 * 64) {
    panel_bytes = scales_bytes_ + inputs_ * LANES;
  }

  // Sums of ROWS rows, from `row` on, for the outputs of PANELS panels.
  template <int ROWS, int PANELS>
  void sums(const int8_t* panels, const QuantizedRows& x, int64_t row,
            Floats (&result)[PANELS][ROWS]) const {
    constexpr int64_t GROUPS = TOGETHER / QuantizedRows::GROUP;
    const int8_t* weights = panels + scales_bytes_;
    for (int p = 0; p < PANELS; p++)
      for (int r = 0; r < ROWS; r++) result[p][r] = Floats{};
    for (int64_t first = 0; first < x.groups; first += GROUPS) {
      Floats scaled[PANELS][ROWS] = {};
      for (int64_t group = first; group < std::min(first + GROUPS, x.groups); group++) {
        Integers whole[PANELS][ROWS];
        for (int p = 0; p < PANELS; p++)
          for (int r = 0; r < ROWS; r++) whole[p][r] = all_lanes(-ADDED * x.sum(row + r, group));
        for (int i = 0; i < QuantizedRows::GROUP;
             i += INTERLEAVED, weights += LANES * INTERLEAVED) {
          Integers steps[PANELS];
          for (int p = 0; p < PANELS; p++) {
            const int8_t* at = weights + p * panel_bytes;
            if (PANELS == 1) __builtin_prefetch(at + AHEAD);
            steps[p] = steps_at(at);
          }
          for (int r = 0; r < ROWS; r++) {
            Integers values = interleaved_at(x.steps(row + r, group) + i);
            for (int p = 0; p < PANELS; p++)
              whole[p][r] = add_products(whole[p][r], steps[p], values);
          }
        }
        for (int p = 0; p < PANELS; p++)
          for (int r = 0; r < ROWS; r++)
            scaled[p][r] += to_floats(whole[p][r]) * x.scale(row + r, group);
      }
      for (int p = 0; p < PANELS; p++) {
        const int8_t* at = panels + p * panel_bytes;
        Floats scales =
            wide_lanes(reinterpret_cast<const bfloat16*>(at) + first / GROUPS * LANES);
        for (int r = 0; r < ROWS; r++) result[p][r] += scaled[p][r] * scales;
      }
    }
  }

  // Pack the weights of the output in a lane; x is padded with zeros. The panel is zero before.
  void pack(const float* x, int8_t* panel, int64_t lane) const {
    auto* scales = reinterpret_cast<bfloat16*>(panel);
    for (int64_t begin = 0; begin < inputs_; begin += TOGETHER) {
      int64_t end = std::min(begin + TOGETHER, inputs_);
      bfloat16 scale = scale_of(x + begin, end - begin);
      scales[begin / TOGETHER * LANES + lane] = scale;
      for (int64_t i = begin; i < end; i++)
        panel[place(i, lane)] = static_cast<int8_t>(step_of(x[i], scale) + ADDED);
    }
  }

  void unpack(const int8_t* panel, int64_t lane, float* x) const {
    auto* scales = reinterpret_cast<const bfloat16*>(panel);
    for (int64_t i = 0; i < inputs_; i++) {
      auto step = static_cast<int8_t>(panel[place(i, lane)] - ADDED);
      x[i] = step * widen(scales[i / TOGETHER * LANES + lane]);
    }
  }

 private:
  static constexpr int64_t TOGETHER = 128;  // inputs whose weights share a scale
  int64_t inputs_, scales_bytes_;

  int64_t place(int64_t input, int64_t lane) const {
    int64_t first = input / INTERLEAVED * INTERLEAVED;
    return scales_bytes_ + first * LANES + lane * INTERLEAVED + input % INTERLEAVED;
  }

  // The scale is rounded up, so that no step is too large.
  static bfloat16 scale_of(const float* x, int64_t size) {
    constexpr float SMALLEST = 1e-30f;  // its inverse must be finite
    float largest = 0;
    bool finite = true;
    for (int64_t i = 0; i < size; i++) {
      finite = finite && std::isfinite(x[i]);
      largest = std::max(largest, std::fabs(x[i]));
    }
    bfloat16 scale;
    float exact = std::max(largest / 127, SMALLEST);
    narrow(finite ? exact : NAN, scale);
    if (widen(scale) < exact) scale.bits++;
    return scale;
  }

  static int step_of(float x, bfloat16 scale) {
    float step = std::nearbyint(x / widen(scale));
    return static_cast<int>(std::isnan(step) ? 0 : std::clamp(step, -127.0f, 127.0f));
  }
};

}  // namespace
