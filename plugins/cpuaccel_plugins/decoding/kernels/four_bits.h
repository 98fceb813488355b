// Weights in 4 bits, and their products with activations in integers.
//
// A panel of as many outputs as a vector has lanes has a block for each 32 inputs: a scale and a least
// weight for each output, in bfloat16, then the bits. A weight is bits * scale + least. A byte has an
// input of the first 16 in its lower bits, and one of the others in its upper bits.

#pragma once

#include <algorithm>
#include <cmath>

#include "integers.h"
#include "vectors.h"

namespace {

// The bits of one group, its scale and its least weight: those with the least squared error among
// some, which cut off more or less of the largest weights.
struct Group {
  static constexpr int LARGEST = 15;
  bfloat16 scale = {}, least = {};
  uint8_t bits[QuantizedRows::GROUP];

  explicit Group(const float* x) {
    auto [low, high] = std::minmax_element(x, x + QuantizedRows::GROUP);
    float middle = *low / 2 + *high / 2, half = *high / 2 - *low / 2, best = INFINITY;
    float unit = half > 0 ? half : 1;  // squares of large weights are infinite
    for (float kept : {1.0f, 0.95f, 0.9f, 0.85f, 0.8f}) {
      bfloat16 step, from;
      narrow(half * kept / LARGEST * 2, step);
      narrow(middle - half * kept, from);
      float error = 0;
      for (int i = 0; i < QuantizedRows::GROUP; i++) {
        float missed = nearest(x[i], step, from) * widen(step) + widen(from) - x[i];
        error += missed / unit * (missed / unit);
      }
      if (error < best) {
        best = error;
        scale = step;
        least = from;
      }
    }
    for (int i = 0; i < QuantizedRows::GROUP; i++)
      bits[i] = static_cast<uint8_t>(nearest(x[i], scale, least));
  }

  static float nearest(float x, bfloat16 scale, bfloat16 least) {
    float step = widen(scale), inverse = step == 0 ? 0 : 1 / step;
    float steps = std::nearbyint((x - widen(least)) * inverse);
    return std::min(std::max(steps, 0.0f), static_cast<float>(LARGEST));
  }
};

class FourBits {
 public:
  int64_t panel_bytes;

  explicit FourBits(int64_t inputs)
      : groups_(QuantizedRows::padded(inputs) / QuantizedRows::GROUP) {
    panel_bytes = groups_ * BLOCK_BYTES;
  }

  // Sums of ROWS rows, from `row` on, for the outputs of PANELS panels.
  template <int ROWS, int PANELS>
  void sums(const int8_t* panels, const QuantizedRows& x, int64_t row,
            Floats (&result)[PANELS][ROWS]) const {
    Step lowest[INTERLEAVED];
    std::fill(lowest, lowest + INTERLEAVED, static_cast<Step>(Group::LARGEST));
    const Integers mask = interleaved_at(lowest);
    const QuantizedGroup* first = x.row(row);
    Floats sums[PANELS][ROWS] = {};  // in registers, as the result is not
    const int8_t* block = panels;
    for (int64_t group = 0; group < groups_; group++, block += BLOCK_BYTES) {
      Integers whole[PANELS][ROWS] = {};
#pragma GCC unroll 4
      for (int i = 0; i < HALF; i += INTERLEAVED) {
        Integers lower[PANELS], upper[PANELS];
        for (int p = 0; p < PANELS; p++) {
          const int8_t* at = block + p * panel_bytes + BITS + i * LANES;
          prefetch(at + (PANELS == 1 ? AHEAD : PANELS * panel_bytes));
          Integers both = steps_at(at);
          lower[p] = both & mask;
          upper[p] = both >> 4 & mask;
        }
        for (int r = 0; r < ROWS; r++) {
          const Step* steps = first[r * x.groups + group].steps + i;
          Integers some = interleaved_at(steps), others = interleaved_at(steps + HALF);
          for (int p = 0; p < PANELS; p++)
            whole[p][r] =
                add_products(add_products(whole[p][r], lower[p], some), upper[p], others);
        }
      }
      for (int p = 0; p < PANELS; p++) {
        auto* numbers = reinterpret_cast<const bfloat16*>(block + p * panel_bytes);
        Floats scales = wide_lanes(numbers), least = wide_lanes(numbers + LANES);
        for (int r = 0; r < ROWS; r++) {
          const QuantizedGroup& values = first[r * x.groups + group];
          sums[p][r] += (to_floats(whole[p][r]) * scales + least * values.sum) * values.scale;
        }
      }
    }
    for (int p = 0; p < PANELS; p++)
      for (int r = 0; r < ROWS; r++) result[p][r] = sums[p][r];
  }

  // Pack the weights of the output in a lane; x is padded with zeros. The panel is zero before.
  void pack(const float* x, int8_t* panel, int64_t lane) const {
    for (int64_t group = 0; group < groups_; group++) {
      int8_t* block = panel + group * BLOCK_BYTES;
      auto* numbers = reinterpret_cast<bfloat16*>(block);
      Group packed(x + group * QuantizedRows::GROUP);
      numbers[lane] = packed.scale;
      numbers[LANES + lane] = packed.least;
      for (int i = 0; i < QuantizedRows::GROUP; i++)
        block[place(i, lane)] |= static_cast<int8_t>(packed.bits[i] << i / HALF * 4);
    }
  }

  void unpack(const int8_t* panel, int64_t lane, float* x) const {
    for (int64_t i = 0; i < groups_ * QuantizedRows::GROUP; i++) {
      const int8_t* block = panel + i / QuantizedRows::GROUP * BLOCK_BYTES;
      auto* numbers = reinterpret_cast<const bfloat16*>(block);
      int64_t within = i % QuantizedRows::GROUP;
      int bits = block[place(within, lane)] >> within / HALF * 4 & Group::LARGEST;
      x[i] = bits * widen(numbers[lane]) + widen(numbers[LANES + lane]);
    }
  }

 private:
  static constexpr int64_t HALF = QuantizedRows::GROUP / 2;
  static constexpr int64_t BITS = 2 * LANES * sizeof(bfloat16);
  static constexpr int64_t BLOCK_BYTES = BITS + HALF * LANES;
  int64_t groups_;

  static int64_t place(int64_t input, int64_t lane) {
    int64_t i = input % HALF;
    return BITS + (i / INTERLEAVED * LANES + lane) * INTERLEAVED + i % INTERLEAVED;
  }
};

}  // namespace
