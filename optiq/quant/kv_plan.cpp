#include "optiq/quant/kv_plan.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "optiq/base/error.h"
#include "optiq/quant/allocation.h"
#include "optiq/quant/plan_selection.h"

namespace optiq::quant {
namespace {

using artifacts::KvMethod;
using kernels::kKvBlockTokens;

// One cache that a layer may get.
struct Choice {
  const KvOffer* key = nullptr;
  const KvOffer* value = nullptr; // of the same method

  std::uint64_t bytes() const {
    return key->key_bytes + value->value_bytes;
  }
};

std::vector<Choice> choices_of(const KvLayerOffers& layer, bool split) {
  std::vector<Choice> choices;
  for (const KvOffer& key : layer.offers) {
    for (const KvOffer& value : layer.offers) {
      if (key.method == value.method && (split || key.bits == value.bits)) {
        choices.push_back({&key, &value});
      }
    }
  }
  return choices;
}

// What an allocation minimizes.
struct ErrorRule {
  bool relative = false;
  double prior_weight = 0;
};

// The error of a candidate: the KL of one cache alone is noisy, and the prior,
// which by itself gives equal widths, holds against that.
double error_of(
    const KvMeasured& measured,
    KvMethod method,
    double key_bits,
    double value_bits,
    const ErrorRule& rule) {
  const auto& candidates = measured.layer.candidates;
  const auto found =
      std::find_if(candidates.begin(), candidates.end(), [&](const auto& c) {
        return c.codec.method == method && c.codec.key_bits == key_bits &&
            c.codec.value_bits == value_bits;
      });
  if (found == candidates.end()) {
    fail(
        ErrorKind::Internal,
        "[make_kv_plans] {}: {} at {} and {} bits was not measured",
        measured.layer.layer_name,
        name_of(method),
        key_bits,
        value_bits);
  }
  const double kl = rule.relative
      ? measured.relative_kl[found - candidates.begin()]
      : found->kl;
  if (rule.prior_weight == 0) {
    return kl;
  }
  const double values = measured.layer.n_kv_heads * measured.layer.head_dim;
  const double prior = values * std::exp2(-2 * std::max(key_bits, value_bits));
  return std::pow(std::max(kl, 0.0), 1 - rule.prior_weight) *
      std::pow(prior, rule.prior_weight);
}

double error_of(
    const KvMeasured& measured,
    const Choice& choice,
    bool split,
    const ErrorRule& rule) {
  const KvMethod method = choice.key->method;
  const double k = choice.key->bits;
  const double v = choice.value->bits;
  return split ? error_of(measured, method, k, 0, rule) +
          error_of(measured, method, 0, v, rule)
               : error_of(measured, method, k, v, rule);
}

// The layers that have offers, each with what it may become.
struct Layer {
  const KvMeasured* measured = nullptr;
  std::vector<Choice> choices;
};

std::vector<Layer> pair_up(
    const std::vector<KvLayerOffers>& layers,
    std::span<const KvMeasured> measured,
    bool split) {
  std::vector<Layer> result;
  for (const KvLayerOffers& layer : layers) {
    if (!layer.offers.empty()) {
      result.push_back({&measured[result.size()], choices_of(layer, split)});
    }
  }
  return result;
}

KvPlan make_plan(
    const std::vector<Layer>& layers,
    const std::vector<std::size_t>& choice,
    const KvSearch& search,
    std::string origin) {
  KvPlan plan;
  plan.origin = std::move(origin);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const Choice& c = layers[i].choices[choice[i]];
    plan.layers.push_back(kv_layer(
        search,
        layers[i].measured->layer.layer_idx,
        c.key->method,
        c.key->bits,
        c.value->bits));
    plan.block_bytes += c.bytes();
    plan.predicted_kl += error_of(*layers[i].measured, c, search.split, {});
  }
  return plan;
}

KvPlan allocate_plan(
    const std::vector<Layer>& layers,
    const KvSearch& search,
    std::uint64_t budget,
    const ErrorRule& rule) {
  std::vector<AllocationItem> items;
  for (const Layer& layer : layers) {
    AllocationItem item{layer.measured->layer.layer_name, {}};
    for (const Choice& choice : layer.choices) {
      item.options.push_back(
          {.cost = choice.bytes(),
           .error = error_of(*layer.measured, choice, search.split, rule)});
    }
    items.push_back(std::move(item));
  }
  std::string origin = rule.relative ? "relative KL" : "KL";
  if (rule.prior_weight > 0) {
    origin += fmt::format(", size prior {}", rule.prior_weight);
  }
  return make_plan(
      layers, allocate(items, budget).choice, search, std::move(origin));
}

// The same method and width for every layer and side, where each has it.
std::optional<KvPlan> uniform_plan(
    const std::vector<Layer>& layers,
    const KvSearch& search,
    KvMethod method,
    double bits) {
  std::vector<std::size_t> choice;
  for (const Layer& layer : layers) {
    const auto& choices = layer.choices;
    const auto found =
        std::find_if(choices.begin(), choices.end(), [&](const Choice& c) {
          return c.key->method == method && c.key->bits == bits &&
              c.value->bits == bits;
        });
    if (found == choices.end()) {
      return std::nullopt;
    }
    choice.push_back(found - choices.begin());
  }
  return make_plan(
      layers,
      choice,
      search,
      fmt::format("uniform {} {}", name_of(method), bits));
}

// Block bytes of a method by width, where every layer with offers has it.
std::map<double, std::uint64_t> bytes_by_width(
    const std::vector<KvLayerOffers>& layers,
    const KvSearch& search,
    KvMethod method) {
  std::map<double, std::uint64_t> result;
  for (const double bits : search.candidate_bits) {
    std::uint64_t bytes = 0;
    const bool everywhere =
        std::all_of(layers.begin(), layers.end(), [&](const auto& layer) {
          const auto found = std::find_if(
              layer.offers.begin(), layer.offers.end(), [&](const auto& o) {
                return o.method == method && o.bits == bits;
              });
          if (found != layer.offers.end()) {
            bytes += found->key_bytes + found->value_bytes;
          }
          return layer.offers.empty() || found != layer.offers.end();
        });
    if (everywhere) {
      result[bits] = bytes;
    }
  }
  return result;
}

// Block bytes at a mean width, by mixing the two widths around it.
std::optional<double> bytes_at(
    const std::map<double, std::uint64_t>& bytes,
    double bits) {
  const auto above = bytes.lower_bound(bits);
  if (above == bytes.end()) {
    return std::nullopt;
  }
  const auto high = static_cast<double>(above->second);
  if (above->first == bits) {
    return high;
  }
  if (above == bytes.begin()) { // below the narrowest, or not a number
    return std::nullopt;
  }
  const auto below = std::prev(above);
  const auto low = static_cast<double>(below->second);
  return low +
      (high - low) * (bits - below->first) / (above->first - below->first);
}

std::uint64_t budget_of_bits(
    const std::vector<KvLayerOffers>& layers,
    const KvSearch& search,
    double bits) {
  std::optional<double> least;
  for (const KvMethod method : search.methods) {
    const auto bytes = bytes_at(bytes_by_width(layers, search, method), bits);
    if (bytes && (!least || *bytes < *least)) {
      least = bytes;
    }
  }
  if (!least) {
    fail(
        ErrorKind::InvalidInput,
        "[kv-cache] --target-bits: found {}, expected a mean width that one "
        "method can have with the widths {}. Change --candidate-bits or "
        "--methods.",
        bits,
        fmt::join(search.candidate_bits, ", "));
  }
  return static_cast<std::uint64_t>(*least);
}

std::uint64_t budget_of_bytes(
    const std::vector<KvLayerOffers>& layers,
    const KvSearch& search,
    std::uint64_t bytes_per_token) {
  std::uint64_t dense = 0;
  std::uint64_t least = 0;
  for (const KvLayerOffers& layer : layers) {
    const std::vector<Choice> choices = choices_of(layer, search.split);
    if (choices.empty()) {
      dense += layer.dense_bytes;
      continue;
    }
    least +=
        std::min_element(
            choices.begin(),
            choices.end(),
            [](const auto& a, const auto& b) { return a.bytes() < b.bytes(); })
            ->bytes();
  }
  // More than 2^50 bytes are a budget without a bound.
  const std::uint64_t wanted =
      std::min(bytes_per_token, std::uint64_t{1} << 50) * kKvBlockTokens;
  if (wanted < dense + least) {
    fail(
        ErrorKind::InvalidInput,
        "[kv-cache] --target-bytes-per-token: found {}, expected at least {}, "
        "which the narrowest widths take{}. Raise it or allow fewer bits.",
        bytes_per_token,
        (dense + least + kKvBlockTokens - 1) / kKvBlockTokens,
        dense > 0 ? ", layers that stay bf16 included" : "");
  }
  return wanted - dense;
}

} // namespace

std::uint64_t kv_budget(
    const std::vector<KvLayerOffers>& layers,
    const KvSearch& search,
    const KvTarget& target) {
  if (target.bits.has_value() == target.bytes_per_token.has_value()) {
    fail(
        ErrorKind::InvalidInput,
        "[kv-cache] targets: found {}, expected one of --target-bits and "
        "--target-bytes-per-token.",
        target.bits ? "both" : "none");
  }
  return target.bits ? budget_of_bits(layers, search, *target.bits)
                     : budget_of_bytes(layers, search, *target.bytes_per_token);
}

std::vector<KvPlan> make_kv_plans(
    const std::vector<KvLayerOffers>& layers,
    std::span<const KvMeasured> measured,
    const KvSearch& search,
    std::uint64_t budget) {
  const std::vector<Layer> paired = pair_up(layers, measured, search.split);
  std::vector<KvPlan> plans;
  const auto add = [&](KvPlan plan) {
    if (std::none_of(plans.begin(), plans.end(), [&](const KvPlan& other) {
          return other.layers == plan.layers;
        })) {
      plans.push_back(std::move(plan));
    }
  };
  for (const bool relative : {false, true}) {
    for (const double weight : kPriorWeights) {
      add(allocate_plan(paired, search, budget, {relative, weight}));
    }
  }
  for (const KvMethod method : search.methods) {
    for (const double bits : search.candidate_bits) {
      auto plan = uniform_plan(paired, search, method, bits);
      if (plan && plan->block_bytes <= budget) {
        add(std::move(*plan));
      }
    }
  }
  return plans;
}

KvPlan select_kv_plan(
    const models::Setup& setup,
    const Calibration& calibration,
    std::vector<KvPlan> plans,
    const ProgressSink& progress) {
  std::vector<SetupMaker> makers;
  makers.reserve(plans.size());
  for (const KvPlan& plan : plans) {
    makers.emplace_back([&setup, &plan] {
      return models::Setup(setup.model, setup.compute, plan.layers);
    });
  }
  const Selection selection =
      select_model(setup, calibration, makers, progress);
  KvPlan best = std::move(plans[selection.best]);
  best.measured_kl = selection.kl[selection.best];
  return best;
}

} // namespace optiq::quant
