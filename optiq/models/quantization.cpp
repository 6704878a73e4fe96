#include "optiq/models/quantization.h"

#include <algorithm>
#include <vector>

#include <fmt/ranges.h>

#include "optiq/artifacts/affine_format.h"
#include "optiq/base/error.h"
#include "optiq/models/shape_keys_impl.h"

namespace optiq::models {
namespace {

using artifacts::Json;

/** Formats of MLX with 8-bit float scales, by what the shapes imply. */
struct FloatMode {
  int bits;
  int group_size;
  const char* name;
};
constexpr FloatMode kFloatModes[] = {
    {4, 16, "nvfp4"},
    {4, 32, "mxfp4"},
    {8, 32, "mxfp8"}};

/** The object at `key`, or nullptr: null and absent are the same. */
const Json* find_object(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_object() ? &*found : nullptr;
}

/** config.json's quantization block, or nullptr. mlx-lm's order: its own key
 * stands before what Transformers reads. */
const Json* find_block(const Json& config) {
  for (const char* key : {"quantization", "quantization_config"}) {
    if (const Json* block = find_object(config, key)) {
      return block;
    }
  }
  const Json* text = find_object(config, "text_config");
  return text == nullptr ? nullptr : find_object(*text, "quantization_config");
}

/** What is said of a module: its entry, and the block's defaults where the
 * entry is `true` or absent. */
struct Statement {
  const Json* entry = nullptr; // what must hold: its own, the block's for true
  const Json* defaults = nullptr; // the block, for a module without an entry
  bool is_dense = false; // the entry is false or null
};

Statement statement_of(const Json& config, const std::string& module) {
  const Json* block = find_block(config);
  if (block == nullptr) {
    return {};
  }
  const auto entry = block->find(module);
  if (entry == block->end()) {
    return {.defaults = block};
  }
  if (entry->is_object()) {
    return {.entry = &*entry};
  }
  if (*entry == true) {
    return {.entry = block};
  }
  return {.is_dense = true};
}

[[noreturn]] void fail_mode(
    const std::string& module,
    const std::string& mode) {
  fail(
      ErrorKind::Unsupported,
      "[quantization_of] {}: found the mode {}, expected affine. Convert the "
      "full-precision model with optiq convert, or take an affine version",
      module,
      mode);
}

/** weight u32 [out, words], scales and biases [out, groups]. */
struct Triple {
  const CheckpointTensor& weight;
  const CheckpointTensor& scales;
  std::int64_t row_bits; // 32 per word
  std::int64_t groups;
};

Triple require_triple(const Checkpoint& checkpoint, const std::string& module) {
  const CheckpointTensor& weight = checkpoint.at(module + ".weight");
  const CheckpointTensor& scales = checkpoint.at(module + ".scales");
  const bool is_packed = weight.dtype == mx::uint32 &&
      weight.shape.size() == 2 && scales.shape.size() == 2 &&
      scales.shape[0] == weight.shape[0] && scales.shape[1] > 0;
  const Triple triple{
      weight,
      scales,
      is_packed ? std::int64_t{32} * weight.shape[1] : 0,
      is_packed ? scales.shape[1] : 0};
  if (is_packed && scales.dtype == mx::uint8) {
    for (const FloatMode& mode : kFloatModes) {
      if (triple.row_bits == triple.groups * mode.group_size * mode.bits) {
        fail_mode(module, mode.name);
      }
    }
  }
  const CheckpointTensor& biases = checkpoint.at(module + ".biases");
  if (!is_packed || biases.shape != scales.shape ||
      biases.dtype != scales.dtype ||
      !mx::issubdtype(scales.dtype, mx::floating)) {
    fail(
        ErrorKind::Corrupt,
        "[quantization_of] {}: found weight [{}], scales [{}] and biases [{}], "
        "expected an affine triple (u32 [out, words], float [out, groups] "
        "twice)",
        module,
        fmt::join(weight.shape, ", "),
        fmt::join(scales.shape, ", "),
        fmt::join(biases.shape, ", "));
  }
  return triple;
}

/** The pairs that the shapes allow: one where the length of a row is known. */
std::vector<Quantization> fits_of(
    const Triple& triple,
    std::optional<int> in_features) {
  std::vector<Quantization> fits;
  for (const int group : artifacts::kAffineGroupSizes) {
    const std::int64_t in = triple.groups * group;
    const std::int64_t bits = triple.row_bits / in;
    if (triple.row_bits % in == 0 &&
        artifacts::is_one_of(
            artifacts::kAffineBits, static_cast<double>(bits)) &&
        (!in_features || *in_features == in)) {
      fits.push_back({static_cast<int>(bits), group});
    }
  }
  return fits;
}

/** Whether what is stated (null and absent say nothing) is that pair. */
bool agrees(
    const Json& stated,
    const Quantization& pair,
    const std::string& where) {
  return artifacts::optional_or<int>(stated, "bits", where, pair.bits) ==
      pair.bits &&
      artifacts::optional_or<int>(
          stated, "group_size", where, pair.group_size) == pair.group_size;
}

/** Without an entry the block's pair, else its group, else MLX's default, else
 * the smallest group. */
Quantization choose_fit(
    const std::vector<Quantization>& fits,
    const Json* defaults,
    const std::string& where) {
  const auto of_group = [&](int group_size) -> const Quantization* {
    const auto found =
        std::find_if(fits.begin(), fits.end(), [&](const Quantization& fit) {
          return fit.group_size == group_size;
        });
    return found == fits.end() ? nullptr : &*found;
  };
  if (defaults != nullptr) {
    for (const Quantization& fit : fits) {
      if (agrees(*defaults, fit, where)) {
        return fit;
      }
    }
    if (const auto* fit = of_group(
            artifacts::optional_or<int>(*defaults, "group_size", where, 0))) {
      return *fit;
    }
  }
  const auto* fit = of_group(artifacts::kDefaultGroupSize);
  return fit != nullptr ? *fit : fits.front();
}

[[noreturn]] void fail_no_fit(
    const Triple& triple,
    std::optional<int> in_features) {
  fail(
      ErrorKind::Corrupt,
      "[quantization_of] {}: {} words and {} groups per row fit no width of "
      "{} bits with groups of {}{}",
      triple.weight.source,
      triple.row_bits / 32,
      triple.groups,
      artifacts::list_text(artifacts::kAffineBits),
      artifacts::list_text(artifacts::kAffineGroupSizes),
      in_features
          ? fmt::format(
                " in rows of {} weights, for which config.json ({}) asks. Is "
                "it of another model?",
                *in_features,
                config_keys_of(triple.weight.name, 1))
          : "");
}

} // namespace

std::optional<Quantization> quantization_of(
    const Json& config,
    const Checkpoint& checkpoint,
    const std::string& module,
    std::optional<int> in_features) {
  const Statement stated = statement_of(config, module);
  const bool has_scales = checkpoint.has(module + ".scales");
  if (has_scales ? stated.is_dense : stated.entry != nullptr) {
    fail(
        ErrorKind::Corrupt,
        "[quantization_of] config.json says that '{}' is {}, and '{}.scales' "
        "is {}. Is it of another model?",
        module,
        stated.is_dense ? "dense" : "quantized",
        module,
        has_scales ? "there" : "missing");
  }
  if (!has_scales) {
    return std::nullopt;
  }
  if (stated.entry != nullptr) {
    const auto mode = artifacts::optional_or<std::string>(
        *stated.entry, "mode", module, "affine");
    if (mode != "affine") {
      fail_mode(module, mode);
    }
  }
  const Triple triple = require_triple(checkpoint, module);
  const std::vector<Quantization> fits = fits_of(triple, in_features);
  if (fits.empty()) {
    fail_no_fit(triple, in_features);
  }
  if (stated.entry == nullptr) {
    return choose_fit(fits, stated.defaults, module);
  }
  for (const Quantization& fit : fits) {
    if (agrees(*stated.entry, fit, module)) {
      return fit;
    }
  }
  fail(
      ErrorKind::Corrupt,
      "[quantization_of] {}: config.json says {} bits in groups of {}, the "
      "tensors' shapes are {} x {} words and {} groups. Is config.json of "
      "another model?",
      triple.weight.source,
      stated.entry->value("bits", Json()).dump(),
      stated.entry->value("group_size", Json()).dump(),
      triple.weight.shape[0],
      triple.weight.shape[1],
      triple.groups);
}

void refuse_foreign_quantization(const io::ModelDirectory& directory) {
  const auto refuse = [&](const std::string& file, const Json& method) {
    fail(
        ErrorKind::Unsupported,
        "[open_checkpoint] {}: found weights quantized by {}, expected dense "
        "ones or MLX's affine triples. Take the full-precision model and run "
        "optiq convert, or an MLX or GGUF version of it",
        directory.side_path(file),
        artifacts::describe(method));
  };
  // Of mlx-lm's own block the tensors decide.
  if (find_object(directory.config(), "quantization") != nullptr) {
    return;
  }
  if (const Json* block = find_block(directory.config())) {
    const auto method = block->find("quant_method");
    if (method != block->end() && !method->is_null()) {
      refuse("config.json", *method);
    }
    return;
  }
  // NVIDIA's ModelOpt says it in a file of its own.
  constexpr const char* kModelOpt = "hf_quant_config.json";
  if (const auto text = directory.side_file(kModelOpt)) {
    const Json json =
        artifacts::parse_json(*text, directory.side_path(kModelOpt));
    const Json* settings = find_object(json, "quantization");
    if (settings != nullptr && settings->contains("quant_algo") &&
        !settings->at("quant_algo").is_null()) {
      refuse(kModelOpt, settings->at("quant_algo"));
    }
  }
}

} // namespace optiq::models
