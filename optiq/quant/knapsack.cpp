#include "optiq/quant/knapsack.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace optiq::quant {
namespace {

/** A price per cost, and what the items then add up to. */
struct Relaxation {
  double price = 0;
  double bound = 0;
  std::vector<double> least; // per item, of error + price * cost
};

Relaxation
relax(std::span<const KnapsackItem> items, std::uint64_t budget, double price) {
  Relaxation relaxation{.price = price};
  for (const KnapsackItem& item : items) {
    double least = std::numeric_limits<double>::infinity();
    for (const KnapsackOption& option : item) {
      least = std::min(
          least, option.error + price * static_cast<double>(option.cost));
    }
    relaxation.least.push_back(least);
    relaxation.bound += least;
  }
  relaxation.bound -= price * static_cast<double>(budget);
  return relaxation;
}

/** The bound is concave in the price and has its kinks where two options of an
 * item are equal: the slopes between them. */
Relaxation best_relaxation(
    std::span<const KnapsackItem> items,
    std::uint64_t budget) {
  std::vector<double> prices{0};
  for (const KnapsackItem& item : items) {
    for (std::size_t a = 0; a < item.size(); ++a) {
      for (std::size_t b = a + 1; b < item.size(); ++b) {
        prices.push_back(
            (item[a].error - item[b].error) /
            static_cast<double>(item[b].cost - item[a].cost));
      }
    }
  }
  std::sort(prices.begin(), prices.end());
  prices.erase(std::unique(prices.begin(), prices.end()), prices.end());
  // The last price from which the bound still rises.
  std::size_t low = 0;
  std::size_t high = prices.size() - 1;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (relax(items, budget, prices[middle]).bound <
        relax(items, budget, prices[middle + 1]).bound) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return relax(items, budget, prices[low]);
}

/** A choice of options of the first items. */
struct Sum {
  std::uint64_t cost = 0;
  double error = 0;
  double reduced = 0; // what its options have above the least of their items
  std::size_t parent = 0; // among the sums of the items before
  std::size_t option = 0; // of the last item
};

/** Ascending by cost, error strictly falling. */
void drop_dominated(std::vector<Sum>& sums) {
  std::stable_sort(sums.begin(), sums.end(), [](const Sum& a, const Sum& b) {
    return a.cost != b.cost ? a.cost < b.cost : a.error < b.error;
  });
  double least = std::numeric_limits<double>::infinity();
  std::erase_if(sums, [&](const Sum& sum) {
    const bool is_dominated = sum.error >= least;
    least = std::min(least, sum.error);
    return is_dominated;
  });
}

/** True where some had to go. */
bool keep_most_promising(std::vector<Sum>& sums, std::size_t max_sums) {
  if (sums.size() <= max_sums) {
    return false;
  }
  std::stable_sort(sums.begin(), sums.end(), [](const Sum& a, const Sum& b) {
    return a.reduced < b.reduced;
  });
  sums.resize(max_sums);
  return true;
}

std::vector<std::uint64_t> least_costs_behind(
    std::span<const KnapsackItem> items) {
  std::vector<std::uint64_t> least(items.size() + 1, 0);
  for (std::size_t i = items.size(); i-- > 0;) {
    least[i] = least[i + 1] + items[i].front().cost;
  }
  return least;
}

/** Every sum with one of an item's options, unless it can't lead to an error
 * below the incumbent, `room` above the bound, or to one within the budget. */
std::vector<Sum> extend(
    const std::vector<Sum>& sums,
    const KnapsackItem& item,
    double price,
    double least,
    double room,
    std::uint64_t max_cost) {
  std::vector<Sum> all;
  for (std::size_t parent = 0; parent < sums.size(); ++parent) {
    for (std::size_t o = 0; o < item.size(); ++o) {
      const Sum sum{
          .cost = sums[parent].cost + item[o].cost,
          .error = sums[parent].error + item[o].error,
          .reduced = sums[parent].reduced + item[o].error +
              price * static_cast<double>(item[o].cost) - least,
          .parent = parent,
          .option = o};
      if (sum.cost <= max_cost && sum.reduced < room) {
        all.push_back(sum);
      }
    }
  }
  return all;
}

std::vector<std::size_t> trace(
    const std::vector<std::vector<Sum>>& levels,
    std::size_t at) {
  std::vector<std::size_t> choice(levels.size() - 1);
  for (std::size_t level = levels.size() - 1; level > 0; --level) {
    choice[level - 1] = levels[level][at].option;
    at = levels[level][at].parent;
  }
  return choice;
}

} // namespace

KnapsackSolution improve_knapsack(
    std::span<const KnapsackItem> items,
    std::uint64_t budget,
    double incumbent,
    std::size_t max_sums) {
  const Relaxation relaxation = best_relaxation(items, budget);
  KnapsackSolution solution{
      .choice = {}, .lower_bound = std::min(incumbent, relaxation.bound)};
  const double room = incumbent - relaxation.bound;
  const std::vector<std::uint64_t> behind = least_costs_behind(items);
  if (!(room > 0) || behind.front() > budget) {
    return solution;
  }
  std::vector<std::vector<Sum>> levels{{Sum{}}};
  bool is_cut = false;
  for (std::size_t i = 0; i < items.size() && !levels.back().empty(); ++i) {
    std::vector<Sum> sums = extend(
        levels.back(),
        items[i],
        relaxation.price,
        relaxation.least[i],
        room,
        budget - behind[i + 1]);
    drop_dominated(sums);
    is_cut = keep_most_promising(sums, max_sums) || is_cut;
    levels.push_back(std::move(sums));
  }
  const std::vector<Sum>& last = levels.back();
  const auto best = std::min_element(
      last.begin(), last.end(), [](const Sum& a, const Sum& b) {
        return a.error < b.error;
      });
  double least = incumbent;
  if (best != last.end() && best->error < incumbent) {
    least = best->error;
    solution.choice = trace(levels, best - last.begin());
  }
  if (!is_cut) {
    solution.lower_bound = least;
  }
  return solution;
}

} // namespace optiq::quant
