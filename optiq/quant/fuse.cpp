#include "optiq/quant/fuse.h"

#include <map>
#include <memory>
#include <optional>
#include <utility>

#include <mlx/ops.h>

#include "optiq/adapters/adapter_files.h"
#include "optiq/adapters/adapter_set.h"
#include "optiq/artifacts/module_id.h"
#include "optiq/base/error.h"
#include "optiq/base/output_file.h"
#include "optiq/base/staged_directory.h"
#include "optiq/base/system.h"
#include "optiq/eval/kl.h"
#include "optiq/io/array.h"
#include "optiq/io/model_files.h"
#include "optiq/models/checkpoint.h"
#include "optiq/models/quantization.h"
#include "optiq/quant/planned_tensors.h"

namespace optiq::quant {

namespace mx = mlx::core;

namespace {

namespace fs = std::filesystem;
using adapters::StoredUpdate;
using models::CheckpointTensor;

// Of a config that is no longer true of the result.
constexpr const char* kDroppedKeys[] = {
    "_name_or_path",
    "vision_config",
    "audio_config",
    "mtp_file",
    "mtp_tensor_count",
    "mtp_policy",
    "mtplx_mtp_quantization",
    "mlx_lm_extra_tensors"};

/** A matrix of the checkpoint in float32, dense or dequantized. */
mx::array load_values(
    const models::Checkpoint& checkpoint,
    const std::string& module,
    const std::optional<models::Quantization>& quantization) {
  const CheckpointTensor& weight = checkpoint.at(module + ".weight");
  if (!quantization) {
    return mx::astype(
        weight.load_unrounded ? weight.load_unrounded() : weight.load(),
        mx::float32);
  }
  const auto floats = [&](const char* leaf) {
    return mx::astype(checkpoint.at(module + leaf).load(), mx::float32);
  };
  return mx::dequantize(
      weight.load(),
      floats(".scales"),
      floats(".biases"),
      quantization->group_size,
      quantization->bits);
}

/** What stands in the place of an adapted matrix: one tensor, or three. */
class FusedMatrix {
 public:
  FusedMatrix(
      const io::ModelDirectory& source,
      const models::Checkpoint& checkpoint,
      const StoredUpdate& update)
      : quantization_(models::quantization_of(
            source.config(),
            checkpoint,
            update.module,
            update.in)) {
    const CheckpointTensor& old = checkpoint.at(update.module + ".weight");
    weight_ = {
        .name = old.name,
        .source = old.source,
        .dtype = quantization_ ? checkpoint.at(update.module + ".scales").dtype
                               : old.dtype,
        .shape = {update.out, update.in}};
    const mx::Dtype dtype = weight_.dtype;
    weight_.load = [&checkpoint, update, dtype, form = quantization_] {
      const adapters::AdapterUpdate change = update.load(update.module);
      const mx::array delta = mx::multiply(
          mx::matmul(mx::transpose(change.b), change.a),
          mx::array(change.scale));
      return io::materialize(mx::astype(
          mx::add(load_values(checkpoint, update.module, form), delta), dtype));
    };
    weight_.drop = [] {};
  }

  std::vector<io::TensorToWrite> tensors() const {
    if (quantization_) {
      return quantized_tensors(
          weight_, quantization_->bits, quantization_->group_size);
    }
    return {{weight_.name, weight_.dtype, weight_.shape, weight_.load}};
  }

 private:
  std::optional<models::Quantization> quantization_;
  CheckpointTensor weight_;
};

/** The checkpoint's tensors, with the adapted matrices changed. */
std::vector<io::TensorToWrite> fused_tensors(
    const io::ModelDirectory& source,
    const models::Checkpoint& checkpoint,
    const adapters::AdapterFiles& adapter) {
  std::map<std::string, const StoredUpdate*> updates;
  for (const StoredUpdate& update : adapter.updates) {
    updates.emplace(update.module, &update);
  }
  std::vector<io::TensorToWrite> tensors;
  for (const CheckpointTensor& tensor : checkpoint.tensors) {
    if (tensor.role != models::TensorRole::Weight) {
      continue;
    }
    const auto [module, leaf] = artifacts::split_tensor_name(tensor.name);
    const auto found = updates.find(module);
    if (found == updates.end() || leaf == "bias") {
      tensors.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.load});
    } else if (leaf == "weight") { // scales and biases come with it
      for (auto& part :
           FusedMatrix(source, checkpoint, *found->second).tensors()) {
        tensors.push_back(std::move(part));
      }
    }
  }
  return tensors;
}

artifacts::Json make_config(const io::ModelDirectory& source) {
  artifacts::Json config = source.config();
  for (const char* key : kDroppedKeys) {
    config.erase(key);
  }
  return config;
}

/** KL of what was written to the model with the adapter mounted. */
artifacts::KlScores measure_loss(
    const std::shared_ptr<const models::Model>& model,
    const FuseOptions& options,
    const Calibration& text,
    const fs::path& fused,
    const ProgressSink& progress) {
  adapters::AdapterSet set(
      model,
      {.max_resident_bytes = system_info().available_ram_bytes,
       .compute = kernels::Compute::Exact});
  adapters::mount_adapter(set, "fused", options.adapter);
  models::Setup reference(model, kernels::Compute::Exact);
  reference.adapter = set.find("fused");
  const models::Setup result(
      models::load_model(io::ModelDirectory::open(fused)),
      kernels::Compute::Exact);
  return eval::measure_kl(
      reference, result, text.chunks, {.on_progress = progress});
}

} // namespace

FuseResult fuse_adapter(
    const FuseOptions& options,
    const ProgressSink& progress) {
  const auto source = io::ModelDirectory::open(options.model);
  const models::Checkpoint checkpoint = models::open_checkpoint(source);
  require_ram(
      2 * source.loaded_bytes(), "the weights of the model and of the result");
  const std::shared_ptr<const models::Model> model = models::load_model(source);
  const auto adapter = adapters::open_adapter(options.adapter, *model);
  StagedDirectory staged(
      options.output,
      {.kind = io::model_folder(),
       .replace = options.overwrite,
       .source = options.model,
       .place_in_source = {}});
  const Calibration text =
      load_calibration(options.text, make_calibration_encoder(source));
  FuseResult result{.modules = adapter.updates.size(), .notices = text.notices};
  result.file_bytes = io::write_model_shards(
      staged.path(),
      fused_tensors(source, checkpoint, adapter),
      model->info().parameters);
  source.copy_side_files(staged.path());
  write_file_atomically(
      staged.path() / "config.json",
      artifacts::dump_json(make_config(source), 4));
  const artifacts::KlScores loss =
      measure_loss(model, options, text, staged.path(), progress);
  result.mean_kl = loss.mean_kl;
  result.tokens = loss.tokens;
  staged.publish();
  return result;
}

} // namespace optiq::quant
