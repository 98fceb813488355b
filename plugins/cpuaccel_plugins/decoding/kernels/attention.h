// Attention of a few queries over the cached keys and values.

#pragma once

#include <algorithm>
#include <vector>

#include "linear.h"
#include "norms.h"
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

struct Attention {
  Linear output;
  Norm after, closing;
  Heads heads;
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

// Turn scores of keys into shares. Returns what they must be multiplied with to sum to 1, and 0 where
// no key is seen, as in torch.
inline float finish_shares(const Query& query, float* scores, int64_t length) {
  if (query.bias)
    for (int64_t j = 0; j < query.keys; j++) scores[j] += query.bias[j];
  if (query.mask)
    for (int64_t j = 0; j < query.keys; j++) scores[j] = query.mask[j] ? scores[j] : -INFINITY;
  std::fill(scores + query.keys, scores + length, -INFINITY);
  Floats highest = Floats{} - INFINITY, sums = {};
  for (int64_t j = 0; j < length; j += LANES) {
    Floats lanes = wide_lanes(scores + j);
    highest = lanes > highest ? lanes : highest;
  }
  float largest = largest_of(highest);
  if (largest == -INFINITY) largest = 0;
  for (int64_t j = 0; j < length; j += LANES) {
    Floats lanes = exp_lanes(wide_lanes(scores + j) - largest);
    sums += lanes;
    std::memcpy(scores + j, &lanes, sizeof lanes);
  }
  float total = sum_of(sums);
  return total == 0 ? 0 : 1 / total;
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

// Keys of one head: where they are, and for many queries a copy in which the lanes of a vector are
// keys, so that no sums over lanes are needed.
template <typename C>
struct Keys {
  static constexpr int64_t TOGETHER = 4 * LANES;
  const C* at;
  int64_t stride, size;
  std::vector<float> copy;  // (keys / TOGETHER, head size, TOGETHER)

  void transpose(int64_t keys) {
    copy.assign((keys + TOGETHER - 1) / TOGETHER * TOGETHER * size, 0);
    for (int64_t j = 0; j < keys; j++) {
      float* to = &copy[j / TOGETHER * TOGETHER * size + j % TOGETHER];
      for (int64_t d = 0; d < size; d++) to[d * TOGETHER] = widen(at[j * stride + d]);
    }
  }

  // scores: (COUNT, length), of the first `keys` of them. queries: (COUNT, head size).
  template <int COUNT>
  void scores(const float* queries, int64_t keys, float* scores, int64_t length) const {
    if (!copy.empty()) return scores_of_copy<COUNT>(queries, keys, scores, length);
    constexpr int KEYS = 4;
    int64_t j = 0;
    float sums[KEYS * COUNT];
    for (; j + KEYS <= keys; j += KEYS) {
      cached_products<COUNT, KEYS>(at + j * stride, stride, queries, size, sums);
      for (int q = 0; q < COUNT; q++)
        for (int k = 0; k < KEYS; k++) scores[q * length + j + k] = sums[k * COUNT + q];
    }
    for (; j < keys; j++) {
      cached_products<COUNT, 1>(at + j * stride, stride, queries, size, sums);
      for (int q = 0; q < COUNT; q++) scores[q * length + j] = sums[q];
    }
  }

  template <int COUNT>
  void scores_of_copy(const float* queries, int64_t keys, float* scores, int64_t length) const {
    constexpr int VECTORS = TOGETHER / LANES;
    for (int64_t j = 0; j < keys; j += TOGETHER) {
      Floats sums[COUNT][VECTORS] = {};
      const float* from = &copy[j * size];
      for (int64_t d = 0; d < size; d++)
        for (int v = 0; v < VECTORS; v++) {
          Floats lanes = wide_lanes(from + d * TOGETHER + v * LANES);
          for (int q = 0; q < COUNT; q++) sums[q][v] += queries[q * size + d] * lanes;
        }
      for (int q = 0; q < COUNT; q++)
        std::memcpy(scores + q * length + j, sums[q], sizeof sums[q]);
    }
  }
};

// COUNT queries of the same keys: these are read once for all of them.
template <int COUNT, typename C>
void attend_some(const Keys<C>& all_keys, const C* value, int64_t value_stride, float scaling,
                 const Query* queries, std::vector<float>& memory) {
  constexpr int VECTORS = LANES == 16 ? 4 : 2;
  int64_t keys = 0, size = all_keys.size;
  for (int q = 0; q < COUNT; q++) keys = std::max(keys, queries[q].keys);
  int64_t length = (keys + Keys<C>::TOGETHER - 1) / Keys<C>::TOGETHER * Keys<C>::TOGETHER;
  memory.resize(COUNT * (size + length));
  float *joint = memory.data(), *scores = joint + COUNT * size;
  for (int q = 0; q < COUNT; q++)
    for (int64_t d = 0; d < size; d++) joint[q * size + d] = queries[q].query[d] * scaling;
  all_keys.template scores<COUNT>(joint, keys, scores, length);
  float factors[COUNT];
  for (int q = 0; q < COUNT; q++)
    factors[q] = finish_shares(queries[q], scores + q * length, length);
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
  for (int q = 0; q < COUNT; q++)
    for (int64_t i = 0; i < size; i++) queries[q].context[i] *= factors[q];
}

template <typename C>
void attend_all(const C* key, int64_t key_stride, const C* value, int64_t value_stride,
                int64_t size, float scaling, const std::vector<Query>& queries,
                std::vector<float>& memory) {
  constexpr int64_t MANY = 64;  // queries for which copying the keys pays
  Keys<C> keys{key, key_stride, size, {}};
  int64_t number = queries.size(), most = 0;
  for (const Query& query : queries) most = std::max(most, query.keys);
  if (number >= MANY) keys.transpose(most);
  for_some_rows(number, [&](auto count, int64_t q) {
    attend_some<decltype(count)::value>(keys, value, value_stride, scaling, &queries[q], memory);
  });
}

// The queries of tokens from `first` to `last`, of one head of the keys at one place of the cache's
// batch.
// query, context: float32 (batch, tokens, heads, head size).
void attend(const Heads& heads, const float* query, const Cached& keys, const Cached& values,
            const Seen& seen, int64_t batch, int64_t tokens, int64_t first, int64_t last,
            int64_t place, int64_t key_head, float* context, std::vector<Query>& queries,
            std::vector<float>& memory) {
  int64_t size = heads.head_size, group = heads.heads / heads.key_heads;
  queries.clear();
  for (int64_t row = 0; row < batch; row++) {
    if ((seen.places ? seen.places[row] : row) != place) continue;
    for (int64_t token = first; token < last; token++) {
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
