// Attention of a few queries over the cached keys and values.

#pragma once

#include <algorithm>
#include <vector>

#include "products.h"
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

// What the tokens of each row see. Keys are contiguous in the mask and in the bias.
struct Seen {
  const bool* mask;  // (rows, 1, tokens, keys), or null
  int64_t mask_row_stride, mask_token_stride;
  const float* bias;  // added to the scores: (heads, tokens, keys), or null
  int64_t bias_head_stride, bias_token_stride;
  const int64_t* places;  // the place of each row's keys in the batch of the cache; null: its own
  int64_t is_causal;      // without a mask, a token doesn't see those after it
};

}  // extern "C"

namespace {

// One head of one token.
struct Query {
  const float* query;
  float* context;
  const bool* mask;   // may be null
  const float* bias;  // may be null
  int64_t keys;       // how many it sees at most
};

// Turn scores of keys into shares that sum to 1, or to 0 where no key is seen, as in torch.
inline void finish_shares(const Query& query, float scaling, float* scores, int64_t length) {
  for (int64_t j = 0; j < query.keys; j++) {
    scores[j] *= scaling;
    if (query.bias) scores[j] += query.bias[j];
    if (query.mask && !query.mask[j]) scores[j] = -INFINITY;
  }
  std::fill(scores + query.keys, scores + length, -INFINITY);
  Floats highest = Floats{} - INFINITY, sums = {};
  for (int64_t j = 0; j < length; j += LANES) {
    Floats lanes = wide_lanes(scores + j);
    highest = lanes > highest ? lanes : highest;
  }
  float largest = -INFINITY;
  for (int l = 0; l < LANES; l++) largest = std::max(largest, highest[l]);
  if (largest == -INFINITY) largest = 0;
  for (int64_t j = 0; j < length; j += LANES) {
    Floats lanes = exp_lanes(wide_lanes(scores + j) - largest);
    sums += lanes;
    std::memcpy(scores + j, &lanes, sizeof lanes);
  }
  float total = sum_of(sums), factor = total == 0 ? 0 : 1 / total;
  for (int64_t j = 0; j < length; j++) scores[j] *= factor;
}

// Columns of the context from d on, VECTORS vectors of them, for COUNT queries.
template <int COUNT, int VECTORS, typename C>
inline void add_values(const C* value, int64_t stride, const float* shares, int64_t length,
                       int64_t keys, const Query* queries, int64_t d) {
  Floats sums[COUNT][VECTORS] = {};
  for (int64_t j = 0; j < keys; j++) {
    Floats values[VECTORS];
    for (int v = 0; v < VECTORS; v++) values[v] = wide_lanes(value + j * stride + d + v * LANES);
    for (int q = 0; q < COUNT; q++)
      for (int v = 0; v < VECTORS; v++) sums[q][v] += shares[q * length + j] * values[v];
  }
  for (int q = 0; q < COUNT; q++)
    std::memcpy(queries[q].context + d, sums[q], sizeof sums[q]);
}

// COUNT queries of the same keys: these are read once for all of them.
template <int COUNT, typename C>
void attend_some(const C* key, int64_t key_stride, const C* value, int64_t value_stride,
                 int64_t size, float scaling, const Query* queries, std::vector<float>& memory) {
  constexpr int KEYS = 4, VECTORS = LANES == 16 ? 4 : 2;
  int64_t keys = 0;
  for (int q = 0; q < COUNT; q++) keys = std::max(keys, queries[q].keys);
  int64_t length = (keys + LANES - 1) / LANES * LANES;
  memory.resize(COUNT * (size + length));
  float *joint = memory.data(), *scores = joint + COUNT * size;
  for (int q = 0; q < COUNT; q++)
    std::copy(queries[q].query, queries[q].query + size, joint + q * size);
  int64_t j = 0;
  float sums[KEYS * COUNT];
  for (; j + KEYS <= keys; j += KEYS) {
    products<COUNT, KEYS>(key + j * key_stride, key_stride, joint, size, sums);
    for (int q = 0; q < COUNT; q++)
      for (int k = 0; k < KEYS; k++) scores[q * length + j + k] = sums[k * COUNT + q];
  }
  for (; j < keys; j++) {
    products<COUNT, 1>(key + j * key_stride, key_stride, joint, size, sums);
    for (int q = 0; q < COUNT; q++) scores[q * length + j] = sums[q];
  }
  for (int q = 0; q < COUNT; q++)
    finish_shares(queries[q], scaling, scores + q * length, length);
  int64_t d = 0;
  for (; d + VECTORS * LANES <= size; d += VECTORS * LANES)
    add_values<COUNT, VECTORS>(value, value_stride, scores, length, keys, queries, d);
  for (; d + LANES <= size; d += LANES)
    add_values<COUNT, 1>(value, value_stride, scores, length, keys, queries, d);
  for (; d < size; d++)
    for (int q = 0; q < COUNT; q++) {
      float sum = 0;
      for (int64_t k = 0; k < keys; k++)
        sum += scores[q * length + k] * widen(value[k * value_stride + d]);
      queries[q].context[d] = sum;
    }
}

template <typename C>
void attend_all(const C* key, int64_t key_stride, const C* value, int64_t value_stride,
                int64_t size, float scaling, const std::vector<Query>& queries,
                std::vector<float>& memory) {
  auto some = [&](auto count, const Query* first) {
    attend_some<count.value>(key, key_stride, value, value_stride, size, scaling, first, memory);
  };
  int64_t number = queries.size();
  for (int64_t q = 0; q < number;) {
    int64_t taken = next_rows(number - q);
    switch (taken) {
      case 1: some(std::integral_constant<int, 1>{}, &queries[q]); break;
      case 2: some(std::integral_constant<int, 2>{}, &queries[q]); break;
      case 3: some(std::integral_constant<int, 3>{}, &queries[q]); break;
#ifdef __AVX512F__
      case 5: some(std::integral_constant<int, 5>{}, &queries[q]); break;
#endif
      default: some(std::integral_constant<int, 4>{}, &queries[q]);
    }
    q += taken;
  }
}

// All queries of one head of the keys at one place of the cache's batch.
// query, context: float32 (batch, tokens, heads, head size).
void attend(const Heads& heads, const float* query, const Cached& keys, const Cached& values,
            const Seen& seen, int64_t batch, int64_t tokens, int64_t place, int64_t key_head,
            float* context, std::vector<Query>& queries, std::vector<float>& memory) {
  int64_t size = heads.head_size, group = heads.heads / heads.key_heads;
  queries.clear();
  for (int64_t row = 0; row < batch; row++) {
    if ((seen.places ? seen.places[row] : row) != place) continue;
    for (int64_t token = 0; token < tokens; token++) {
      bool is_cut = seen.is_causal && !seen.mask;
      for (int64_t h = key_head * group; h < (key_head + 1) * group; h++) {
        int64_t at = ((row * tokens + token) * heads.heads + h) * size;
        queries.push_back(
            {query + at, context + at,
             seen.mask ? seen.mask + row * seen.mask_row_stride + token * seen.mask_token_stride
                       : nullptr,
             seen.bias ? seen.bias + h * seen.bias_head_stride + token * seen.bias_token_stride
                       : nullptr,
             is_cut ? keys.tokens - tokens + token + 1 : keys.tokens});
      }
    }
  }
  auto attend_over = [&](auto type) {
    using C = decltype(type);
    auto at = [&](const Cached& cached) {
      return static_cast<const C*>(cached.data) + place * cached.batch_stride +
             key_head * cached.head_stride;
    };
    attend_all(at(keys), keys.token_stride, at(values), values.token_stride, size,
               static_cast<float>(heads.scaling), queries, memory);
  };
  if (keys.type == FLOAT32)
    attend_over(float{});
  else
    attend_over(bfloat16{});
}

}  // namespace
