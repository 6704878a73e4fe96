#include <string>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"
#include "optiq/models/families_impl.h"

namespace optiq::models {
namespace {

const Family* const kFamilies[] = {
    &kCohere2,
    &kGemma2,
    &kGemma3Text,
    &kGemma4Text,
    &kGlm4,
    &kGranite,
    &kLlama,
    &kMinistral3,
    &kMistral,
    &kMistral3,
    &kOlmo2,
    &kOlmo3,
    &kPhi3,
    &kQwen2,
    &kQwen3,
    &kQwen35,
    &kSmolLm3,
};

} // namespace

const Family& find_family(const io::ModelDirectory& directory) {
  const std::string where = (directory.path() / "config.json").string();
  const auto type =
      artifacts::required<std::string>(directory.config(), "model_type", where);
  std::string known;
  for (const Family* family : kFamilies) {
    if (type == family->model_type) {
      return *family;
    }
    known += known.empty() ? "" : ", ";
    known += family->model_type;
  }
  fail(
      ErrorKind::Unsupported,
      "[find_family] {}: model_type '{}' is not supported, known are: {}",
      where,
      type,
      known);
}

std::unique_ptr<Model> load_model(
    const io::ModelDirectory& directory,
    kernels::Device& device) {
  return find_family(directory).load(directory, device);
}

} // namespace optiq::models
