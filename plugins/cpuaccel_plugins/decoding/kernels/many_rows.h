// Parts of layers for many rows, with packed weights: a prefill.
//
// Rows are computed in chunks, so that what lies between two linears stays in the caches.

#pragma once

#include <algorithm>
#include <vector>

#include <omp.h>

#include "attention.h"
#include "feed_forward.h"
#include "linear.h"
#include "norms.h"
#include "projections.h"
#include "vectors.h"

namespace {

constexpr int64_t MOST_FEW = 16;  // rows that are computed as few
constexpr int64_t CHUNK_ROWS = 256;

// Whether a part of a layer is computed for many rows; linears without a weight aren't there.
template <typename... Linears>
inline bool are_many(int64_t rows, const Linears&... linears) {
  return rows > MOST_FEW && ((has_few_bits(linears.type) || !linears.weight) && ...);
}

// Quantize `count` rows of hidden states from row `first` on, normalized. Within a parallel region.
inline void quantize(const Norm& norm, const void* hidden, int64_t type, int64_t first,
                     int64_t count, int64_t size, QuantizedRows& result) {
  std::vector<float> row(size);
#pragma omp for schedule(static)
  for (int64_t r = 0; r < count; r++) {
    for (int64_t i = 0; i < size; i++) row[i] = load(hidden, type, (first + r) * size + i);
    normalize(norm, row.data());
    result.set(r, 0, row.data(), size);
  }
}

// Call chunk(first, count) for all rows, by all threads.
template <typename Chunk>
inline void in_chunks(int64_t rows, Chunk chunk) {
#pragma omp parallel
  for (int64_t first = 0; first < rows; first += CHUNK_ROWS)
    chunk(first, std::min(CHUNK_ROWS, rows - first));
}

inline void linear_of_many(const Linear& linear, const void* x, void* y, int64_t type,
                           int64_t rows) {
  int64_t most = std::min(rows, CHUNK_ROWS), size = linear.outputs;
  bool is_wide = type == FLOAT32;  // of a head, a copy of the outputs would take as long as a layer
  QuantizedRows quantized(most, linear.inputs);
  std::vector<float> sums(is_wide ? 0 : most * size);
  in_chunks(rows, [&](int64_t first, int64_t count) {
    quantize(Norm{}, x, type, first, count, linear.inputs, quantized);
    many_rows(linear, quantized, count,
              is_wide ? static_cast<float*>(y) + first * size : sums.data(), size);
    if (is_wide) return;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < count * size; i++) store(y, type, first * size + i, sums[i]);
  });
}

inline void project_many(const Projections* p, const void* hidden, int64_t type, int64_t rows,
                         int64_t tokens, const float* cos, const float* sin, float* query,
                         const Cached& keys, const Cached& values) {
  const Linear* linears[] = {&p->query, &p->key, &p->value};
  int64_t width = p->query.outputs + p->key.outputs + p->value.outputs;
  QuantizedRows x(std::min(rows, CHUNK_ROWS), p->query.inputs);
  std::vector<float> joint(std::min(rows, CHUNK_ROWS) * width);
  in_chunks(rows, [&](int64_t first, int64_t count) {
    quantize(p->before, hidden, type, first, count, p->query.inputs, x);
    int64_t column = 0;
    for (const Linear* linear : linears) {
      many_rows(*linear, x, count, joint.data() + column, width);
      column += linear->outputs;
    }
#pragma omp for schedule(static)
    for (int64_t r = 0; r < count; r++)
      for (int64_t unit = 0; unit < width / p->head_size; unit++)
        finish_unit(p, &joint[r * width + unit * p->head_size], unit, first + r, type, tokens, cos,
                    sin, query, keys, values);
  });
}

inline void attend_many(const Attention* a, const float* query, const Cached& keys,
                        const Cached& values, const Seen& seen, int64_t places, int64_t batch,
                        int64_t tokens, const void* hidden, void* result, int64_t type) {
  int64_t rows = batch * tokens, size = a->output.outputs, inputs = a->output.inputs;
  // Each thread gets several chunks: the last tokens see the most keys.
  int64_t most = tokens * places * a->heads.key_heads / (4 * omp_get_max_threads());
  int64_t chunk = std::clamp<int64_t>(most, 16, 128);
  std::vector<float> context(rows * inputs), sums(std::min(rows, CHUNK_ROWS) * size);
#pragma omp parallel
  {
    std::vector<Query> queries;
    std::vector<float> memory;
#pragma omp for schedule(dynamic) collapse(3)
    for (int64_t left = tokens; left > 0; left -= chunk)
      for (int64_t place = 0; place < places; place++)
        for (int64_t h = 0; h < a->heads.key_heads; h++)
          attend(a->heads, query, keys, values, seen, batch, tokens,
                 std::max<int64_t>(0, left - chunk), left, place, h, context.data(), queries,
                 memory);
  }
  QuantizedRows x(std::min(rows, CHUNK_ROWS), inputs);
  in_chunks(rows, [&](int64_t first, int64_t count) {
    quantize(Norm{}, context.data(), FLOAT32, first, count, inputs, x);
    many_rows(a->output, x, count, sums.data(), size);
#pragma omp for schedule(static)
    for (int64_t r = 0; r < count; r++)
      finish_row(a->after, a->closing, &sums[r * size], hidden, result, type, first + r, size);
  });
}

inline void feed_forward_many(const FeedForward* f, const void* hidden, void* result, int64_t type,
                              int64_t rows) {
  int64_t most = std::min(rows, CHUNK_ROWS), size = f->down.outputs, width = f->up.outputs;
  bool is_gated = f->gate.weight != nullptr;
  QuantizedRows x(most, f->up.inputs), gated(most, width);
  std::vector<float> gate(most * width), up(is_gated ? most * width : 0), sums(most * size);
  in_chunks(rows, [&](int64_t first, int64_t count) {
    quantize(f->before, hidden, type, first, count, f->up.inputs, x);
    many_rows(is_gated ? f->gate : f->up, x, count, gate.data(), width);
    if (is_gated) many_rows(f->up, x, count, up.data(), width);
#pragma omp for schedule(static)
    for (int64_t r = 0; r < count; r++) {
      float* row = &gate[r * width];
      activate(f->activation, row, width);
      for (int64_t i = 0; is_gated && i < width; i++) row[i] *= up[r * width + i];
      gated.set(r, 0, row, width);
    }
    many_rows(f->down, gated, count, sums.data(), size);
#pragma omp for schedule(static)
    for (int64_t r = 0; r < count; r++)
      finish_row(f->after, f->closing, &sums[r * size], hidden, result, type, first + r, size);
  });
}

}  // namespace
