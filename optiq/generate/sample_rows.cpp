#include "optiq/generate/sample_rows.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace optiq::generate {
namespace {

/** The token's logarithm of a probability, and those of the n most probable. */
void add_logprobs(std::span<const float> logits, int n, AnswerToken& token) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double mass = 0;
  for (const float logit : logits) {
    mass += std::exp(double{logit} - largest);
  }
  const auto logprob = [&](std::int32_t id) {
    return static_cast<float>(
        double{logits[static_cast<std::size_t>(id)]} - largest -
        std::log(mass));
  };
  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::partial_sort(
      ids.begin(),
      ids.begin() + n,
      ids.end(),
      [&](std::int32_t a, std::int32_t b) {
        const float x = logits[static_cast<std::size_t>(a)];
        const float y = logits[static_cast<std::size_t>(b)];
        return x != y ? x > y : a < b;
      });
  token.logprob = logprob(token.id);
  for (int i = 0; i < n; ++i) {
    token.top.push_back({.id = ids[i], .logprob = logprob(ids[i])});
  }
}

} // namespace

void sample_rows(std::span<RowToSample> rows) {
  for (RowToSample& row : rows) {
    try {
      const auto logits = row.processors->apply(row.logits);
      row.token.id = row.sampler->sample(logits);
      if (row.top_logprobs) {
        add_logprobs(logits, *row.top_logprobs, row.token);
      }
    } catch (...) {
      row.error = std::current_exception();
    }
  }
}

} // namespace optiq::generate
