#include "optiq/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "optiq/generate/require_option_impl.h"

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
  std::size_t best = 0;
  for (std::size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > logits[best] || std::isnan(logits[best])) {
      best = i;
    }
  }
  return static_cast<std::int32_t>(best);
}

/**
 * The tokens that may be drawn, while filters take some away. With s the logit
 * over the temperature, a token's weight is exp(s - largest s), its probability
 * p its share of the weight of all that are left. No filter sorts more than it
 * keeps: a vocabulary has 250,000 tokens, a nucleus some tens.
 */
class Candidates {
 public:
  explicit Candidates(std::span<const float> logits) {
    items_.reserve(logits.size());
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (std::isfinite(logits[i])) {
        items_.push_back({logits[i], static_cast<std::int32_t>(i)});
        largest_ = items_.size() == 1 ? logits[i]
                                      : std::max(largest_, double{logits[i]});
      }
    }
  }

  bool empty() const {
    return items_.empty();
  }
  void set_temperature(double temperature) {
    temperature_ = temperature;
  }

  /** The k most probable. */
  void keep_top(std::size_t k) {
    if (k < items_.size()) {
      std::nth_element(
          items_.begin(), items_.begin() + offset(k), items_.end(), is_before);
      items_.resize(k);
      std::sort(items_.begin(), items_.end(), is_before);
    }
  }

  /** The fewest of the most probable that have the share p of the mass
   * (Holtzman et al., arXiv 1904.09751). */
  void keep_nucleus(double p) {
    keep_beginning(p, is_before);
  }

  /** p >= min_p * largest p (arXiv 2407.01082). */
  void keep_share(double min_p) {
    std::erase_if(
        items_, [&](const Candidate& c) { return weight(c) < min_p; });
  }

  /** The fewest with the share p of the mass among those whose -log p is next
   * to the entropy (Meister et al., arXiv 2202.00666). */
  void keep_typical(double p) {
    const double typical = entropy() - std::log(mass());
    const auto distance = [&](const Candidate& c) {
      return std::abs(-score(c) - typical);
    };
    keep_beginning(p, [&](const Candidate& a, const Candidate& b) {
      const double da = distance(a);
      const double db = distance(b);
      return da != db ? da < db : is_before(a, b);
    });
  }

  /** p >= epsilon, and the most probable. */
  void keep_probable(double epsilon) {
    const double least = epsilon * mass();
    const float top =
        std::min_element(items_.begin(), items_.end(), is_before)->logit;
    std::erase_if(items_, [&](const Candidate& c) {
      return weight(c) < least && c.logit < top;
    });
  }

  /** p >= min(epsilon, sqrt(epsilon) * exp(-entropy)), and the most probable
   * (Hewitt et al., arXiv 2210.15191). */
  void keep_above_eta(double epsilon) {
    keep_probable(std::min(epsilon, std::sqrt(epsilon) * std::exp(-entropy())));
  }

  /** The token at this place, 0 to 1, of the mass. */
  std::int32_t at(double place) const {
    std::vector<double> cumulative(items_.size());
    double total = 0;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      total += weight(items_[i]);
      cumulative[i] = total;
    }
    const auto found = std::upper_bound(
        cumulative.begin(), cumulative.end() - 1, place * total);
    return items_[static_cast<std::size_t>(found - cumulative.begin())].id;
  }

 private:
  static std::ptrdiff_t offset(std::size_t n) {
    return static_cast<std::ptrdiff_t>(n);
  }

  double score(const Candidate& c) const {
    return (c.logit - largest_) / temperature_;
  }
  double weight(const Candidate& c) const {
    return std::exp(score(c));
  }
  double mass() const {
    double total = 0;
    for (const Candidate& c : items_) {
      total += weight(c);
    }
    return total;
  }
  /** -sum p log p, in nats. */
  double entropy() const {
    double total = 0;
    double sum = 0;
    for (const Candidate& c : items_) {
      if (const double w = weight(c); w > 0) {
        total += w;
        sum += w * score(c);
      }
    }
    return std::log(total) - sum / total;
  }

  /** The shortest beginning in the order `before` that has this share of the
   * mass, sorted. Looks at four times as many until it has it. */
  template <typename Before>
  void keep_beginning(double share, Before before) {
    constexpr std::size_t kFirst = 64;
    const double wanted = share * mass();
    double held = 0;
    std::size_t n = 0; // sorted, and counted in `held`
    for (std::size_t end = kFirst; n < items_.size() && held < wanted;
         end *= 4) {
      end = std::min(end, items_.size());
      const auto from = items_.begin() + offset(n);
      const auto to = items_.begin() + offset(end);
      std::nth_element(from, to, items_.end(), before);
      std::sort(from, to, before);
      while (n < end && held < wanted) {
        held += weight(items_[n++]);
      }
    }
    items_.resize(std::max<std::size_t>(n, 1));
  }

  std::vector<Candidate> items_;
  double largest_ = 0;
  double temperature_ = 1;
};

void filter_all(Candidates& candidates, const SamplerOptions& options) {
  const auto top_k = [&] {
    if (options.top_k > 0) {
      candidates.keep_top(static_cast<std::size_t>(options.top_k));
    }
  };
  const bool is_first = options.order == FilterOrder::Transformers;
  if (is_first) {
    candidates.set_temperature(options.temperature);
    top_k();
  }
  if (options.top_p < 1.f) {
    candidates.keep_nucleus(options.top_p);
  }
  if (options.min_p > 0.f) {
    candidates.keep_share(options.min_p);
  }
  if (!is_first) {
    top_k();
  }
  if (options.typical_p < 1.f) {
    candidates.keep_typical(options.typical_p);
  }
  if (options.epsilon_cutoff > 0.f) {
    candidates.keep_probable(options.epsilon_cutoff);
  }
  if (options.eta_cutoff > 0.f) {
    candidates.keep_above_eta(options.eta_cutoff);
  }
  candidates.set_temperature(options.temperature);
}

} // namespace

void validate(const SamplerOptions& options) {
  require_option(
      std::isfinite(options.temperature) && options.temperature >= 0.f,
      "temperature",
      options.temperature,
      "a finite number of at least 0");
  for (const auto& [name, value] :
       {std::pair{"top_p", options.top_p},
        std::pair{"typical_p", options.typical_p}}) {
    require_option(
        value > 0.f && value <= 1.f, name, value, "above 0 and at most 1");
  }
  for (const auto& [name, value] :
       {std::pair{"min_p", options.min_p},
        std::pair{"epsilon_cutoff", options.epsilon_cutoff},
        std::pair{"eta_cutoff", options.eta_cutoff}}) {
    require_option(
        value >= 0.f && value < 1.f, name, value, "at least 0 and below 1");
  }
  require_option(options.top_k >= 0, "top_k", options.top_k, "0 (off) or more");
}

Sampler::Sampler(const SamplerOptions& options)
    : options_(options), random_(options.seed) {
  validate(options);
}

std::int32_t Sampler::sample(std::span<const float> logits) {
  if (options_.temperature == 0.f) {
    return find_largest(logits);
  }
  Candidates candidates(logits);
  if (candidates.empty()) {
    return find_largest(logits);
  }
  filter_all(candidates, options_);
  // 53 random bits: the same draw on every standard library.
  return candidates.at(static_cast<double>(random_() >> 11) * 0x1p-53);
}

} // namespace optiq::generate
