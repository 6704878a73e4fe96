#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/affine_format.h"
#include "optiq/artifacts/json.h"

namespace optiq::artifacts {

/** Of metadata.json, sensitivity.json and plan files; newer is refused. */
inline constexpr int kSchemaVersion = 1;

/** How the widths of a plan were chosen. */
enum class PlanMethod {
  Optiq, // by measured KL
  Static, // by the place in the network
  Uniform, // the same for all
};

const char* name_of(PlanMethod method); // "optiq", "static", "uniform"
/** Throws InvalidInput for another name. */
PlanMethod plan_method_of(const std::string& name);

/** How the numbers of a sensitivity came about. */
enum class SensitivityForm {
  Exact, // every matrix and width measured
  Fast, // estimated from gradients
  Auto, // estimated, and measured where it decides
};

const char* name_of(SensitivityForm form); // "exact", "fast", "auto"
/** Throws InvalidInput for another name. */
SensitivityForm sensitivity_form_of(const std::string& name);

/** Width of one quantized module, named by its MLX module path. */
struct LayerBits {
  bool operator==(const LayerBits&) const = default;

  std::string name; // "language_model.model.layers.3.self_attn.q_proj"
  int bits = 0; // of kAffineBits, or kDenseBits
  int group_size = kDefaultGroupSize;
  std::uint64_t parameters = 0;
  bool is_protected = false;
  std::optional<double> kl; // measured KL of this width alone, nats
};

/** Which widths a conversion gives, before anything is written. */
struct Plan {
  bool operator==(const Plan&) const = default;

  PlanMethod method = PlanMethod::Optiq;
  int group_size = kDefaultGroupSize;
  std::vector<int> candidate_bits;
  std::optional<double> target_bpw;
  std::optional<std::uint64_t> target_bytes; // of model*.safetensors
  std::vector<LayerBits> layers; // in the order of the source's modules
  double achieved_bpw = 0; // mean code width outside the protected set
  std::uint64_t file_bytes = 0; // predicted, headers included
  double file_bpw = 0;
  double predicted_kl = 0; // sum of the layers' kl, nats
  /** Method optiq: weight of the size prior in the errors that the allocation
   * minimized, and the KL of the whole quantized model on the calibration
   * text, by which it was chosen. */
  std::optional<double> prior_weight;
  std::optional<double> measured_kl;
};

/** optiq/metadata.json (format: docs/formats.md; reads the original's too). */
struct Metadata {
  bool operator==(const Metadata&) const = default;

  int schema_version = kSchemaVersion; // 0: a file of the Python original
  std::string tool_version;
  std::string base_model;
  std::string reference; // "bf16"
  std::string calibration; // "mix", "self" or a file's name; "" = none
  std::string calibration_hash; // SHA-256 of the calibration token ids
  std::uint64_t calibration_tokens = 0;
  std::string compute; // "exact", "fast" or "int8", of the measurement
  std::string rounding; // "nearest", "search" or "gptq"; "" = not said
  int tuned_steps = 0; // that the scales have been through
  Plan plan;
};

/** Layers of the plan at its widest and at its narrowest candidate. */
int count_high_bits(const Plan& plan);
int count_low_bits(const Plan& plan);

/** KL of one module alone at each candidate width, nats per token. */
struct LayerSensitivity {
  bool operator==(const LayerSensitivity&) const = default;

  std::string name;
  int group_size = kDefaultGroupSize;
  std::uint64_t parameters = 0;
  std::map<int, double> kl; // bits -> mean KL(reference || quantized)
  std::map<int, double> kl_stderr; // bits -> standard error over chunks
  /** bits -> mean over chunks of the chunk's KL / the chunk's scale (its mean
   * KL over all modules at the narrowest width). Text that the model is sure
   * of counts as much as text that it is not; what the allocation minimizes. */
  std::map<int, double> relative_kl;
};

/** optiq/sensitivity.json. */
struct Sensitivity {
  bool operator==(const Sensitivity&) const = default;

  std::string base_model;
  std::vector<int> candidate_bits;
  int group_size = kDefaultGroupSize;
  std::string key; // SHA-256 over model, calibration and settings
  SensitivityForm form = SensitivityForm::Exact;
  std::vector<LayerSensitivity> layers; // in groups of group_size
  std::vector<LayerSensitivity> other_groups; // of other sizes
};

/** Throw InvalidInput for a number that is not finite or a layer given twice;
 * what they return reads back to an equal value. */
Json to_json(const Plan& plan);
Json to_json(const Metadata& metadata);
Json to_json(const Sensitivity& sensitivity);
/** Throw Corrupt, naming `where` and the key, or Unsupported (newer schema). */
Plan plan_from_json(const Json& json, const std::string& where);
Metadata metadata_from_json(const Json& json, const std::string& where);
Sensitivity sensitivity_from_json(const Json& json, const std::string& where);

/** Reads optiq/metadata.json, or the root optiq_metadata.json of older
 * repositories, of a model directory; nothing when it has neither. */
std::optional<Metadata> read_metadata(const std::filesystem::path& directory);
std::optional<Sensitivity> read_sensitivity(
    const std::filesystem::path& directory);

} // namespace optiq::artifacts
