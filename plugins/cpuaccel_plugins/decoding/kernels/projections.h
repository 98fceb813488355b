// Queries, keys and values of hidden states, and where they are written to.

#pragma once

#include "attention.h"
#include "linear.h"
#include "norms.h"
#include "vectors.h"

extern "C" {

struct Projections {
  Norm before;
  Linear query, key, value;
  Norm query_norm, key_norm;  // of each head
  int64_t head_size;
};

}  // extern "C"

namespace {

// One head: normalized, and turned by its position (the second half is the pair of the first).
void finish_head(const Norm& norm, float* head, const float* cos, const float* sin, int64_t size) {
  normalize(norm, head);
  if (!cos) return;
  int64_t half = size / 2;
  for (int64_t i = 0; i < half; i++) {
    float low = head[i], high = head[i + half];
    head[i] = low * cos[i] - high * sin[i];
    head[i + half] = high * cos[i + half] + low * sin[i + half];
  }
}

// One head of one row: a query, or a key or a value, which goes to the cache.
inline void finish_unit(const Projections* p, float* head, int64_t unit, int64_t row, int64_t type,
                        int64_t tokens, const float* cos, const float* sin, float* query,
                        const Cached& keys, const Cached& values) {
  int64_t size = p->head_size, heads = p->query.outputs / size, key_heads = p->key.outputs / size;
  bool is_query = unit < heads, is_key = !is_query && unit < heads + key_heads;
  if (is_query || is_key)
    finish_head(is_query ? p->query_norm : p->key_norm, head, cos ? cos + row * size : nullptr,
                sin ? sin + row * size : nullptr, size);
  if (is_query) {
    std::copy(head, head + size, query + (row * heads + unit) * size);
    return;
  }
  const Cached& cached = is_key ? keys : values;
  int64_t h = (unit - heads) % key_heads;
  int64_t place = row / tokens * cached.batch_stride + h * cached.head_stride +
                  (cached.tokens - tokens + row % tokens) * cached.token_stride;
  for (int64_t d = 0; d < size; d++) store(cached.data, type, place + d, head[d]);
}

}  // namespace
