#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/quant/inventory.h"

/** What a plan is asked for: a method, widths and a target. */
namespace optiq::quant {

/** By module; one that is not named has 1. */
using ErrorFactors = std::map<std::string, double>;

/** What the widths may add up to; at most one target is set. kDenseBits among
 * the candidates, for method optiq and static, lets a matrix that is not
 * protected stay as it is. */
struct PlanOptions {
  artifacts::PlanMethod method = artifacts::PlanMethod::Optiq;
  std::vector<int> candidate_bits = {4, 8};
  int uniform_bits = 4;
  /** Weights per scale: the smallest where several are offered. */
  int group_size = artifacts::kDefaultGroupSize;
  /** That a matrix may have instead, larger: method optiq, with a target that
   * counts scales. */
  std::vector<int> other_group_sizes;
  bool protect = true; // the rule of protected_modules; not for uniform
  /** Methods optiq and static: one width for q, k and v of a layer, and one for
   * gate and up, which kernels then run as one product. */
  bool tie = false;
  /** Method optiq: error = relative_kl^(1 - w) * (parameters * 4^-bits)^w. The
   * KL of one matrix alone is noisy and the sum over matrices is not the KL of
   * them together; the prior, which by itself gives equal widths, holds against
   * both. select_plan chooses w by the KL of whole models. */
  double prior_weight = 0;
  /** Method optiq: the errors are multiplied by these. */
  ErrorFactors error_factors;
  /** Mean code width over the modules that are not protected. */
  std::optional<double> target_bpw;
  /** 8 x bytes of model*.safetensors / parameters. */
  std::optional<double> target_file_bpw;
  /** Bytes of model*.safetensors. */
  std::optional<std::uint64_t> target_bytes;
  /** Method optiq: nats per token on the calibration text, of the whole model;
   * the smallest is looked for. PlanChoice makes target_bytes of it. */
  std::optional<double> target_kl;
};

/** Target of `optiq` and `static` when none is given (the original's). */
inline constexpr double kDefaultTargetBpw = 5.0;

/** Throws InvalidInput naming the field and its range; sorts candidate_bits. */
void validate(PlanOptions& options);

/** The widest candidate that quantizes. */
int widest_bits(const PlanOptions& options);

/** All that are offered, ascending. */
std::vector<int> group_sizes_of(const PlanOptions& options);

/** The bytes of a target that counts everything, else nothing. */
std::optional<std::uint64_t> byte_target(
    const Inventory& inventory,
    const PlanOptions& options);

/** The mean code width that is asked for where byte_target is nothing. */
double target_bpw_of(const PlanOptions& options);

} // namespace optiq::quant
