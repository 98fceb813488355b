// Norms of rows of hidden states.

#pragma once

#include <cmath>

#include "activations.h"
#include "vectors.h"

extern "C" {

struct Norm {
  const float* weight;  // null: no norm
  const float* bias;    // null: of root mean square, without a mean
  int64_t size;
  double epsilon;
};

}  // extern "C"

namespace {

void normalize(const Norm& norm, float* x) {
  if (!norm.weight) return;
  if (norm.bias) {
    double sum = 0;
    for (int64_t i = 0; i < norm.size; i++) sum += x[i];
    float mean = static_cast<float>(sum / norm.size);
    for (int64_t i = 0; i < norm.size; i++) x[i] -= mean;
  }
  float squares = product(x, x, norm.size);
  float factor = 1.0f / std::sqrt(squares / norm.size + static_cast<float>(norm.epsilon));
  for (int64_t i = 0; i < norm.size; i++) {
    x[i] = x[i] * factor * norm.weight[i];
    if (norm.bias) x[i] += norm.bias[i];
  }
}

// One row of hidden states after a linear: normalized, added to what it was, and normalized again.
inline void finish_row(const Norm& after, const Norm& closing, float* row, const void* hidden,
                       void* result, int64_t type, int64_t r, int64_t size) {
  normalize(after, row);
  for (int64_t i = 0; i < size; i++) row[i] += load(hidden, type, r * size + i);
  normalize(closing, row);
  for (int64_t i = 0; i < size; i++) store(result, type, r * size + i, row[i]);
}

// All rows of the hidden states, normalized.
Activations normalized(const Norm& norm, const void* hidden, int64_t type, int64_t rows,
                       int64_t size) {
  Activations x(rows, size);
  for (int64_t r = 0; r < rows; r++) {
    float* row = x.row(r);
    for (int64_t i = 0; i < size; i++) row[i] = load(hidden, type, r * size + i);
    normalize(norm, row);
  }
  return x;
}

}  // namespace
