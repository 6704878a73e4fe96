#include "optiq/generate/logit_scan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

namespace optiq::generate {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();

std::int32_t first_id(std::size_t block) {
  return static_cast<std::int32_t>(block * kernels::kLogitBlock);
}

void append_at_least(
    std::span<const float> logits,
    float threshold,
    std::int32_t first,
    TokenList& tokens) {
  std::array<std::int32_t, kernels::kFoundRoom> ids;
  std::array<float, kernels::kFoundRoom> values;
  const std::size_t n =
      kernels::find_at_least(logits, threshold, first, ids, values);
  tokens.ids.insert(tokens.ids.end(), ids.data(), ids.data() + n);
  tokens.logits.insert(tokens.logits.end(), values.data(), values.data() + n);
}

} // namespace

LogitScan::LogitScan(const LogitRow& row) : row_(row) {
  sums_.maxima.resize(row.blocks().blocks.size());
  kernels::block_maxima(row.blocks(), sums_.maxima);
  largest_ = *std::max_element(sums_.maxima.begin(), sums_.maxima.end());
}

LogitScan::LogitScan(const LogitRow& row, kernels::BlockSums sums, float scale)
    : row_(row),
      sums_(std::move(sums)),
      largest_(*std::max_element(sums_.maxima.begin(), sums_.maxima.end())) {
  sum_up(scale);
}

std::int32_t LogitScan::argmax() const {
  for (const std::size_t b : blocks_from(largest_)) {
    const auto block = row_.block(b);
    // A block of NaN alone has the maximum of one of -inf.
    const auto found = std::find(block.begin(), block.end(), largest_);
    if (found != block.end()) {
      return first_id(b) + static_cast<std::int32_t>(found - block.begin());
    }
  }
  return 0;
}

std::vector<std::size_t> LogitScan::blocks_from(float threshold) const {
  std::vector<std::size_t> blocks;
  for (std::size_t b = 0; b < sums_.maxima.size(); ++b) {
    if (sums_.maxima[b] >= threshold) {
      blocks.push_back(b);
    }
  }
  return blocks;
}

TokenList LogitScan::at_least(float threshold) const {
  const std::vector<std::size_t> blocks = blocks_from(threshold);
  TokenList tokens;
  tokens.ids.reserve(blocks.size() * kernels::kLogitBlock);
  tokens.logits.reserve(blocks.size() * kernels::kLogitBlock);
  for (const std::size_t b : blocks) {
    append_at_least(row_.block(b), threshold, first_id(b), tokens);
  }
  return tokens;
}

float LogitScan::least_of_top(std::size_t k) const {
  // k blocks have a logit each that is at least the k-th largest maximum.
  if (k > sums_.maxima.size()) {
    return kLowest;
  }
  std::vector<float> sorted = sums_.maxima;
  const auto kth = sorted.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(sorted.begin(), kth, sorted.end(), std::greater<>());
  return std::max(*kth, kLowest);
}

TokenList LogitScan::top(std::size_t k) const {
  if (k == 0) {
    return {};
  }
  TokenList tokens = at_least(least_of_top(k));
  keep_top(tokens, k);
  return tokens;
}

double LogitScan::mass(float scale) {
  weigh_blocks(scale);
  return mass_;
}

LogitScan::Place LogitScan::find_place_of(double place, float scale) {
  weigh_blocks(scale);
  double left = place * mass_;
  std::size_t last = 0; // the last block that has mass
  for (std::size_t b = 0; b < heights_.size(); ++b) {
    const double mass = block_mass(b);
    if (mass > 0) {
      if (left < mass) {
        return {.block = b, .share = left / mass};
      }
      last = b;
      left -= mass;
    }
  }
  // Rounding left nothing of the last one.
  return {.block = last, .share = 1.0};
}

std::size_t LogitScan::block_at(double place, float scale) {
  return find_place_of(place, scale).block;
}

std::int32_t LogitScan::at(double place, float scale) {
  const auto [chosen, share] = find_place_of(place, scale);
  const auto block = row_.block(chosen);
  std::array<float, kernels::kLogitBlock> memory;
  const std::span<float> weights(memory.data(), block.size());
  kernels::exp_logits(block, sums_.maxima[chosen], scale, weights);
  return first_id(chosen) +
      static_cast<std::int32_t>(find_place(weights, share * sum_of(weights)));
}

double LogitScan::mean_depth(float scale) {
  weigh_blocks(scale);
  if (sums_.depths.empty()) {
    sums_.depths.resize(sums_.maxima.size());
    kernels::block_depths(row_.blocks(), sums_.maxima, scale, sums_.depths);
  }
  double sum = 0.0;
  for (std::size_t b = 0; b < heights_.size(); ++b) {
    const double mass = block_mass(b);
    if (mass > 0) {
      const double depth = (double{largest_} - sums_.maxima[b]) * scale;
      sum += heights_[b] * sums_.depths[b] + mass * depth;
    }
  }
  return sum / mass_;
}

void LogitScan::weigh_blocks(float scale) {
  if (scale == scale_) {
    return;
  }
  sums_.masses.resize(sums_.maxima.size());
  kernels::block_masses(row_.blocks(), sums_.maxima, scale, sums_.masses);
  sums_.depths.clear();
  sum_up(scale);
}

void LogitScan::sum_up(float scale) {
  scale_ = scale;
  heights_.resize(sums_.maxima.size());
  kernels::exp_logits(sums_.maxima, largest_, scale, heights_);
  mass_ = 0.0;
  for (std::size_t b = 0; b < heights_.size(); ++b) {
    mass_ += block_mass(b);
  }
}

double sum_of(std::span<const float> weights) {
  // Several sums: one would wait for each addition.
  std::array<double, 8> sums{};
  std::size_t i = 0;
  for (; i + sums.size() <= weights.size(); i += sums.size()) {
    for (std::size_t j = 0; j < sums.size(); ++j) {
      sums[j] += weights[i + j];
    }
  }
  for (; i < weights.size(); ++i) {
    sums[i % sums.size()] += weights[i];
  }
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

std::size_t find_place(std::span<const float> weights, double wanted) {
  constexpr std::size_t kStride = kernels::kLogitBlock;
  double sum = 0;
  std::size_t begin = 0;
  while (weights.size() - begin > kStride) {
    const double next = sum + sum_of(weights.subspan(begin, kStride));
    if (next > wanted) {
      break;
    }
    sum = next;
    begin += kStride;
  }
  for (std::size_t i = begin; i < weights.size(); ++i) {
    sum += weights[i];
    if (weights[i] > 0 && sum > wanted) {
      return i;
    }
  }
  const auto last = std::find_if(
      weights.rbegin(), weights.rend(), [](float w) { return w > 0; });
  return static_cast<std::size_t>(weights.rend() - last) - 1;
}

void keep_top(TokenList& tokens, std::size_t k) {
  if (k >= tokens.size()) {
    return;
  }
  std::vector<std::size_t> order(tokens.size());
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](std::size_t a, std::size_t b) {
    return is_before(
        tokens.logits[a], tokens.ids[a], tokens.logits[b], tokens.ids[b]);
  };
  const auto kth = order.begin() + static_cast<std::ptrdiff_t>(k);
  std::nth_element(order.begin(), kth, order.end(), before);
  std::sort(order.begin(), kth);
  for (std::size_t i = 0; i < k; ++i) {
    tokens.ids[i] = tokens.ids[order[i]];
    tokens.logits[i] = tokens.logits[order[i]];
  }
  tokens.ids.resize(k);
  tokens.logits.resize(k);
}

} // namespace optiq::generate
