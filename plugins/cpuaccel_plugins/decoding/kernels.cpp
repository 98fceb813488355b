// Kernels for a few rows of a decoder: what bounds them is reading the weights once.
//
// Weights are row-major, (outputs, inputs), in float32, bfloat16, or 8 bits with a scale for each
// output. All arithmetic is in float32, and no row of activations depends on another one.
// Vectors are those of GCC and clang, which make the processor's own of them.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <omp.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
constexpr int BLOCK = 16;  // outputs that a thread computes in turn
constexpr int AHEAD = 4096;  // bytes: the processor's own prefetching stops where a page ends

enum Type : int64_t { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };
enum Activation : int64_t { SILU = 0, GELU = 1, GELU_TANH = 2 };

struct bfloat16 {
  uint16_t bits;
};

template <typename T>
using Lanes __attribute__((vector_size(LANES * sizeof(T)))) = T;
using Floats = Lanes<float>;

template <typename T>
inline Lanes<T> lanes_at(const void* data) {
  Lanes<T> result;
  std::memcpy(&result, data, sizeof result);
  return result;
}

inline Floats wide_lanes(const float* data) { return lanes_at<float>(data); }

// GCC 12 makes scalar code of __builtin_convertvector from 8 and 16 bits.
#if defined(__AVX512F__)
inline Floats wide_lanes(const int8_t* data) {
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)data)));
}
inline Floats wide_lanes(const bfloat16* data) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)data));
  return (Floats)_mm512_slli_epi32(wide, 16);
}
#elif defined(__AVX2__)
inline Floats wide_lanes(const int8_t* data) {
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)data)));
}
inline Floats wide_lanes(const bfloat16* data) {
  __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)data));
  return (Floats)_mm256_slli_epi32(wide, 16);
}
#else
inline Floats wide_lanes(const int8_t* data) {
  return __builtin_convertvector(__builtin_convertvector(lanes_at<int8_t>(data), Lanes<int32_t>),
                                 Floats);
}
inline Floats wide_lanes(const bfloat16* data) {
  return (Floats)(__builtin_convertvector(lanes_at<uint16_t>(data), Lanes<uint32_t>) << 16);
}
#endif

#if defined(__AVX512F__)
inline float sum_of(Floats lanes) { return _mm512_reduce_add_ps((__m512)lanes); }
#elif defined(__AVX2__)
inline float sum_of(Floats lanes) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128((__m256)lanes),
                           _mm256_extractf128_ps((__m256)lanes, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
#else
inline float sum_of(Floats lanes) {
  float sum = 0;
  for (int l = 0; l < LANES; l++) sum += lanes[l];
  return sum;
}
#endif

inline float widen(float value) { return value; }
inline float widen(int8_t value) { return static_cast<float>(value); }
inline float widen(bfloat16 value) {
  uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

inline void narrow(float value, float& result) { result = value; }
inline void narrow(float value, bfloat16& result) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (std::isnan(value)) {
    result.bits = 0x7FC0;
  } else {  // to nearest, ties to even
    result.bits = static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
  }
}

template <typename W>
inline float product(const W* weight, const float* x, int64_t size) {
  Floats lanes = {};
  int64_t k = 0;
  for (; k + LANES <= size; k += LANES) lanes += wide_lanes(weight + k) * wide_lanes(x + k);
  float sum = sum_of(lanes);
  for (; k < size; k++) sum += widen(weight[k]) * x[k];
  return sum;
}

inline float load(const void* data, int64_t type, int64_t index) {
  return type == FLOAT32 ? static_cast<const float*>(data)[index]
                         : widen(static_cast<const bfloat16*>(data)[index]);
}

inline void store(void* data, int64_t type, int64_t index, float value) {
  if (type == FLOAT32) {
    static_cast<float*>(data)[index] = value;
  } else {
    narrow(value, static_cast<bfloat16*>(data)[index]);
  }
}

}  // namespace

extern "C" {

struct Linear {
  const void* weight;
  const float* scales;  // null but for 8 bits
  const float* bias;    // may be null
  int64_t outputs;
  int64_t inputs;
  int64_t type;
};

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
  int64_t heads, key_heads, head_size;
  double scaling;
};

struct FeedForward {
  Norm before;
  Linear gate, up, down;
  Norm after;
  int64_t activation;
};

// A tensor of shape (batch, heads, tokens, head size), the last axis contiguous.
struct Cached {
  const void* data;
  int64_t type, batch_stride, head_stride, token_stride, tokens;
};

}  // extern "C"

namespace {

// OUTPUTS outputs of ROWS rows at once: activations are read once for all of these outputs, and
// weights once for all of these rows.
template <typename W, int ROWS, int OUTPUTS>
inline void products(const W* weight, const float* x, int64_t stride, int64_t size, float* sums) {
  Floats lanes[OUTPUTS][ROWS] = {};
  int64_t k = 0;
  for (; k + LANES <= size; k += LANES) {
    Floats activations[ROWS];
    for (int r = 0; r < ROWS; r++) activations[r] = wide_lanes(x + r * stride + k);
    for (int o = 0; o < OUTPUTS; o++) {
      const W* at = weight + o * size + k;
      if (ROWS == 1) __builtin_prefetch(reinterpret_cast<const char*>(at) + AHEAD);
      Floats wide = wide_lanes(at);
      for (int r = 0; r < ROWS; r++) lanes[o][r] += wide * activations[r];
    }
  }
  for (int o = 0; o < OUTPUTS; o++)
    for (int r = 0; r < ROWS; r++) {
      float sum = sum_of(lanes[o][r]);
      for (int64_t rest = k; rest < size; rest++)
        sum += widen(weight[o * size + rest]) * x[r * stride + rest];
      sums[o * ROWS + r] = sum;
    }
}

template <typename W, int ROWS, int OUTPUTS>
inline void some_outputs(const Linear& linear, const float* x, int64_t x_stride, float* y,
                         int64_t y_stride, int64_t begin, int64_t end) {
  const W* weight = static_cast<const W*>(linear.weight);
  int64_t n = begin;
  float sums[OUTPUTS * ROWS];
  auto finish = [&](int count) {
    for (int o = 0; o < count; o++)
      for (int r = 0; r < ROWS; r++) {
        float value = sums[o * ROWS + r];
        if (linear.scales) value *= linear.scales[n + o];
        if (linear.bias) value += linear.bias[n + o];
        y[r * y_stride + n + o - begin] = value;
      }
  };
  for (; n + OUTPUTS <= end; n += OUTPUTS) {
    products<W, ROWS, OUTPUTS>(weight + n * linear.inputs, x, x_stride, linear.inputs, sums);
    finish(OUTPUTS);
  }
  for (; n < end; n++) {
    products<W, ROWS, 1>(weight + n * linear.inputs, x, x_stride, linear.inputs, sums);
    finish(1);
  }
}

template <typename W>
inline void outputs_of(const Linear& linear, const float* x, int64_t x_stride, int64_t rows,
                       float* y, int64_t y_stride, int64_t begin, int64_t end) {
  while (rows > 0) {
    int64_t taken = rows >= 4 ? 4 : rows;
    switch (taken) {
      case 1: some_outputs<W, 1, 8>(linear, x, x_stride, y, y_stride, begin, end); break;
      case 2: some_outputs<W, 2, 2>(linear, x, x_stride, y, y_stride, begin, end); break;
      case 3: some_outputs<W, 3, 1>(linear, x, x_stride, y, y_stride, begin, end); break;
      default: some_outputs<W, 4, 1>(linear, x, x_stride, y, y_stride, begin, end);
    }
    x += taken * x_stride;
    y += taken * y_stride;
    rows -= taken;
  }
}

// Outputs begin to end of all rows; y[0] is output begin of the first row.
void compute(const Linear& linear, const float* x, int64_t x_stride, int64_t rows, float* y,
             int64_t y_stride, int64_t begin, int64_t end) {
  switch (linear.type) {
    case FLOAT32:
      outputs_of<float>(linear, x, x_stride, rows, y, y_stride, begin, end);
      break;
    case BFLOAT16:
      outputs_of<bfloat16>(linear, x, x_stride, rows, y, y_stride, begin, end);
      break;
    default:
      outputs_of<int8_t>(linear, x, x_stride, rows, y, y_stride, begin, end);
  }
}

void normalize(const Norm& norm, float* x) {
  if (!norm.weight) return;
  float sum = product(x, x, norm.size);
  float factor = 1.0f / std::sqrt(sum / norm.size + static_cast<float>(norm.epsilon));
  for (int64_t i = 0; i < norm.size; i++) x[i] = x[i] * factor * norm.weight[i];
}

// All rows of the hidden states in float32, normalized.
std::vector<float> widened(const Norm& norm, const void* hidden, int64_t type, int64_t rows,
                           int64_t size) {
  std::vector<float> wide(rows * size);
  for (int64_t i = 0; i < rows * size; i++) wide[i] = load(hidden, type, i);
  for (int64_t r = 0; r < rows; r++) normalize(norm, &wide[r * size]);
  return wide;
}

inline float activated(int64_t activation, float x) {
  switch (activation) {
    case SILU: return x / (1.0f + std::exp(-x));
    case GELU: return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
    default: {
      float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
      return 0.5f * x * (1.0f + std::tanh(inner));
    }
  }
}

// Hidden states after a linear: normalized, and added to what they were before.
void add_output(const Linear& linear, const Norm& after, const std::vector<float>& x,
                const void* hidden, void* result, int64_t type, int64_t rows,
                std::vector<float>& shared) {
  int64_t size = linear.outputs, inputs = linear.inputs;
#pragma omp for schedule(static)
  for (int64_t block = 0; block < (size + BLOCK - 1) / BLOCK; block++) {
    int64_t begin = block * BLOCK, end = begin + BLOCK < size ? begin + BLOCK : size;
    compute(linear, x.data(), inputs, rows, &shared[begin], size, begin, end);
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

template <typename C>
void attend(const Attention& attention, const float* query, const Cached& keys,
            const Cached& values, const bool* mask, int64_t mask_batch_stride,
            int64_t mask_query_stride, int64_t tokens, int64_t batch, int64_t key_head,
            float* context, std::vector<float>& scores) {
  int64_t size = attention.head_size, group = attention.heads / attention.key_heads;
  int64_t length = keys.tokens, width = attention.heads * size;
  scores.resize(group * length);
  const C* key = static_cast<const C*>(keys.data) + batch * keys.batch_stride +
                 key_head * keys.head_stride;
  const C* value = static_cast<const C*>(values.data) + batch * values.batch_stride +
                   key_head * values.head_stride;
  for (int64_t token = 0; token < tokens; token++) {
    const bool* seen =
        mask ? mask + batch * mask_batch_stride + token * mask_query_stride : nullptr;
    int64_t last = mask ? length : length - tokens + token + 1;  // without a mask: causal
    const float* q = query + ((batch * tokens + token) * attention.heads + key_head * group) * size;
    float* out = context + (batch * tokens + token) * width + key_head * group * size;
    std::vector<float> largest(group, -INFINITY), total(group, 0.0f);
    for (int64_t j = 0; j < last; j++) {
      if (seen && !seen[j]) continue;
      const C* k = key + j * keys.token_stride;
      for (int64_t g = 0; g < group; g++) {
        float sum = product(k, q + g * size, size);
        sum *= static_cast<float>(attention.scaling);
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

}  // namespace

extern "C" {

int64_t cpuaccel_threads() { return omp_get_max_threads(); }

// rows outputs in float32 or bfloat16, of inputs in the same type.
void cpuaccel_linear(const Linear* linear, const void* x, void* y, int64_t type, int64_t rows) {
  std::vector<float> wide = widened(Norm{}, x, type, rows, linear->inputs);
  int64_t size = linear->outputs;
  std::vector<float> results(rows * size);
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < (size + BLOCK - 1) / BLOCK; block++) {
    int64_t begin = block * BLOCK, end = begin + BLOCK < size ? begin + BLOCK : size;
    compute(*linear, wide.data(), linear->inputs, rows, &results[begin], size, begin, end);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t i = r * size + begin; i < r * size + end; i++) store(y, type, i, results[i]);
  }
}

// query: float32 (rows, heads, head size). key, value: (rows, key heads, head size) of the type.
// cos, sin: float32 (rows, head size).
void cpuaccel_project(const Projections* p, const void* hidden, int64_t type, int64_t rows,
                      const float* cos, const float* sin, float* query, void* key, void* value) {
  int64_t size = p->head_size, heads = p->query.outputs / size, key_heads = p->key.outputs / size;
  std::vector<float> wide = widened(p->before, hidden, type, rows, p->query.inputs);
#pragma omp parallel
  {
    std::vector<float> head(rows * size);
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < heads + 2 * key_heads; unit++) {
      bool is_query = unit < heads, is_key = !is_query && unit < heads + key_heads;
      int64_t h = is_query ? unit : is_key ? unit - heads : unit - heads - key_heads;
      const Linear& linear = is_query ? p->query : is_key ? p->key : p->value;
      compute(linear, wide.data(), linear.inputs, rows, head.data(), size, h * size,
              (h + 1) * size);
      for (int64_t r = 0; r < rows; r++) {
        float* one = &head[r * size];
        if (is_query || is_key)
          finish_head(is_query ? p->query_norm : p->key_norm, one, cos ? cos + r * size : nullptr,
                      sin ? sin + r * size : nullptr, size);
        for (int64_t d = 0; d < size; d++) {
          if (is_query)
            query[(r * heads + h) * size + d] = one[d];
          else
            store(is_key ? key : value, type, (r * key_heads + h) * size + d, one[d]);
        }
      }
    }
  }
}

// result = hidden + output(attention). mask: (batch, 1, tokens, keys), or null for a causal one.
void cpuaccel_attend(const Attention* a, const float* query, const Cached* keys,
                     const Cached* values, const bool* mask, int64_t mask_batch_stride,
                     int64_t mask_query_stride, int64_t batch, int64_t tokens, const void* hidden,
                     void* result, int64_t type) {
  int64_t rows = batch * tokens;
  std::vector<float> context(rows * a->heads * a->head_size), shared(rows * a->output.outputs);
#pragma omp parallel
  {
    std::vector<float> scores;
#pragma omp for schedule(static) collapse(2)
    for (int64_t b = 0; b < batch; b++)
      for (int64_t h = 0; h < a->key_heads; h++) {
        if (keys->type == FLOAT32)
          attend<float>(*a, query, *keys, *values, mask, mask_batch_stride, mask_query_stride,
                        tokens, b, h, context.data(), scores);
        else
          attend<bfloat16>(*a, query, *keys, *values, mask, mask_batch_stride, mask_query_stride,
                           tokens, b, h, context.data(), scores);
      }
    add_output(a->output, a->after, context, hidden, result, type, rows, shared);
  }
}

// result = hidden + down(activation(gate) * up), of the normalized hidden states.
void cpuaccel_feed_forward(const FeedForward* f, const void* hidden, void* result, int64_t type,
                           int64_t rows) {
  int64_t size = f->gate.outputs;
  std::vector<float> wide = widened(f->before, hidden, type, rows, f->gate.inputs);
  std::vector<float> gated(rows * size), shared(rows * f->down.outputs);
#pragma omp parallel
  {
    std::vector<float> gate(rows * BLOCK), up(rows * BLOCK);
#pragma omp for schedule(static)
    for (int64_t block = 0; block < (size + BLOCK - 1) / BLOCK; block++) {
      int64_t begin = block * BLOCK, end = begin + BLOCK < size ? begin + BLOCK : size;
      compute(f->gate, wide.data(), f->gate.inputs, rows, gate.data(), BLOCK, begin, end);
      compute(f->up, wide.data(), f->up.inputs, rows, up.data(), BLOCK, begin, end);
      for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < end - begin; i++)
          gated[r * size + begin + i] =
              activated(f->activation, gate[r * BLOCK + i]) * up[r * BLOCK + i];
    }
    add_output(f->down, f->after, gated, hidden, result, type, rows, shared);
  }
}

}  // extern "C"
