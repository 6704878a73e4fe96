#include "optiq/models/checkpoint.h"

#include <algorithm>
#include <memory>
#include <string_view>

#include "optiq/base/error.h"
#include "optiq/models/families_impl.h"

namespace optiq::models {
namespace {

constexpr int kGroupSizes[] = {32, 64, 128};
constexpr int kBits[] = {2, 3, 4, 5, 6, 8};

template <std::size_t N>
bool contains(const int (&values)[N], int value) {
  return std::find(std::begin(values), std::end(values), value) !=
      std::end(values);
}

/** config.json's quantization block, or nullptr. */
const artifacts::Json* find_quantization_block(const artifacts::Json& config) {
  for (const char* key : {"quantization", "quantization_config"}) {
    const auto block = config.find(key);
    if (block != config.end() && block->is_object()) {
      return &*block;
    }
  }
  return nullptr;
}

/** Width and group that the shapes of weight and scales imply: packed columns
 * hold 32 bits each, a scales column stands for one group. */
Quantization infer_from_shapes(
    const CheckpointTensor& weight,
    const CheckpointTensor& scales,
    const artifacts::Json* stated) {
  const std::int64_t packed_bits = std::int64_t{32} * weight.shape[1];
  const std::int64_t groups = scales.shape[1];
  // bits * group = packed bits / groups: the pair is unique for valid widths
  // only when one of both is given; prefer what is stated, then group 64.
  std::vector<Quantization> fits;
  for (int group : {64, 32, 128}) {
    const std::int64_t in_features = groups * group;
    if (in_features > 0 && packed_bits % in_features == 0) {
      const auto bits = static_cast<int>(packed_bits / in_features);
      if (contains(kBits, bits)) {
        fits.push_back({bits, group});
      }
    }
  }
  if (stated != nullptr) {
    for (const Quantization& fit : fits) {
      // mlx-lm's recipes write "group_size": null.
      if (artifacts::optional_or<int>(*stated, "bits", weight.name, fit.bits) ==
              fit.bits &&
          artifacts::optional_or<int>(
              *stated, "group_size", weight.name, fit.group_size) ==
              fit.group_size) {
        return fit;
      }
    }
    fail(
        ErrorKind::Corrupt,
        "[quantization_of] {}: config.json says {} bits in groups of {}, the tensors' shapes are "
        "{} x {} words and {} groups. Is config.json of another model?",
        weight.name,
        stated->value("bits", artifacts::Json()).dump(),
        stated->value("group_size", artifacts::Json()).dump(),
        weight.shape[0],
        weight.shape[1],
        groups);
  }
  if (fits.empty()) {
    fail(
        ErrorKind::Corrupt,
        "[quantization_of] {}: {} words and {} groups per row fit no width of "
        "2, 3, 4, 5, 6, 8 bits with groups of 32, 64 or 128",
        weight.name,
        weight.shape[1],
        groups);
  }
  return fits.front();
}

} // namespace

const CheckpointTensor& Checkpoint::at(const std::string& name) const {
  const auto found = index.find(name);
  if (found == index.end()) {
    fail(
        ErrorKind::NotFound,
        "[Checkpoint] tensor '{}' is missing from the model's "
        "model*.safetensors ({} tensors there). Incomplete download?",
        name,
        tensors.size());
  }
  return tensors[found->second];
}

std::vector<CheckpointTensor> list_tensors(
    const io::ModelDirectory& directory) {
  const auto shared = std::make_shared<io::ModelDirectory>(directory);
  std::vector<CheckpointTensor> tensors;
  for (const io::TensorInfo& info : directory.tensors()) {
    tensors.push_back(
        {.name = info.name,
         .source = info.name,
         .dtype = info.dtype,
         .shape = info.shape,
         .load = [shared, name = info.name] { return shared->load(name); },
         .drop = [shared, name = info.name] { shared->drop(name); }});
  }
  return tensors;
}

Checkpoint open_checkpoint(const io::ModelDirectory& directory) {
  const Family& family = find_family(directory);
  Checkpoint checkpoint{.tensors = family.sanitize(directory), .index = {}};
  for (std::size_t i = 0; i < checkpoint.tensors.size(); ++i) {
    const CheckpointTensor& tensor = checkpoint.tensors[i];
    if (!checkpoint.index.emplace(tensor.name, i).second) {
      fail(
          ErrorKind::Corrupt,
          "[open_checkpoint] {}: '{}' and another tensor both become '{}'",
          directory.path().string(),
          tensor.source,
          tensor.name);
    }
  }
  return checkpoint;
}

std::optional<Quantization> quantization_of(
    const artifacts::Json& config,
    const Checkpoint& checkpoint,
    const std::string& module) {
  const std::string weight_name = module + ".weight";
  const std::string scales_name = module + ".scales";
  const artifacts::Json* block = find_quantization_block(config);
  const artifacts::Json* entry = nullptr;
  if (block != nullptr && block->contains(module)) {
    entry = &block->at(module);
  }
  if (!checkpoint.has(scales_name)) {
    if (entry != nullptr && entry->is_object()) {
      fail(
          ErrorKind::Corrupt,
          "[quantization_of] config.json quantizes '{}' but '{}' is missing",
          module,
          scales_name);
    }
    return std::nullopt;
  }
  const CheckpointTensor& weight = checkpoint.at(weight_name);
  const CheckpointTensor& scales = checkpoint.at(scales_name);
  const CheckpointTensor& biases = checkpoint.at(module + ".biases");
  // A module without an entry of its own has the block's bits and group_size.
  const artifacts::Json* stated =
      entry != nullptr && entry->is_object() ? entry : block;
  if (stated != nullptr &&
      artifacts::optional_or<std::string>(
          *stated, "mode", weight.name, "affine") != "affine") {
    fail(
        ErrorKind::Unsupported,
        "[quantization_of] {}: mode {} is not supported, only affine",
        module,
        stated->at("mode").dump());
  }
  if (weight.dtype != mx::uint32 || weight.shape.size() != 2 ||
      scales.shape.size() != 2 || biases.shape != scales.shape ||
      scales.shape[0] != weight.shape[0] || biases.dtype != scales.dtype ||
      !mx::issubdtype(scales.dtype, mx::floating)) {
    fail(
        ErrorKind::Corrupt,
        "[quantization_of] {}: weight, scales and biases do not form an "
        "affine triple (u32 [out, words], float [out, groups] twice)",
        module);
  }
  const Quantization found = infer_from_shapes(weight, scales, stated);
  if (!contains(kGroupSizes, found.group_size)) {
    fail(
        ErrorKind::Unsupported,
        "[quantization_of] {}: group size {}, supported are 32, 64, 128",
        module,
        found.group_size);
  }
  return found;
}

} // namespace optiq::models
