#include "optiq/quant/model_writer.h"

#include <algorithm>
#include <map>
#include <memory>

#include "optiq/artifacts/module_id.h"
#include "optiq/base/error.h"
#include "optiq/base/file.h"
#include "optiq/base/output_file.h"
#include "optiq/models/quantization.h"
#include "optiq/quant/model_card.h"
#include "optiq/quant/plan.h"
#include "optiq/quant/planned_tensors.h"

namespace optiq::quant {

namespace mx = mlx::core;

namespace {

using artifacts::Json;
namespace fs = std::filesystem;

constexpr const char* kMtpFile = "optiq/mtp.safetensors";
const std::map<std::string, std::string> kFileMetadata = {{"format", "mlx"}};

// fc stays as it is, as the readers of this sidecar expect (policy
// "cyankiwi"); norms are vectors.
bool is_mtp_projection(const models::CheckpointTensor& tensor, int group_size) {
  const auto [module, leaf] = artifacts::split_tensor_name(tensor.name);
  return tensor.shape.size() == 2 && leaf == "weight" &&
      artifacts::module_id(module).part != "fc" &&
      tensor.shape[1] % group_size == 0;
}

std::vector<io::TensorToWrite> mtp_tensors(
    const models::Checkpoint& checkpoint,
    const artifacts::Plan& plan,
    const Rounder& rounder = round_to_nearest) {
  std::vector<io::TensorToWrite> tensors;
  for (const models::CheckpointTensor& tensor : checkpoint.tensors) {
    if (tensor.role != models::TensorRole::Mtp) {
      continue;
    }
    if (!is_mtp_projection(tensor, plan.group_size)) {
      tensors.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.load});
      continue;
    }
    for (auto& part : quantized_tensors(
             tensor, default_bits(plan), plan.group_size, rounder)) {
      tensors.push_back(std::move(part));
    }
  }
  return tensors;
}

Json quantization_block(const artifacts::Plan& plan) {
  Json block = {
      {"group_size", plan.group_size},
      {"bits", default_bits(plan)},
      {"mode", "affine"}};
  for (const artifacts::LayerBits& layer : plan.layers) {
    if (layer.bits == artifacts::kDenseBits) {
      block[layer.name] = false;
    } else {
      block[layer.name] = {
          {"bits", layer.bits}, {"group_size", layer.group_size}};
    }
  }
  return block;
}

void add_mtp_keys(
    const Json& source,
    const artifacts::Plan& plan,
    std::size_t n_tensors,
    std::map<std::string, Json>& config) {
  const int bits = default_bits(plan);
  config["mtp_file"] = kMtpFile;
  config["mtp_tensor_count"] = n_tensors;
  config["mtp_policy"] =
      fmt::format("optiq-int{}-prequantized-gs{}", bits, plan.group_size);
  config["mtplx_mtp_quantization"] = {
      {"bits", bits},
      {"group_size", plan.group_size},
      {"mode", "affine"},
      {"policy", "cyankiwi"},
      {"prequantized", true}};
  config["mlx_lm_extra_tensors"] = {{"mtp_file", kMtpFile}};
  const Json* text =
      source.contains("text_config") ? &source.at("text_config") : &source;
  if (text->contains("mtp_num_hidden_layers")) {
    config["mtp_num_hidden_layers"] = text->at("mtp_num_hidden_layers");
  }
}

// Reports each tensor's bytes when it has been made.
std::vector<io::TensorToWrite> with_progress(
    std::vector<io::TensorToWrite> tensors,
    const ProgressSink& progress) {
  std::uint64_t total = 0;
  for (const io::TensorToWrite& tensor : tensors) {
    total += bytes_of(tensor);
  }
  const auto done = std::make_shared<std::uint64_t>(0);
  for (io::TensorToWrite& tensor : tensors) {
    tensor.make =
        [make = tensor.make, name = tensor.name, done, total, progress] {
          mx::array made = make();
          *done += made.nbytes();
          if (progress) {
            progress({"write", *done, total, name});
          }
          return made;
        };
  }
  return tensors;
}

std::uint64_t parameters_of(const models::Checkpoint& checkpoint) {
  std::uint64_t parameters = 0;
  for (const models::CheckpointTensor& tensor : checkpoint.tensors) {
    if (tensor.role == models::TensorRole::Weight) {
      std::uint64_t n = 1;
      for (const auto dim : tensor.shape) {
        n *= static_cast<std::uint64_t>(dim);
      }
      parameters += n;
    }
  }
  return parameters;
}

std::string weight_index(const ModelToWrite& model) {
  return io::make_weight_index(
      planned_tensors(model.checkpoint, model.metadata.plan.layers),
      parameters_of(model.checkpoint));
}

/** The texts of the directory but for the weight index, by name. */
std::map<std::string, std::string> make_texts(const ModelToWrite& model) {
  const artifacts::Metadata& metadata = model.metadata;
  std::map<std::string, std::string> texts = {
      {"config.json",
       artifacts::dump_json(
           make_config(model.source, model.checkpoint, metadata.plan), 4)},
      {"optiq/metadata.json",
       artifacts::dump_json(artifacts::to_json(metadata), 2)},
      {"README.md",
       make_model_card(
           model.source.side_file("README.md").value_or(""), metadata)}};
  if (model.sensitivity) {
    texts["optiq/sensitivity.json"] =
        artifacts::dump_json(artifacts::to_json(*model.sensitivity), 2);
  }
  return texts;
}

[[noreturn]] void fail_verify(
    const std::string& culprit,
    const std::string& found,
    const std::string& expected) {
  fail(
      ErrorKind::Internal,
      "[verify_model] {}: found {}, expected {}. Nothing was published; please "
      "report this.",
      culprit,
      found,
      expected);
}

void verify_layers(
    const io::ModelDirectory& written,
    const artifacts::Plan& plan) {
  const models::Checkpoint checkpoint = models::open_checkpoint(written);
  for (const artifacts::LayerBits& layer : plan.layers) {
    const auto found =
        models::quantization_of(written.config(), checkpoint, layer.name);
    const bool is_as_planned = layer.bits == artifacts::kDenseBits ? !found
                                                                   : found &&
            found->bits == layer.bits && found->group_size == layer.group_size;
    if (!is_as_planned) {
      fail_verify(
          layer.name,
          found
              ? fmt::format("{} bits, group {}", found->bits, found->group_size)
              : "a dense matrix",
          fmt::format("{} bits, group {}", layer.bits, layer.group_size));
    }
  }
}

} // namespace

std::uint64_t mtp_bytes(
    const models::Checkpoint& checkpoint,
    const artifacts::Plan& plan) {
  const auto tensors = mtp_tensors(checkpoint, plan);
  return tensors.empty() ? 0 : io::safetensors_bytes(tensors, kFileMetadata);
}

Json make_config(
    const io::ModelDirectory& source,
    const models::Checkpoint& checkpoint,
    const artifacts::Plan& plan) {
  // std::map sorts the keys of the top level; those below keep their order.
  std::map<std::string, Json> config;
  for (const auto& [key, value] : source.config().items()) {
    if (key != "_name_or_path" && key != "vision_config" &&
        key != "audio_config") {
      config[key] = value;
    }
  }
  config["quantization"] = quantization_block(plan);
  config["quantization_config"] = config["quantization"];
  const auto mtp = mtp_tensors(checkpoint, plan);
  if (!mtp.empty()) {
    add_mtp_keys(source.config(), plan, mtp.size(), config);
  }
  Json result = Json::object();
  for (const auto& [key, value] : config) {
    result[key] = value;
  }
  return result;
}

std::uint64_t written_bytes(const ModelToWrite& model) {
  std::uint64_t bytes = model.metadata.plan.file_bytes +
      mtp_bytes(model.checkpoint, model.metadata.plan) +
      weight_index(model).size() + model.source.side_file_bytes();
  for (const auto& [name, content] : make_texts(model)) {
    bytes += content.size();
  }
  return bytes;
}

void write_model(
    const ModelToWrite& model,
    const fs::path& directory,
    const ProgressSink& progress) {
  const artifacts::Plan& plan = model.metadata.plan;
  // Made first: what cannot be described is found out before the long work.
  const std::map<std::string, std::string> texts = make_texts(model);
  const std::uint64_t bytes = io::write_model_shards(
      directory,
      with_progress(
          planned_tensors(model.checkpoint, plan.layers, model.rounder),
          progress),
      parameters_of(model.checkpoint));
  if (bytes != plan.file_bytes) {
    fail_verify(
        "model*.safetensors",
        fmt::format("{} bytes", bytes),
        fmt::format("{} as planned", plan.file_bytes));
  }
  fs::create_directory(directory / "optiq");
  const auto mtp = mtp_tensors(model.checkpoint, plan, model.rounder);
  if (!mtp.empty()) {
    io::write_safetensors(directory / kMtpFile, mtp, kFileMetadata);
  }
  model.source.copy_side_files(directory);
  for (const auto& [name, content] : texts) {
    write_file_atomically(directory / name, content);
  }
}

void verify_model(const ModelToWrite& model, const fs::path& directory) {
  const artifacts::Plan& plan = model.metadata.plan;
  const io::ModelDirectory written = io::ModelDirectory::open(directory);
  if (written.file_bytes() != plan.file_bytes) {
    fail_verify(
        "model*.safetensors",
        fmt::format("{} bytes", written.file_bytes()),
        fmt::format("{} as planned", plan.file_bytes));
  }
  verify_layers(written, plan);
  const auto planned = planned_tensors(model.checkpoint, plan.layers);
  if (written.tensors().size() != planned.size()) {
    fail_verify(
        "model*.safetensors",
        fmt::format("{} tensors", written.tensors().size()),
        fmt::format("{}", planned.size()));
  }
  for (const io::TensorToWrite& tensor : planned) {
    const io::TensorInfo& info = written.info(tensor.name);
    if (info.shape != tensor.shape || info.dtype != tensor.dtype) {
      fail_verify(tensor.name, "another shape or type", "the planned one");
    }
  }
  if (artifacts::read_metadata(directory) != model.metadata) {
    fail_verify("optiq/metadata.json", "other content", "what was written");
  }
  if (artifacts::read_sensitivity(directory) != model.sensitivity) {
    fail_verify("optiq/sensitivity.json", "other content", "what was written");
  }
  const std::uint64_t mtp = mtp_bytes(model.checkpoint, plan);
  if (mtp != 0 && fs::file_size(directory / kMtpFile) != mtp) {
    fail_verify(
        kMtpFile,
        fmt::format("{} bytes", fs::file_size(directory / kMtpFile)),
        fmt::format("{}", mtp));
  }
}

} // namespace optiq::quant
