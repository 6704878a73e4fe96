#pragma once

#include <string>
#include <utility>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/text/pattern_regex.h"

namespace optiq::adapters {

/**
 * adapter_config.json as PEFT's LoraConfig means it. A pattern is a regular
 * expression for the end of a module's path, from the beginning or behind a
 * dot; the first that fits counts.
 */
class PeftConfig {
 public:
  /** Throws Corrupt, or Unsupported for settings that are more than low-rank
   * updates, naming `where` and the key. */
  PeftConfig(const artifacts::Json& json, const std::string& where);

  /** Of a module, by its path in the model that was adapted. */
  int rank_of(const std::string& module) const;
  /** alpha / rank, or alpha / sqrt(rank) with use_rslora. */
  float scale_of(const std::string& module) const;

 private:
  /** Values of some modules, and of all others. */
  struct Setting {
    std::vector<std::pair<text::PatternRegex, double>> patterns;
    double otherwise = 0;

    double of(const std::string& module) const;
  };

  Setting read_setting(
      const artifacts::Json& json,
      const char* key,
      const char* patterns) const;

  std::string where_;
  Setting rank_;
  Setting alpha_;
  bool is_rank_stabilized_ = false;
};

} // namespace optiq::adapters
