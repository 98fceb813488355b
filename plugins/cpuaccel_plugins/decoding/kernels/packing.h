// Packing weights of few bits. How depends on the processor, so packed weights are never stored.

#pragma once

#include <cstring>
#include <vector>

#include "eight_bits.h"
#include "four_bits.h"
#include "vectors.h"

namespace {

inline int64_t panels_of(int64_t outputs) { return (outputs + LANES - 1) / LANES; }

// Call a function with the format of weights of a type.
template <typename F>
inline auto with_format(int64_t type, int64_t inputs, F function) {
  return type == INT4 ? function(FourBits(inputs)) : function(EightBits(inputs));
}

}  // namespace

extern "C" {

// How many outputs a panel has, and the bytes of a packed weight of a type.
int64_t cpuaccel_panel() { return LANES; }
int64_t cpuaccel_packed_bytes(int64_t outputs, int64_t inputs, int64_t type) {
  return with_format(type, inputs,
                     [&](auto format) { return panels_of(outputs) * format.panel_bytes; });
}

// A weight of shape (outputs, inputs), from float32 or bfloat16 to a type of few bits.
void cpuaccel_pack(const void* weight, int64_t from, int8_t* result, int64_t to, int64_t outputs,
                   int64_t inputs) {
  with_format(to, inputs, [&](auto format) {
#pragma omp parallel
    {
      std::vector<float> x(QuantizedRows::padded(inputs));
#pragma omp for schedule(static)
      for (int64_t panel = 0; panel < panels_of(outputs); panel++) {
        int8_t* at = result + panel * format.panel_bytes;
        std::memset(at, 0, format.panel_bytes);
        for (int64_t lane = 0; lane < LANES && panel * LANES + lane < outputs; lane++) {
          int64_t first = (panel * LANES + lane) * inputs;
          for (int64_t i = 0; i < inputs; i++) x[i] = load(weight, from, first + i);
          format.pack(x.data(), at, lane);
        }
      }
    }
  });
}

// The weights of outputs that begin with a panel, from a type of few bits to float32 or bfloat16.
void cpuaccel_unpack(const int8_t* weight, int64_t from, void* result, int64_t to, int64_t outputs,
                     int64_t inputs) {
  with_format(from, inputs, [&](auto format) {
#pragma omp parallel
    {
      std::vector<float> x(QuantizedRows::padded(inputs));
#pragma omp for schedule(static)
      for (int64_t output = 0; output < outputs; output++) {
        format.unpack(weight + output / LANES * format.panel_bytes, output % LANES, x.data());
        for (int64_t i = 0; i < inputs; i++) store(result, to, output * inputs + i, x[i]);
      }
    }
  });
}

}  // extern "C"
