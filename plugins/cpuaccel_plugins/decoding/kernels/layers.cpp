// Kernels for a few rows of a decoder: what bounds them is reading the weights once.
//
// Sums are in float32, and no row of activations depends on another one.

#include <cmath>
#include <cstdint>
#include <vector>

#include <omp.h>

#include "activations.h"
#include "attention.h"
#include "experts.h"
#include "linear.h"
#include "vectors.h"

extern "C" {

struct Norm {
  const float* weight;  // null: no norm
  int64_t size;
  double epsilon;
};

struct Projections {
  Norm before;
  Linear query, key, value;
  Norm query_norm, key_norm;  // of each head
  int64_t head_size;
};

struct Attention {
  Linear output;
  Norm after;
  Heads heads;
};

struct FeedForward {
  Norm before;
  Linear gate, up, down;
  Norm after;
  int64_t activation;
};

struct Layer {
  const Projections* projections;
  const Attention* attention;
  const FeedForward* feed_forward;
};

}  // extern "C"

namespace {

enum Activation : int64_t { SILU = 0, GELU = 1, GELU_TANH = 2 };

void normalize(const Norm& norm, float* x) {
  if (!norm.weight) return;
  float sum = product(x, x, norm.size);
  float factor = 1.0f / std::sqrt(sum / norm.size + static_cast<float>(norm.epsilon));
  for (int64_t i = 0; i < norm.size; i++) x[i] = x[i] * factor * norm.weight[i];
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

inline float activated(int64_t activation, float x) {
  switch (activation) {
    case GELU: return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
    default: {
      float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
      return 0.5f * x * (1.0f + std::tanh(inner));
    }
  }
}

// gated = activation(gate) * up, for outputs begin to end; the vectors hold BLOCK for each row.
void gate_outputs(const Linear& gate_linear, const Linear& up_linear, int64_t activation,
                  const Activations& x, Activations& gated, float* gate, float* up, int64_t begin,
                  int64_t end) {
  compute(gate_linear, x, gate, BLOCK, begin, end);
  compute(up_linear, x, up, BLOCK, begin, end);
  for (int64_t r = 0; r < x.rows; r++) {
    float *one = gate + r * BLOCK, *other = up + r * BLOCK;
    if (activation == SILU) {
      for (int64_t i = 0; i < BLOCK; i += LANES) {
        Floats lanes = wide_lanes(one + i);
        lanes /= 1.0f + exp_lanes(-lanes);
        std::memcpy(one + i, &lanes, sizeof lanes);
      }
    } else {
      for (int64_t i = 0; i < end - begin; i++) one[i] = activated(activation, one[i]);
    }
    for (int64_t i = 0; i < end - begin; i++) gated.row(r)[begin + i] = one[i] * other[i];
  }
}

// Hidden states after a linear: normalized, and added to what they were before.
// The memory of the activations is reserved for the type of the weights.
void add_output(const Linear& linear, const Norm& after, Activations& x, int64_t parts,
                const void* hidden, void* result, int64_t type, std::vector<float>& shared) {
  int64_t size = linear.outputs, rows = x.rows;
#pragma omp for schedule(static)
  for (int64_t part = 0; part < parts; part++) x.narrow_part(linear.type, part);
#pragma omp for schedule(static)
  for (int64_t block = 0; block < (size + BLOCK - 1) / BLOCK; block++) {
    int64_t begin = block * BLOCK, end = begin + BLOCK < size ? begin + BLOCK : size;
    compute(linear, x, &shared[begin], size, begin, end);
    if (!after.weight)
      for (int64_t r = 0; r < rows; r++)
        for (int64_t i = r * size + begin; i < r * size + end; i++)
          store(result, type, i, load(hidden, type, i) + shared[i]);
  }
  if (after.weight) {
#pragma omp for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
      normalize(after, &shared[r * size]);
      for (int64_t i = r * size; i < (r + 1) * size; i++)
        store(result, type, i, load(hidden, type, i) + shared[i]);
    }
  }
}

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

// query: float32 (rows, heads, head size). keys and values get those of the rows as their last tokens.
// cos, sin: float32 (rows, head size).
void project(const Projections* p, const void* hidden, int64_t type, int64_t rows, int64_t tokens,
             const float* cos, const float* sin, float* query, const Cached& keys,
             const Cached& values) {
  int64_t size = p->head_size, heads = p->query.outputs / size, key_heads = p->key.outputs / size;
  Activations x = normalized(p->before, hidden, type, rows, p->query.inputs);
  for (const Linear* linear : {&p->query, &p->key, &p->value}) x.prepare(linear->type);
#pragma omp parallel
  {
    std::vector<float> head(rows * size);
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < heads + 2 * key_heads; unit++) {
      bool is_query = unit < heads, is_key = !is_query && unit < heads + key_heads;
      int64_t h = is_query ? unit : is_key ? unit - heads : unit - heads - key_heads;
      const Linear& linear = is_query ? p->query : is_key ? p->key : p->value;
      const Cached& cached = is_key ? keys : values;
      compute(linear, x, head.data(), size, h * size, (h + 1) * size);
      for (int64_t r = 0; r < rows; r++) {
        float* one = &head[r * size];
        if (is_query || is_key)
          finish_head(is_query ? p->query_norm : p->key_norm, one, cos ? cos + r * size : nullptr,
                      sin ? sin + r * size : nullptr, size);
        int64_t place = r / tokens * cached.batch_stride + h * cached.head_stride +
                        (cached.tokens - tokens + r % tokens) * cached.token_stride;
        for (int64_t d = 0; d < size; d++) {
          if (is_query)
            query[(r * heads + h) * size + d] = one[d];
          else
            store(cached.data, type, place + d, one[d]);
        }
      }
    }
  }
}

}  // namespace

extern "C" {

int64_t cpuaccel_threads() { return omp_get_max_threads(); }

// rows outputs in float32 or bfloat16, of inputs in the same type.
void cpuaccel_linear(const Linear* linear, const void* x, void* y, int64_t type, int64_t rows) {
  Activations wide = normalized(Norm{}, x, type, rows, linear->inputs);
  wide.prepare(linear->type);
  int64_t size = linear->outputs;
  std::vector<float> results(rows * size);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < (size + BLOCK - 1) / BLOCK; block++) {
    int64_t begin = block * BLOCK, end = begin + BLOCK < size ? begin + BLOCK : size;
    compute(*linear, wide, &results[begin], size, begin, end);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t i = r * size + begin; i < r * size + end; i++) store(y, type, i, results[i]);
  }
}

// The same for many rows, with weights in 8 bits.
void cpuaccel_linear_of_many(const Linear* linear, const void* x, void* y, int64_t type,
                             int64_t rows) {
  compute_many(*linear, x, y, type, rows);
}

// key, value: (rows, key heads, head size) of the type. The others as in project.
void cpuaccel_project(const Projections* p, const void* hidden, int64_t type, int64_t rows,
                      const float* cos, const float* sin, float* query, void* key, void* value) {
  int64_t size = p->head_size, width = p->key.outputs;
  project(p, hidden, type, rows, rows, cos, sin, query, Cached{key, type, 0, size, width, rows},
          Cached{value, type, 0, size, width, rows});
}

// result = hidden + output(attention). mask: (batch, 1, tokens, keys), or null for a causal one.
void cpuaccel_attend(const Attention* a, const float* query, const Cached* keys,
                     const Cached* values, const bool* mask, int64_t mask_batch_stride,
                     int64_t mask_query_stride, int64_t batch, int64_t tokens, const void* hidden,
                     void* result, int64_t type) {
  int64_t rows = batch * tokens;
  const Heads& heads = a->heads;
  Activations context(rows, heads.heads * heads.head_size);
  int64_t parts = context.reserve(a->output.type);
  std::vector<float> shared(rows * a->output.outputs);
#pragma omp parallel
  {
    std::vector<float> scores;
#pragma omp for schedule(static) collapse(2)
    for (int64_t b = 0; b < batch; b++)
      for (int64_t h = 0; h < heads.key_heads; h++) {
        if (keys->type == FLOAT32)
          attend<float>(heads, query, *keys, *values, mask, mask_batch_stride, mask_query_stride,
                        tokens, b, h, context.row(0), scores);
        else
          attend<bfloat16>(heads, query, *keys, *values, mask, mask_batch_stride, mask_query_stride,
                           tokens, b, h, context.row(0), scores);
      }
    add_output(a->output, a->after, context, parts, hidden, result, type, shared);
  }
}

// result = hidden + down(activation(gate) * up), of the normalized hidden states.
void cpuaccel_feed_forward(const FeedForward* f, const void* hidden, void* result, int64_t type,
                           int64_t rows) {
  int64_t size = f->gate.outputs;
  Activations x = normalized(f->before, hidden, type, rows, f->gate.inputs);
  for (const Linear* linear : {&f->gate, &f->up}) x.prepare(linear->type);
  Activations gated(rows, size);
  int64_t parts = gated.reserve(f->down.type);
  std::vector<float> shared(rows * f->down.outputs);
#pragma omp parallel
  {
    std::vector<float> gate(rows * BLOCK), up(rows * BLOCK);
#pragma omp for schedule(static)
    for (int64_t block = 0; block < (size + BLOCK - 1) / BLOCK; block++) {
      int64_t begin = block * BLOCK, end = begin + BLOCK < size ? begin + BLOCK : size;
      gate_outputs(f->gate, f->up, f->activation, x, gated, gate.data(), up.data(), begin, end);
    }
    add_output(f->down, f->after, gated, parts, hidden, result, type, shared);
  }
}

// Consecutive layers. caches: for each layer its keys and its values, with room for these tokens at
// the end. The others as in the functions above.
void cpuaccel_layers(const Layer* layers, int64_t number, const Cached* caches, const void* hidden,
                     void* result, int64_t type, int64_t batch, int64_t tokens, const float* cos,
                     const float* sin, const bool* mask, int64_t mask_batch_stride,
                     int64_t mask_query_stride) {
  int64_t rows = batch * tokens, size = rows * layers->projections->query.inputs;
  std::vector<float> query, attended(size), computed(size);  // large enough for either type
  for (int64_t l = 0; l < number; l++) {
    const Cached &keys = caches[2 * l], &values = caches[2 * l + 1];
    query.resize(rows * layers[l].projections->query.outputs);
    project(layers[l].projections, hidden, type, rows, tokens, cos, sin, query.data(), keys,
            values);
    cpuaccel_attend(layers[l].attention, query.data(), &keys, &values, mask, mask_batch_stride,
                    mask_query_stride, batch, tokens, hidden, attended.data(), type);
    void* output = l + 1 < number ? computed.data() : result;
    cpuaccel_feed_forward(layers[l].feed_forward, attended.data(), output, type, rows);
    hidden = output;
  }
}

// result: the sum of the chosen experts' outputs, each multiplied with its share.
// chosen: (rows, count). shares: float32 (rows, count).
void cpuaccel_experts(const Expert* experts, int64_t number, int64_t activation,
                      const void* hidden, void* result, int64_t type, int64_t rows,
                      const int64_t* chosen, const float* shares, int64_t count) {
  std::vector<Chosen> all =
      chosen_experts(experts, number, hidden, type, rows, chosen, shares, count);
  int64_t width = experts->gate.outputs, size = experts->down.outputs, used = all.size();
  int64_t blocks = (width + BLOCK - 1) / BLOCK, out_blocks = (size + BLOCK - 1) / BLOCK;
#pragma omp parallel
  {
    std::vector<float> gate(rows * BLOCK), up(rows * BLOCK), sums(rows * BLOCK);
#pragma omp for schedule(static) collapse(2)
    for (int64_t e = 0; e < used; e++)
      for (int64_t block = 0; block < blocks; block++) {
        int64_t begin = block * BLOCK, end = begin + BLOCK < width ? begin + BLOCK : width;
        gate_outputs(all[e].expert->gate, all[e].expert->up, activation, all[e].x, all[e].gated,
                     gate.data(), up.data(), begin, end);
      }
#pragma omp for schedule(static)
    for (int64_t e = 0; e < used; e++)
      for (int64_t part = 0; part < all[e].parts; part++)
        all[e].gated.narrow_part(all[e].expert->down.type, part);
#pragma omp for schedule(static)
    for (int64_t block = 0; block < out_blocks; block++) {
      int64_t begin = block * BLOCK, end = begin + BLOCK < size ? begin + BLOCK : size;
      std::fill(sums.begin(), sums.end(), 0.0f);
      for (const Chosen& one : all) {
        compute(one.expert->down, one.gated, gate.data(), BLOCK, begin, end);
        for (size_t i = 0; i < one.rows.size(); i++)
          for (int64_t n = 0; n < end - begin; n++)
            sums[one.rows[i] * BLOCK + n] += one.shares[i] * gate[i * BLOCK + n];
      }
      for (int64_t r = 0; r < rows; r++)
        for (int64_t n = begin; n < end; n++)
          store(result, type, r * size + n, sums[r * BLOCK + n - begin]);
    }
  }
}

}  // extern "C"
