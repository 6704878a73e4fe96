#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "optiq/generate/candidates_impl.h"

namespace optiq::generate {
namespace {

/** A token with what it is sorted by. */
struct Ranked {
  double distance; // ascending
  float logit; // then descending
  std::int32_t id; // then ascending
  float weight;
};

bool is_nearer(const Ranked& a, const Ranked& b) {
  return a.distance != b.distance ? a.distance < b.distance
                                  : is_before(a.logit, a.id, b.logit, b.id);
}

/** Equal steps of distance with the mass that lies in each. */
class Bins {
 public:
  Bins(double least, double range) : least_(least), factor_(kBins / range) {}

  std::int64_t index_of(double distance) const {
    return std::min(
        static_cast<std::int64_t>((distance - least_) * factor_), kBins - 1);
  }
  void add(double distance, float weight) {
    const std::int64_t index = index_of(distance);
    masses_[static_cast<std::size_t>(index)] += weight;
    last_ = std::max(last_, index);
  }
  /** The bin in which `held` and the masses reach the wanted one; the last with
   * tokens, if none. Adds to `held` what lies before it. */
  std::int64_t find_border(double wanted, double& held) const {
    std::size_t border = 0;
    while (border < static_cast<std::size_t>(last_) &&
           held + masses_[border] < wanted) {
      held += masses_[border++];
    }
    return static_cast<std::int64_t>(border);
  }

 private:
  static constexpr std::int64_t kBins = 1024;
  double least_;
  double factor_;
  std::int64_t last_ = 0;
  std::array<double, kBins> masses_{};
};

/** The token with which the mass of the nearest, and `held` before them,
 * reaches the wanted one; the last, if none. Cuts what is open into bins until
 * few tokens are left to be sorted. */
Ranked find_border(std::vector<Ranked> open, double held, double wanted) {
  constexpr std::size_t kFew = 128;
  while (open.size() > kFew) {
    const auto [first, last] = std::minmax_element(
        open.begin(), open.end(), [](const Ranked& a, const Ranked& b) {
          return a.distance < b.distance;
        });
    if (first->distance == last->distance) {
      break;
    }
    Bins bins(first->distance, last->distance - first->distance);
    for (const Ranked& r : open) {
      bins.add(r.distance, r.weight);
    }
    const std::int64_t border = bins.find_border(wanted, held);
    std::erase_if(open, [&](const Ranked& r) {
      return bins.index_of(r.distance) != border;
    });
  }
  std::sort(open.begin(), open.end(), is_nearer);
  for (const Ranked& r : open) {
    held += r.weight;
    if (held >= wanted) {
      return r;
    }
  }
  return open.back();
}

} // namespace

template <typename Predicate>
void Candidates::keep_if(const Predicate& is_kept) {
  std::size_t n = 0;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const bool kept = is_kept(i);
    tokens_.ids[n] = tokens_.ids[i];
    tokens_.logits[n] = tokens_.logits[i];
    weights_[n] = weights_[i];
    n += kept ? 1 : 0;
  }
  tokens_.ids.resize(n);
  tokens_.logits.resize(n);
  weights_.resize(n);
}

Candidates::Candidates(TokenList tokens, float scale)
    : tokens_(std::move(tokens)) {
  weigh(scale);
}

void Candidates::weigh(float scale) {
  scale_ = scale;
  largest_ = *std::max_element(tokens_.logits.begin(), tokens_.logits.end());
  weights_.resize(tokens_.size());
  kernels::exp_logits(tokens_.logits, largest_, scale, weights_);
}

double Candidates::mass() const {
  return sum_of(weights_);
}

void Candidates::keep_nucleus(double mass) {
  keep_nearest(0.0, mass);
}

void Candidates::keep_share(double min_p) {
  keep_if([&](std::size_t i) { return weights_[i] >= min_p; });
}

void Candidates::keep_typical(double mean_depth, double mass) {
  keep_nearest(mean_depth, mass);
  weigh(scale_); // the most probable may be gone
}

void Candidates::keep_probable(double epsilon) {
  const double least = epsilon * mass();
  keep_if([&](std::size_t i) {
    return weights_[i] >= least || tokens_.logits[i] == largest_;
  });
}

void Candidates::keep_above_eta(double epsilon) {
  const double entropy = std::log(mass()) + mean_depth();
  keep_probable(std::min(epsilon, std::sqrt(epsilon) * std::exp(-entropy)));
}

std::int32_t Candidates::at(double place) const {
  return tokens_.ids[find_place(weights_, place * mass())];
}

double Candidates::mean_depth() const {
  double total = 0;
  double sum = 0;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] > 0) {
      total += weights_[i];
      sum += weights_[i] * depth(i);
    }
  }
  return sum / total;
}

void Candidates::keep_nearest(double depth, double mass) {
  const auto distance = [&](std::size_t i) {
    return std::abs(this->depth(i) - depth);
  };
  const auto rank = [&](std::size_t i) {
    return Ranked{distance(i), tokens_.logits[i], tokens_.ids[i], weights_[i]};
  };
  const float smallest =
      *std::min_element(tokens_.logits.begin(), tokens_.logits.end());
  const double range =
      std::max(depth, (double{largest_} - smallest) * scale_ - depth);
  // One token, or as many with one logit: any range will do.
  Bins bins(0.0, range > 0 ? range : 1.0);
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    bins.add(distance(i), weights_[i]);
  }
  double held = 0;
  const std::int64_t border_bin = bins.find_border(mass, held);
  std::vector<Ranked> open;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    if (bins.index_of(distance(i)) == border_bin) {
      open.push_back(rank(i));
    }
  }
  const Ranked border = find_border(std::move(open), held, mass);
  // Without branches, which nobody could predict.
  keep_if([&](std::size_t i) {
    const double d = distance(i);
    const float logit = tokens_.logits[i];
    const bool is_tied = (d == border.distance) &
        ((logit > border.logit) |
         ((logit == border.logit) & (tokens_.ids[i] <= border.id)));
    return (d < border.distance) | is_tied;
  });
}

} // namespace optiq::generate
