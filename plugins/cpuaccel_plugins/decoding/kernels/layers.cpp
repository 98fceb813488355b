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
#include "feed_forward.h"
#include "linear.h"
#include "many_rows.h"
#include "norms.h"
#include "vectors.h"
#include "whole_attention.h"

extern "C" {

struct Layer {
  const Projections* projections;
  const Attention* attention;
  const Projections* source_projections;  // of queries over an encoder's output; null: there is none
  const Attention* source_attention;
  const FeedForward* feed_forward;
};

}  // extern "C"

namespace {

// Hidden states after a linear: its outputs normalized and added to what they were before, and the
// sums normalized. The memory of the activations is reserved for the type of the weights.
void add_output(const Linear& linear, const Norm& after, const Norm& closing, Activations& x,
                int64_t parts, const void* hidden, void* result, int64_t type,
                std::vector<float>& shared) {
  int64_t size = linear.outputs, rows = x.rows;
  bool is_plain = !after.weight && !closing.weight;
#pragma omp for schedule(static)
  for (int64_t part = 0; part < parts; part++) x.narrow_part(linear.type, part);
#pragma omp for schedule(static)
  for (int64_t block = 0; block < (size + BLOCK - 1) / BLOCK; block++) {
    int64_t begin = block * BLOCK, end = begin + BLOCK < size ? begin + BLOCK : size;
    compute(linear, x, &shared[begin], size, begin, end);
    if (is_plain)
      for (int64_t r = 0; r < rows; r++)
        for (int64_t i = r * size + begin; i < r * size + end; i++)
          store(result, type, i, load(hidden, type, i) + shared[i]);
  }
  if (!is_plain) {
#pragma omp for schedule(static)
    for (int64_t r = 0; r < rows; r++)
      finish_row(after, closing, &shared[r * size], hidden, result, type, r, size);
  }
}

// query: float32 (rows, heads, head size). keys and values get those of the rows as their last tokens.
// cos, sin: float32 (rows, head size).
void project(const Projections* p, const void* hidden, int64_t type, int64_t rows, int64_t tokens,
             const float* cos, const float* sin, float* query, const Cached& keys,
             const Cached& values) {
  if (are_many(rows, p->query, p->key, p->value))
    return project_many(p, hidden, type, rows, tokens, cos, sin, query, keys, values);
  int64_t size = p->head_size, heads = p->query.outputs / size, key_heads = p->key.outputs / size;
  Activations x = normalized(p->before, hidden, type, rows, p->query.inputs);
  for (const Linear* linear : {&p->query, &p->key, &p->value}) x.prepare(linear->type);
#pragma omp parallel
  {
    std::vector<float> head(rows * size);
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < heads + 2 * key_heads; unit++) {
      int64_t h = unit < heads ? unit : (unit - heads) % key_heads;
      const Linear& linear =
          unit < heads ? p->query : unit < heads + key_heads ? p->key : p->value;
      compute(linear, x, head.data(), size, h * size, (h + 1) * size);
      for (int64_t r = 0; r < rows; r++)
        finish_unit(p, &head[r * size], unit, r, type, tokens, cos, sin, query, keys, values);
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

// The same for many rows, with packed weights.
void cpuaccel_linear_of_many(const Linear* linear, const void* x, void* y, int64_t type,
                             int64_t rows) {
  linear_of_many(*linear, x, y, type, rows);
}

// key, value: (rows, key heads, head size) of the type. The others as in project.
void cpuaccel_project(const Projections* p, const void* hidden, int64_t type, int64_t rows,
                      const float* cos, const float* sin, float* query, void* key, void* value) {
  int64_t size = p->head_size, width = p->key.outputs;
  project(p, hidden, type, rows, rows, cos, sin, query, Cached{key, type, 0, size, width, rows},
          Cached{value, type, 0, size, width, rows});
}

// result = closing(hidden + after(output(attention))). query: float32 (rows, heads, head size).
void cpuaccel_attend(const Attention* a, const float* query, const Cached* keys,
                     const Cached* values, const Seen* seen, int64_t batch, int64_t tokens,
                     const void* hidden, void* result, int64_t type) {
  int64_t rows = batch * tokens, key_heads = a->heads.key_heads, places = batch;
  if (seen->places) places = *std::max_element(seen->places, seen->places + batch) + 1;
  if (are_many(rows, a->output))
    return attend_many(a, query, *keys, *values, *seen, places, batch, tokens, hidden, result,
                       type);
  Activations context(rows, a->heads.heads * a->heads.head_size);
  int64_t parts = context.reserve(a->output.type);
  std::vector<float> shared(rows * a->output.outputs);
#pragma omp parallel
  {
    std::vector<Query> queries;
    std::vector<float> memory;
#pragma omp for schedule(static) collapse(2)
    for (int64_t place = 0; place < places; place++)
      for (int64_t h = 0; h < key_heads; h++)
        attend(a->heads, query, *keys, *values, *seen, batch, tokens, 0, tokens, place, h,
               context.row(0), queries, memory);
    add_output(a->output, a->after, a->closing, context, parts, hidden, result, type, shared);
  }
}

// Attention to all keys; see attend_to_all. is_narrow: products in bfloat16, where the processor has
// the instruction.
void cpuaccel_attend_to_all(const Heads* heads, const Cached* query, const Cached* keys,
                            const Cached* values, int64_t batch, float* context, int64_t is_narrow) {
#ifdef __AVX512BF16__
  if (is_narrow) return attend_to_all<bfloat16>(*heads, *query, *keys, *values, batch, context);
#endif
  attend_to_all<float>(*heads, *query, *keys, *values, batch, context);
}

// result = closing(hidden + after(down(activation(gate) * up))), of the normalized hidden states.
void cpuaccel_feed_forward(const FeedForward* f, const void* hidden, void* result, int64_t type,
                           int64_t rows) {
  if (are_many(rows, f->gate, f->up, f->down))
    return feed_forward_many(f, hidden, result, type, rows);
  int64_t size = f->up.outputs;
  Activations x = normalized(f->before, hidden, type, rows, f->up.inputs);
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
    add_output(f->down, f->after, f->closing, gated, parts, hidden, result, type, shared);
  }
}

// Consecutive layers. caches: for each layer its keys and its values, with room for these tokens at
// the end, and, if it reads an encoder's output, the keys and values of that. seen: of the former;
// source_seen: of the latter. The others as in the functions above.
void cpuaccel_layers(const Layer* layers, int64_t number, const Cached* caches, const void* hidden,
                     void* result, int64_t type, int64_t batch, int64_t tokens, const float* cos,
                     const float* sin, const Seen* seen, const Seen* source_seen) {
  int64_t rows = batch * tokens, size = rows * layers->projections->query.inputs;
  // Large enough for either type.
  std::vector<float> query, attended(size), over_source(size), computed(size);
  for (const Layer* layer = layers; layer < layers + number; layer++) {
    query.resize(rows * layer->projections->query.outputs);
    project(layer->projections, hidden, type, rows, tokens, cos, sin, query.data(), caches[0],
            caches[1]);
    cpuaccel_attend(layer->attention, query.data(), &caches[0], &caches[1], seen, batch, tokens,
                    hidden, attended.data(), type);
    caches += 2;
    hidden = attended.data();
    if (layer->source_attention) {
      query.resize(rows * layer->source_projections->query.outputs);
      project(layer->source_projections, hidden, type, rows, tokens, nullptr, nullptr, query.data(),
              caches[0], caches[1]);  // these are not written to: there are queries only
      cpuaccel_attend(layer->source_attention, query.data(), &caches[0], &caches[1], source_seen,
                      batch, tokens, hidden, over_source.data(), type);
      caches += 2;
      hidden = over_source.data();
    }
    void* output = layer + 1 < layers + number ? computed.data() : result;
    cpuaccel_feed_forward(layer->feed_forward, hidden, output, type, rows);
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
