#include "optiq/quant/allocation.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "optiq/base/error.h"
#include "optiq/quant/knapsack.h"

namespace optiq::quant {

namespace {

// What is worth choosing of an item: ascending cost, strictly falling error.
struct Frontier {
  std::vector<std::size_t> options; // indices into AllocationItem::options
  std::vector<std::size_t> hull; // positions in `options`, convex
};

Frontier make_frontier(const AllocationItem& item) {
  std::vector<std::size_t> order(item.options.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto& o = item.options;
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return o[a].cost != o[b].cost ? o[a].cost < o[b].cost
                                  : o[a].error < o[b].error;
  });
  Frontier f;
  for (const std::size_t i : order) {
    // The negation also drops an error that is not a number.
    if (f.options.empty() || o[i].error < o[f.options.back()].error) {
      f.options.push_back(i);
    }
  }
  for (std::size_t p = 0; p < f.options.size(); ++p) {
    const auto slope = [&](std::size_t from, std::size_t to) {
      const WidthOption& a = o[f.options[from]];
      const WidthOption& b = o[f.options[to]];
      return (a.error - b.error) / static_cast<double>(b.cost - a.cost);
    };
    while (f.hull.size() >= 2 &&
           slope(f.hull[f.hull.size() - 2], f.hull.back()) <=
               slope(f.hull.back(), p)) {
      f.hull.pop_back();
    }
    f.hull.push_back(p);
  }
  return f;
}

struct Step {
  double efficiency = 0; // error reduction per cost
  std::size_t item = 0;
  std::size_t from = 0; // positions in Frontier::options
  std::size_t to = 0;
};

// All hull steps, best first; within an item they are in order by convexity.
std::vector<Step> make_steps(
    std::span<const AllocationItem> items,
    const std::vector<Frontier>& frontiers) {
  std::vector<Step> steps;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const Frontier& f = frontiers[i];
    for (std::size_t h = 1; h < f.hull.size(); ++h) {
      const WidthOption& a = items[i].options[f.options[f.hull[h - 1]]];
      const WidthOption& b = items[i].options[f.options[f.hull[h]]];
      steps.push_back(
          {(a.error - b.error) / static_cast<double>(b.cost - a.cost),
           i,
           f.hull[h - 1],
           f.hull[h]});
    }
  }
  std::stable_sort(steps.begin(), steps.end(), [](auto& a, auto& b) {
    return a.efficiency > b.efficiency;
  });
  return steps;
}

// The state of an allocation in frontier positions.
class Choice {
 public:
  Choice(
      std::span<const AllocationItem> items,
      const std::vector<Frontier>& frontiers,
      std::uint64_t budget)
      : items_(items),
        frontiers_(frontiers),
        at_(items.size(), 0),
        left_(budget - least_cost(items)) {}

  const WidthOption& option(std::size_t item, std::size_t position) const {
    return items_[item].options[frontiers_[item].options[position]];
  }
  const WidthOption& current(std::size_t item) const {
    return option(item, at_[item]);
  }
  std::size_t position(std::size_t item) const {
    return at_[item];
  }
  std::size_t size(std::size_t item) const {
    return frontiers_[item].options.size();
  }
  std::uint64_t left() const {
    return left_;
  }
  void move(std::size_t item, std::size_t position) {
    left_ = left_ + current(item).cost - option(item, position).cost;
    at_[item] = position;
  }

  // The best single upgrade that fits.
  std::optional<Step> best_upgrade() const {
    std::optional<Step> best;
    double best_gain = 0;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      for (std::size_t p = at_[i] + 1; p < size(i); ++p) {
        if (option(i, p).cost - current(i).cost > left_) {
          break;
        }
        const double gain = current(i).error - option(i, p).error;
        if (gain > best_gain) {
          best_gain = gain;
          best = Step{gain, i, at_[i], p};
        }
      }
    }
    return best;
  }

 private:
  std::span<const AllocationItem> items_;
  const std::vector<Frontier>& frontiers_;
  std::vector<std::size_t> at_;
  std::uint64_t left_;
};

// Takes hull steps while they fit; an item whose step did not fit is closed.
void run_greedy(Choice& choice, const std::vector<Step>& steps, std::size_t n) {
  std::vector<bool> closed(n, false);
  for (const Step& step : steps) {
    if (closed[step.item]) {
      continue;
    }
    const WidthOption& from = choice.option(step.item, step.from);
    const WidthOption& to = choice.option(step.item, step.to);
    if (to.cost - from.cost <= choice.left()) {
      choice.move(step.item, step.to);
    } else {
      closed[step.item] = true;
    }
  }
}

void fill(Choice& choice) {
  while (const auto step = choice.best_upgrade()) {
    choice.move(step->item, step->to);
  }
}

// Takes what is better than the choice, if there is anything; returns how far
// the least error may be below what is then chosen.
double improve(Choice& choice, std::size_t n_items, std::uint64_t budget) {
  std::vector<KnapsackItem> items(n_items);
  double error = 0;
  for (std::size_t i = 0; i < n_items; ++i) {
    error += choice.current(i).error;
    for (std::size_t p = 0; p < choice.size(i); ++p) {
      items[i].push_back({choice.option(i, p).cost, choice.option(i, p).error});
    }
  }
  // A gain has to show in the sum.
  const KnapsackSolution solution =
      improve_knapsack(items, budget, error * (1 - 1e-12));
  if (solution.choice) {
    error = 0;
    for (std::size_t i = 0; i < n_items; ++i) {
      choice.move(i, (*solution.choice)[i]);
      error += choice.current(i).error;
    }
  }
  return std::max(0.0, error * (1 - 1e-12) - solution.lower_bound);
}

} // namespace

std::uint64_t least_cost(std::span<const AllocationItem> items) {
  std::uint64_t sum = 0;
  for (const AllocationItem& item : items) {
    sum += std::min_element(
               item.options.begin(),
               item.options.end(),
               [](auto& a, auto& b) { return a.cost < b.cost; })
               ->cost;
  }
  return sum;
}

Allocation allocate(
    std::span<const AllocationItem> items,
    std::uint64_t budget) {
  const std::uint64_t floor = least_cost(items);
  if (budget < floor) {
    fail(
        ErrorKind::InvalidInput,
        "[allocate] the budget is {}, the narrowest widths already cost {}. "
        "Raise the target or allow fewer bits.",
        budget,
        floor);
  }
  std::vector<Frontier> frontiers;
  for (const AllocationItem& item : items) {
    frontiers.push_back(make_frontier(item));
  }
  Choice choice(items, frontiers, budget);
  Allocation result;
  run_greedy(choice, make_steps(items, frontiers), items.size());
  fill(choice);
  result.gap_bound = improve(choice, items.size(), budget);
  for (std::size_t i = 0; i < items.size(); ++i) {
    result.choice.push_back(frontiers[i].options[choice.position(i)]);
    result.cost += choice.current(i).cost;
    result.error += choice.current(i).error;
  }
  return result;
}

} // namespace optiq::quant
