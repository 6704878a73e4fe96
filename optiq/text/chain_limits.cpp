#include <algorithm>

#include <fmt/format.h>

#include "optiq/text/chain_limits_impl.h"

namespace optiq::text {
namespace {

// Llama 2 and Gemma have chains of 5 steps and replace one character by one.
constexpr std::size_t kMaxSteps = 256;
constexpr double kMaxGrowth = 4096;

} // namespace

void ChainLimits::add_step(const JsonField& field) {
  if (++steps_ > kMaxSteps) {
    field.refuse(fmt::format("more than {} steps", kMaxSteps));
  }
}

void ChainLimits::add_replacement(
    std::string_view pattern,
    std::string_view content,
    const JsonField& field) {
  growth_ *= std::max(
      1.0,
      static_cast<double>(content.size()) /
          static_cast<double>(pattern.size()));
  if (growth_ > kMaxGrowth) {
    field.refuse(fmt::format(
        "replacements that make a text more than {} times as long",
        kMaxGrowth));
  }
}

} // namespace optiq::text
