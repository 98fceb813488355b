// Attention of a few queries over the cached keys and values.

#pragma once

#include <vector>

#include "vectors.h"

extern "C" {

struct Heads {
  int64_t heads, key_heads, head_size;
  double scaling;
};

// A tensor of shape (batch, heads, tokens, head size), the last axis contiguous.
struct Cached {
  void* data;
  int64_t type, batch_stride, head_stride, token_stride, tokens;
};

}  // extern "C"

namespace {

// The queries of one head of keys, of shape (tokens, heads, head size) in a row of the batch.
template <typename C>
void attend(const Heads& heads, const float* query, const Cached& keys,
            const Cached& values, const bool* mask, int64_t mask_batch_stride,
            int64_t mask_query_stride, int64_t tokens, int64_t batch, int64_t key_head,
            float* context, std::vector<float>& scores) {
  int64_t size = heads.head_size, group = heads.heads / heads.key_heads;
  int64_t length = keys.tokens, width = heads.heads * size;
  scores.resize(group * length);
  const C* key = static_cast<const C*>(keys.data) + batch * keys.batch_stride +
                 key_head * keys.head_stride;
  const C* value = static_cast<const C*>(values.data) + batch * values.batch_stride +
                   key_head * values.head_stride;
  for (int64_t token = 0; token < tokens; token++) {
    const bool* seen =
        mask ? mask + batch * mask_batch_stride + token * mask_query_stride : nullptr;
    int64_t last = mask ? length : length - tokens + token + 1;  // without a mask: causal
    const float* q = query + ((batch * tokens + token) * heads.heads + key_head * group) * size;
    float* out = context + (batch * tokens + token) * width + key_head * group * size;
    std::vector<float> largest(group, -INFINITY), total(group, 0.0f);
    for (int64_t j = 0; j < last; j++) {
      if (seen && !seen[j]) continue;
      const C* k = key + j * keys.token_stride;
      for (int64_t g = 0; g < group; g++) {
        float sum = product(k, q + g * size, size);
        sum *= static_cast<float>(heads.scaling);
        scores[g * length + j] = sum;
        if (!(sum <= largest[g])) largest[g] = sum;
      }
    }
    for (int64_t i = 0; i < group * size; i++) out[i] = 0;
    for (int64_t j = 0; j < last; j++) {
      if (seen && !seen[j]) continue;
      const C* v = value + j * values.token_stride;
      for (int64_t g = 0; g < group; g++) {
        float share = std::exp(scores[g * length + j] - largest[g]);
        total[g] += share;
        for (int64_t d = 0; d < size; d++) out[g * size + d] += share * widen(v[d]);
      }
    }
    for (int64_t g = 0; g < group; g++)
      if (total[g] != 0)  // a row of padding sees no key: 0, as in torch
        for (int64_t d = 0; d < size; d++) out[g * size + d] /= total[g];
  }
}

}  // namespace
