#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/artifacts/module_id.h"
#include "optiq/io/safetensors.h"
#include "optiq/models/checkpoint.h"

/** From a checkpoint and measured (or synthetic) errors to a plan, and from a
 * plan to the tensors that will be written. */
namespace optiq::quant {

/** A matrix that quantization may replace. */
struct QuantizableModule {
  std::string name; // without ".weight"
  artifacts::ModuleId id; // of that name
  std::uint64_t parameters = 0;
};

/** What a checkpoint offers at one group size. */
struct Inventory {
  std::vector<QuantizableModule> modules; // source order
  std::vector<std::string> kept_dense; // matrices whose rows do not divide
  int n_blocks = 0;
  std::uint64_t parameters = 0; // of all tensors of model*.safetensors
};

/** Throws InvalidInput for a group size that the format does not have or that
 * no matrix divides by, Unsupported for a source that is quantized already. */
Inventory take_inventory(const models::Checkpoint& checkpoint, int group_size);

/** What the widths may add up to; at most one target is set. */
struct PlanOptions {
  std::string method = "optiq"; // "optiq", "static", "uniform"
  std::vector<int> candidate_bits = {4, 8};
  int uniform_bits = 4;
  int group_size = 64;
  bool protect = true; // the rule of protected_modules; not for uniform
  /** Method optiq: error = relative_kl^(1 - w) * (parameters * 4^-bits)^w. The
   * KL of one matrix alone is noisy and the sum over matrices is not the KL of
   * them together; the prior, which by itself gives equal widths, holds against
   * both. select_plan chooses w by the KL of whole models. */
  double prior_weight = 0;
  /** Mean code width over the modules that are not protected. */
  std::optional<double> target_bpw;
  /** 8 x bytes of model*.safetensors / parameters. */
  std::optional<double> target_file_bpw;
  /** Bytes of model*.safetensors. */
  std::optional<std::uint64_t> target_bytes;
};

/** Target of `optiq` and `static` when none is given (the original's). */
inline constexpr double kDefaultTargetBpw = 5.0;

/** Throws InvalidInput naming the field and its range; sorts candidate_bits. */
void validate(PlanOptions& options);

/** Modules whose widths the method measures or ranks: those not protected. */
std::vector<std::string> free_modules(
    const Inventory& inventory,
    const PlanOptions& options);

/** Throws InvalidInput, naming the least possible value, when no plan meets the
 * target. Cheap: for use before an hour of measuring. */
void require_feasible(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    const PlanOptions& options);

/** The plan; `measured` covers free_modules for method optiq and is ignored by
 * the others. Never over the target. */
artifacts::Plan make_plan(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    const PlanOptions& options,
    std::span<const artifacts::LayerSensitivity> measured);

/** A plan read from a file, checked against the checkpoint and with its sizes
 * computed anew. Throws InvalidInput naming a module that does not fit. */
artifacts::Plan adopt_plan(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory,
    artifacts::Plan plan);

/** The tensors of model*.safetensors under a plan, in source order, each made
 * when its turn comes and let go afterwards. */
std::vector<io::TensorToWrite> planned_tensors(
    const models::Checkpoint& checkpoint,
    std::span<const artifacts::LayerBits> layers);

/** weight, scales and biases of one module, quantized when first asked for. */
std::vector<io::TensorToWrite> quantized_tensors(
    const models::CheckpointTensor& weight,
    int bits,
    int group_size);

/** The width that most quantized parameters have: the file's default. */
int default_bits(const artifacts::Plan& plan);

} // namespace optiq::quant
