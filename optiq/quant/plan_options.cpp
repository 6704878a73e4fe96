#include "optiq/quant/plan_options.h"

#include <algorithm>
#include <cmath>

#include "optiq/artifacts/affine_format.h"
#include "optiq/base/error.h"
#include "optiq/quant/inventory.h"

namespace optiq::quant {
namespace {

using artifacts::PlanMethod;

void check_widths(const PlanOptions& options) {
  const bool is_uniform = options.method == PlanMethod::Uniform;
  for (const int bits : options.candidate_bits) {
    if (!artifacts::is_one_of(artifacts::kAffineBits, bits) &&
        (is_uniform || bits != artifacts::kDenseBits)) {
      fail(
          ErrorKind::InvalidInput,
          "[convert] {} {}: expected widths of {} bits{}.",
          is_uniform ? "--bits" : "--candidate-bits",
          bits,
          artifacts::list_text(artifacts::kAffineBits),
          is_uniform ? "" : ", or 16 for matrices that stay as they are");
    }
  }
  if (options.candidate_bits.empty() ||
      options.candidate_bits.front() == artifacts::kDenseBits) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --candidate-bits: none given that quantizes, expected a list "
        "like 4,8.");
  }
}

void check_group_sizes(const PlanOptions& options) {
  for (const int group_size : group_sizes_of(options)) {
    check_group_size(group_size);
  }
  if (options.other_group_sizes.empty()) {
    return;
  }
  if (options.method != PlanMethod::Optiq) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --group-size: found {} sizes with --method {}, expected one: "
        "only optiq weighs them.",
        group_sizes_of(options).size(),
        name_of(options.method));
  }
  if (!options.target_file_bpw && !options.target_bytes && !options.target_kl) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --group-size: found {} sizes and no target that counts their "
        "scales. Give --target-file-bpw, --target-size or --target-kl.",
        group_sizes_of(options).size());
  }
}

void check_targets(const PlanOptions& options) {
  const bool uniform = options.method == PlanMethod::Uniform;
  const int n_targets = (options.target_bpw ? 1 : 0) +
      (options.target_file_bpw ? 1 : 0) + (options.target_bytes ? 1 : 0) +
      (options.target_kl ? 1 : 0);
  if (n_targets > 1 || (uniform && n_targets > 0)) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] {} targets with --method {}: expected {}.",
        n_targets,
        name_of(options.method),
        uniform ? "none, since --bits says it all"
                : "one of --target-bpw, --target-file-bpw, --target-size and "
                  "--target-kl");
  }
  // Not a comparison that NaN passes.
  if (options.target_kl &&
      !(*options.target_kl > 0 && std::isfinite(*options.target_kl))) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --target-kl {}: expected nats per token, above 0.",
        *options.target_kl);
  }
  if (options.target_kl && options.method != PlanMethod::Optiq) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --target-kl with --method {}: only optiq measures a KL.",
        name_of(options.method));
  }
  for (const auto& [name, value] :
       {std::pair("--target-bpw", options.target_bpw),
        std::pair("--target-file-bpw", options.target_file_bpw)}) {
    if (value && !(*value > 0 && *value <= 64)) {
      fail(
          ErrorKind::InvalidInput,
          "[convert] {} {}: expected bits per weight, above 0 and at most 64.",
          name,
          *value);
    }
  }
}

} // namespace

void validate(PlanOptions& options) {
  if (options.method == PlanMethod::Uniform) {
    options.candidate_bits = {options.uniform_bits};
  }
  auto& bits = options.candidate_bits;
  std::sort(bits.begin(), bits.end());
  bits.erase(std::unique(bits.begin(), bits.end()), bits.end());
  std::vector<int> groups = group_sizes_of(options);
  options.group_size = groups.front();
  options.other_group_sizes.assign(groups.begin() + 1, groups.end());
  check_widths(options);
  check_group_sizes(options);
  check_targets(options);
}

int widest_bits(const PlanOptions& options) {
  const auto& bits = options.candidate_bits;
  return bits.back() == artifacts::kDenseBits ? bits[bits.size() - 2]
                                              : bits.back();
}

std::vector<int> group_sizes_of(const PlanOptions& options) {
  std::vector<int> all = options.other_group_sizes;
  all.push_back(options.group_size);
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

std::optional<std::uint64_t> byte_target(
    const Inventory& inventory,
    const PlanOptions& options) {
  if (options.target_bytes) {
    return options.target_bytes;
  }
  if (options.target_file_bpw) {
    return static_cast<std::uint64_t>(std::floor(
        *options.target_file_bpw * static_cast<double>(inventory.parameters) /
        8));
  }
  return std::nullopt;
}

double target_bpw_of(const PlanOptions& options) {
  return options.target_bpw.value_or(kDefaultTargetBpw);
}

} // namespace optiq::quant
