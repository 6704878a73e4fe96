#include "optiq/models/checkpoint.h"

#include <memory>

#include "optiq/artifacts/module_id.h"
#include "optiq/base/error.h"
#include "optiq/models/families_impl.h"
#include "optiq/models/quantization.h"

namespace optiq::models {

const CheckpointTensor& Checkpoint::at(const std::string& name) const {
  const auto found = index.find(name);
  if (found == index.end()) {
    fail(
        ErrorKind::NotFound,
        "[Checkpoint] tensor '{}' is missing from the model's "
        "model*.safetensors ({} tensors there). Incomplete download, or "
        "config.json of another model?",
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
         .unreadable = info.unreadable,
         .is_outline = directory.is_outline(info.name),
         .load = [shared, name = info.name] { return shared->load(name); },
         .drop = [shared, name = info.name] { shared->drop(name); }});
  }
  return tensors;
}

bool is_head(const std::string& tensor) {
  return artifacts::module_of(tensor).role == artifacts::ModuleRole::Head;
}

Checkpoint open_checkpoint(const io::ModelDirectory& directory) {
  const Family& family = find_family(directory);
  refuse_foreign_quantization(directory);
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

} // namespace optiq::models
