// Weights in 8 bits, and their products with activations in integers.
//
// Weights are in panels of as many outputs as a vector has lanes. A panel begins with its scales, one
// for each output and each 128 inputs, in bfloat16. Then come the weights, so that a vector holds
// INTERLEAVED inputs of all its outputs: a thread reads weights from one place to the next, and no sum
// over lanes is needed. How many inputs that are depends on the processor, so packed weights are
// never stored.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "integers.h"
#include "vectors.h"

namespace {

constexpr int64_t SCALED_TOGETHER = 128;  // inputs whose weights share a scale

// Sizes of a packed weight. Inputs are padded with zeros.
struct Packed {
  int64_t inputs, scales_bytes, panel_bytes;

  explicit Packed(int64_t inputs)
      : inputs(QuantizedRows::padded(inputs)),
        scales_bytes((groups() * LANES * sizeof(bfloat16) + 63) / 64 * 64),
        panel_bytes(scales_bytes + this->inputs * LANES) {}

  int64_t groups() const { return (inputs + SCALED_TOGETHER - 1) / SCALED_TOGETHER; }

  // Where the weight of an input is, for the output in a lane.
  int64_t place(int64_t input, int64_t lane) const {
    int64_t first = input / INTERLEAVED * INTERLEAVED;
    return scales_bytes + first * LANES + lane * INTERLEAVED + input % INTERLEAVED;
  }
  static int64_t panels(int64_t outputs) { return (outputs + LANES - 1) / LANES; }
};

// Sums of ROWS rows, from `row` on, for the outputs of PANELS panels.
template <int ROWS, int PANELS>
inline void packed_sums(const int8_t* panels, const Packed& packed, const QuantizedRows& x,
                        int64_t row, Floats (&sums)[PANELS][ROWS]) {
  constexpr int64_t TOGETHER = SCALED_TOGETHER / QuantizedRows::GROUP;
  const int8_t* weights = panels + packed.scales_bytes;
  for (int p = 0; p < PANELS; p++)
    for (int r = 0; r < ROWS; r++) sums[p][r] = Floats{};
  for (int64_t first = 0; first < x.groups; first += TOGETHER) {
    Floats scaled[PANELS][ROWS] = {};
    for (int64_t group = first; group < std::min(first + TOGETHER, x.groups); group++) {
      Integers whole[PANELS][ROWS];
      for (int p = 0; p < PANELS; p++)
        for (int r = 0; r < ROWS; r++) whole[p][r] = all_lanes(x.start(row + r, group));
      for (int i = 0; i < QuantizedRows::GROUP; i += INTERLEAVED, weights += LANES * INTERLEAVED) {
        Integers steps[PANELS];
        for (int p = 0; p < PANELS; p++) {
          const int8_t* at = weights + p * packed.panel_bytes;
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
      const int8_t* at = panels + p * packed.panel_bytes;
      Floats scales =
          wide_lanes(reinterpret_cast<const bfloat16*>(at) + first / TOGETHER * LANES);
      for (int r = 0; r < ROWS; r++) sums[p][r] += scaled[p][r] * scales;
    }
  }
}

// One group of a weight for one output: the scale is rounded up, so that no step is too large.
inline bfloat16 scale_of(const float* x, int64_t size) {
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

inline int8_t step_of(float x, bfloat16 scale) {
  float step = std::nearbyint(x / widen(scale));
  return static_cast<int8_t>(std::isnan(step) ? 0 : std::clamp(step, -127.0f, 127.0f));
}

}  // namespace

extern "C" {

// How many outputs a panel has, and the bytes of a packed weight.
int64_t cpuaccel_panel() { return LANES; }
int64_t cpuaccel_packed_bytes(int64_t outputs, int64_t inputs) {
  return Packed::panels(outputs) * Packed(inputs).panel_bytes;
}

// A weight of shape (outputs, inputs) in float32 or bfloat16, to 8 bits.
void cpuaccel_pack8(const void* weight, int64_t type, int8_t* result, int64_t outputs,
                    int64_t inputs) {
  Packed packed(inputs);
#pragma omp parallel for schedule(static)
  for (int64_t panel = 0; panel < Packed::panels(outputs); panel++) {
    int8_t* at = result + panel * packed.panel_bytes;
    std::memset(at, 0, packed.panel_bytes);
    auto* scales = reinterpret_cast<bfloat16*>(at);
    for (int64_t lane = 0; lane < LANES; lane++)
      for (int64_t begin = 0; begin < packed.inputs; begin += SCALED_TOGETHER) {
        float x[SCALED_TOGETHER];
        int64_t output = panel * LANES + lane;
        for (int64_t i = 0; i < SCALED_TOGETHER; i++)
          x[i] = output < outputs && begin + i < inputs
                     ? load(weight, type, output * inputs + begin + i)
                     : 0.0f;
        bfloat16 scale = scale_of(x, SCALED_TOGETHER);
        scales[begin / SCALED_TOGETHER * LANES + lane] = scale;
        for (int64_t i = begin; i < std::min(begin + SCALED_TOGETHER, packed.inputs); i++)
          at[packed.place(i, lane)] = stored(step_of(x[i - begin], scale));
      }
  }
}

// The weights of outputs that begin with a panel, in float32 or bfloat16.
void cpuaccel_unpack8(const int8_t* weight, void* result, int64_t type, int64_t outputs,
                      int64_t inputs) {
  Packed packed(inputs);
#pragma omp parallel for schedule(static)
  for (int64_t output = 0; output < outputs; output++) {
    const int8_t* at = weight + output / LANES * packed.panel_bytes;
    auto* scales = reinterpret_cast<const bfloat16*>(at);
    int64_t lane = output % LANES;
    for (int64_t i = 0; i < inputs; i++)
      store(result, type, output * inputs + i,
            restored(at[packed.place(i, lane)]) *
                widen(scales[i / SCALED_TOGETHER * LANES + lane]));
  }
}

}  // extern "C"
