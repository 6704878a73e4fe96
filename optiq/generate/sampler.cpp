#include "optiq/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "optiq/base/error.h"

namespace optiq::generate {
namespace {

struct Candidate {
  float logit;
  std::int32_t id;
};

bool is_before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

std::int32_t find_largest(std::span<const float> logits) {
  return static_cast<std::int32_t>(
      std::max_element(logits.begin(), logits.end()) - logits.begin());
}

void require(bool ok, const char* name, float value, const char* range) {
  if (!ok) {
    fail(
        ErrorKind::InvalidInput,
        "[validate] {} is {}, expected {}",
        name,
        value,
        range);
  }
}

/**
 * Every filter keeps a prefix of the candidates sorted by probability, so the
 * one that keeps least decides. `sorted` holds all candidates in order.
 */
std::size_t count_kept(
    const std::vector<Candidate>& sorted,
    const SamplerOptions& options) {
  std::size_t kept = sorted.size();
  if (options.top_k > 0) {
    kept = std::min(kept, static_cast<std::size_t>(options.top_k));
  }
  const float largest = sorted.front().logit;
  if (options.min_p > 0.f) {
    const float floor = largest + std::log(options.min_p);
    const auto end =
        std::find_if(sorted.begin(), sorted.end(), [&](const Candidate& c) {
          return c.logit < floor;
        });
    kept = std::min(kept, static_cast<std::size_t>(end - sorted.begin()));
  }
  if (options.top_p < 1.f) {
    double total = 0;
    for (const Candidate& c : sorted) {
      total += std::exp(static_cast<double>(c.logit) - largest);
    }
    double mass = 0;
    std::size_t n = 0;
    while (n < kept && mass < options.top_p * total) {
      mass += std::exp(static_cast<double>(sorted[n].logit) - largest);
      ++n;
    }
    kept = n;
  }
  return std::max<std::size_t>(kept, 1);
}

} // namespace

void validate(const SamplerOptions& options) {
  require(
      std::isfinite(options.temperature) && options.temperature >= 0.f,
      "temperature",
      options.temperature,
      "a finite number of at least 0");
  require(
      options.top_p > 0.f && options.top_p <= 1.f,
      "top_p",
      options.top_p,
      "above 0 and at most 1");
  require(
      options.min_p >= 0.f && options.min_p < 1.f,
      "min_p",
      options.min_p,
      "at least 0 and below 1");
  require(
      options.top_k >= 0,
      "top_k",
      static_cast<float>(options.top_k),
      "0 (off) or more");
}

Sampler::Sampler(const SamplerOptions& options)
    : options_(options), random_(options.seed) {
  validate(options);
}

std::int32_t Sampler::sample(std::span<const float> logits) {
  if (options_.temperature == 0.f) {
    return find_largest(logits);
  }
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isfinite(logits[i])) {
      candidates.push_back({logits[i], static_cast<std::int32_t>(i)});
    }
  }
  if (candidates.empty()) {
    return find_largest(logits);
  }
  std::sort(candidates.begin(), candidates.end(), is_before);
  candidates.resize(count_kept(candidates, options_));

  std::vector<double> cumulative(candidates.size());
  const double largest = candidates.front().logit;
  double total = 0;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    total += std::exp((candidates[i].logit - largest) / options_.temperature);
    cumulative[i] = total;
  }
  // 53 random bits: the same draw on every standard library.
  const double u = static_cast<double>(random_() >> 11) * 0x1p-53 * total;
  const auto at = std::upper_bound(cumulative.begin(), cumulative.end() - 1, u);
  return candidates[at - cumulative.begin()].id;
}

} // namespace optiq::generate
