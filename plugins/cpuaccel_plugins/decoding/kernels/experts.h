// The experts of a mixture, for a few rows: weights are read of those that were chosen only.

#pragma once

#include <utility>
#include <vector>

#include "activations.h"
#include "linear.h"
#include "vectors.h"

extern "C" {

struct Expert {
  Linear gate, up, down;
};

}  // extern "C"

namespace {

// The rows for which one expert was chosen.
struct Chosen {
  const Expert* expert;
  std::vector<int64_t> rows;
  std::vector<float> shares;
  Activations x, gated;
  int64_t parts;

  Chosen(const Expert* expert, const void* hidden, int64_t type, std::vector<int64_t> rows,
         std::vector<float> shares)
      : expert(expert),
        rows(std::move(rows)),
        shares(std::move(shares)),
        x(this->rows.size(), expert->gate.inputs),
        gated(this->rows.size(), expert->gate.outputs),
        parts(gated.reserve(expert->down.type)) {
    for (size_t i = 0; i < this->rows.size(); i++)
      for (int64_t k = 0; k < x.size; k++)
        x.row(i)[k] = load(hidden, type, this->rows[i] * x.size + k);
    x.prepare(expert->gate.type);
    x.prepare(expert->up.type);
  }
};

// Which experts were chosen; numbers from `number` on stand for none.
std::vector<Chosen> chosen_experts(const Expert* experts, int64_t number, const void* hidden,
                                   int64_t type, int64_t rows, const int64_t* chosen,
                                   const float* shares, int64_t count) {
  std::vector<std::vector<int64_t>> places(number);
  for (int64_t place = 0; place < rows * count; place++)
    if (chosen[place] >= 0 && chosen[place] < number) places[chosen[place]].push_back(place);
  std::vector<Chosen> all;
  for (int64_t e = 0; e < number; e++) {
    if (places[e].empty()) continue;
    std::vector<int64_t> of_rows;
    std::vector<float> of_shares;
    for (int64_t place : places[e]) {
      of_rows.push_back(place / count);
      of_shares.push_back(shares[place]);
    }
    all.emplace_back(experts + e, hidden, type, std::move(of_rows), std::move(of_shares));
  }
  return all;
}

}  // namespace
