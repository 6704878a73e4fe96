#include <algorithm>
#include <cmath>

#include "optiq/adapters/peft_config_impl.h"
#include "optiq/base/error.h"

namespace optiq::adapters {
namespace {

using artifacts::Json;

/** A setting that changes what an adapter is, and what it says where it does
 * not. */
struct Refusal {
  const char* key;
  const char* what;
};

// PEFT's names (peft/tuners/lora/config.py); absent, null, false, empty or
// "none" mean that it is off.
constexpr Refusal kRefusals[] = {
    {"use_dora", "weight-decomposed updates (DoRA)"},
    {"use_qalora", "pooled inputs (QALoRA)"},
    {"use_bdlora", "block-diagonal updates"},
    {"bias", "trained biases"},
    {"lora_bias", "biases of B"},
    {"modules_to_save", "whole trained modules"},
    {"trainable_token_indices", "trained embeddings"},
    {"target_parameters", "updates of parameters that are no linears"},
    {"fan_in_fan_out", "weights stored transposed"},
    {"layer_replication", "repeated layers"},
    {"alora_invocation_tokens", "updates behind a phrase only (aLoRA)"},
    {"arrow_config", "routed adapters"},
    {"velora_config", "projected activations"},
    {"monteclora_config", "sampled updates"}};

// What leaves the base weights as they are; others (PiSSA, OLoRA, CorDA,
// LoftQ) begin from a base that they changed.
constexpr const char* kHarmlessInits[] = {"gaussian", "eva", "orthogonal"};

bool is_off(const Json& value) {
  return value.is_null() || value == false || value == "none" ||
      ((value.is_array() || value.is_object()) && value.empty());
}

void check_supported(const Json& json, const std::string& where) {
  const auto type = artifacts::required<std::string>(json, "peft_type", where);
  if (type != "LORA") {
    fail(
        ErrorKind::Unsupported,
        "[open_adapter] {}: found peft_type '{}', expected LORA",
        where,
        type);
  }
  for (const Refusal& refusal : kRefusals) {
    const auto found = json.find(refusal.key);
    if (found != json.end() && !is_off(*found)) {
      fail(
          ErrorKind::Unsupported,
          "[open_adapter] {}: found '{}': {}, which means {}; expected low-rank "
          "updates of linears alone",
          where,
          refusal.key,
          artifacts::describe(*found),
          refusal.what);
    }
  }
  const auto init = json.find("init_lora_weights");
  if (init != json.end() && init->is_string() &&
      std::find(
          std::begin(kHarmlessInits),
          std::end(kHarmlessInits),
          init->get<std::string>()) == std::end(kHarmlessInits)) {
    fail(
        ErrorKind::Unsupported,
        "[open_adapter] {}: found init_lora_weights {}, which changes the base "
        "weights. Save it with path_initial_model_for_weight_conversion, which "
        "gives an adapter of the original weights",
        where,
        artifacts::describe(*init));
  }
}

} // namespace

PeftConfig::PeftConfig(const Json& json, const std::string& where)
    : where_(where) {
  check_supported(json, where);
  rank_ = read_setting(json, "r", "rank_pattern");
  alpha_ = read_setting(json, "lora_alpha", "alpha_pattern");
  is_rank_stabilized_ =
      artifacts::optional_or<bool>(json, "use_rslora", where, false);
}

PeftConfig::Setting PeftConfig::read_setting(
    const Json& json,
    const char* key,
    const char* patterns) const {
  Setting setting;
  setting.otherwise = artifacts::required<double>(json, key, where_);
  const auto found = json.find(patterns);
  if (found == json.end() || found->is_null()) {
    return setting;
  }
  const Json& table = artifacts::required_object(json, patterns, where_);
  for (const auto& [pattern, value] : table.items()) {
    setting.patterns.emplace_back(
        text::PatternRegex(
            "\\A(?:.*\\.)?(?:" + pattern + ")\\z", where_ + ", " + patterns),
        artifacts::required<double>(table, pattern.c_str(), where_));
  }
  return setting;
}

double PeftConfig::Setting::of(const std::string& module) const {
  for (const auto& [pattern, value] : patterns) {
    text::PatternRun run(module.size());
    std::vector<text::TextRange> matches;
    pattern.find_all(module, run, matches);
    if (!matches.empty()) {
      return value;
    }
  }
  return otherwise;
}

int PeftConfig::rank_of(const std::string& module) const {
  constexpr double kMostRank = 1 << 20;
  const double rank = rank_.of(module);
  if (!(rank >= 1 && rank <= kMostRank) || rank != std::floor(rank)) {
    fail(
        ErrorKind::Corrupt,
        "[open_adapter] {}: found rank {} for module '{}', expected a whole "
        "number from 1 to {}",
        where_,
        rank,
        module,
        kMostRank);
  }
  return static_cast<int>(rank);
}

float PeftConfig::scale_of(const std::string& module) const {
  const double rank = rank_of(module);
  const double divisor = is_rank_stabilized_ ? std::sqrt(rank) : rank;
  return static_cast<float>(alpha_.of(module) / divisor);
}

} // namespace optiq::adapters
