#include "optiq/quant/rank_agreement.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

namespace optiq::quant {
namespace {

/** Places from the largest to the smallest, the earlier of equals first. */
std::vector<std::size_t> descending(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return values[a] > values[b];
  });
  return order;
}

std::vector<double> ranks(std::span<const double> values) {
  const std::vector<std::size_t> order = descending(values);
  std::vector<double> ranks(values.size());
  for (std::size_t begin = 0; begin < order.size();) {
    std::size_t end = begin;
    while (end < order.size() && values[order[end]] == values[order[begin]]) {
      ++end;
    }
    for (std::size_t i = begin; i < end; ++i) {
      ranks[order[i]] = static_cast<double>(begin + end - 1) / 2;
    }
    begin = end;
  }
  return ranks;
}

double correlation(std::span<const double> x, std::span<const double> y) {
  const double mean = static_cast<double>(x.size() - 1) / 2; // of ranks
  double xy = 0;
  double xx = 0;
  double yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean) * (y[i] - mean);
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
  }
  return xx == 0 || yy == 0 ? 0 : xy / std::sqrt(xx * yy);
}

} // namespace

RankAgreement rank_agreement(
    std::span<const double> estimates,
    std::span<const double> truth) {
  RankAgreement result{.n = truth.size()};
  result.spearman = correlation(ranks(estimates), ranks(truth));
  result.top_k = std::max<std::size_t>(1, result.n / 4);
  const auto top = static_cast<std::ptrdiff_t>(result.top_k);
  const std::vector<std::size_t> a = descending(estimates);
  const std::vector<std::size_t> b = descending(truth);
  const std::set<std::size_t> first(a.begin(), a.begin() + top);
  const auto shared = std::count_if(
      b.begin(), b.begin() + top, [&](auto i) { return first.contains(i); });
  result.top_overlap = static_cast<double>(shared) / static_cast<double>(top);
  return result;
}

} // namespace optiq::quant
