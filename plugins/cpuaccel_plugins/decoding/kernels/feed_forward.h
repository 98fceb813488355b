// Feed-forward networks: with a gate, or without one.

#pragma once

#include "linear.h"
#include "norms.h"
#include "vectors.h"

extern "C" {

struct FeedForward {
  Norm before;
  Linear gate, up, down;  // gate: its weight may be null
  Norm after, closing;
  int64_t activation;
};

}  // extern "C"

namespace {

enum Activation : int64_t { SILU = 0, GELU = 1, GELU_TANH = 2, RELU = 3 };

inline Floats activated(int64_t activation, Floats x) {
  switch (activation) {
    case SILU: return x / (1.0f + exp_lanes(-x));
    case GELU: return 0.5f * x * (1.0f + erf_lanes(x * 0.70710678118654752f));
    case RELU: return x < 0 ? Floats{} : x;  // NaN stays
    default: {
      Floats inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
      return x / (1.0f + exp_lanes(-2.0f * inner));
    }
  }
}

inline void activate(int64_t activation, float* x, int64_t size) {
  for (int64_t i = 0; i < size; i += LANES) {
    size_t bytes = std::min<int64_t>(LANES, size - i) * sizeof(float);
    Floats lanes = {};
    std::memcpy(&lanes, x + i, bytes);
    lanes = activated(activation, lanes);
    std::memcpy(x + i, &lanes, bytes);
  }
}

// result = activation(gate) * up, or activation(up), for outputs begin to end; the vectors hold
// BLOCK for each row.
void gate_outputs(const Linear& gate_linear, const Linear& up_linear, int64_t activation,
                  const Activations& x, Activations& result, float* gate, float* up, int64_t begin,
                  int64_t end) {
  bool is_gated = gate_linear.weight != nullptr;
  compute(is_gated ? gate_linear : up_linear, x, gate, BLOCK, begin, end);
  if (is_gated) compute(up_linear, x, up, BLOCK, begin, end);
  for (int64_t r = 0; r < x.rows; r++) {
    float *one = gate + r * BLOCK, *other = up + r * BLOCK;
    activate(activation, one, BLOCK);
    for (int64_t i = 0; i < end - begin; i++)
      result.row(r)[begin + i] = is_gated ? one[i] * other[i] : one[i];
  }
}

}  // namespace
