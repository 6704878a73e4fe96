// "<adapter_config.json>\0<optiq_lora_config.json>" beside the tensors of an
// adapter of a small model, PEFT's or, where the config names no peft_type,
// mlx-lm's: opens it, and what opens is written and read again.
#include <cmath>

#include "fuzz/fuzz_support.h"
#include "support/small_adapter.h"
#include "support/small_checkpoint.h"

#include "optiq/adapters/adapter_files.h"

namespace optiq::fuzz {
namespace {

constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kRecord = "optiq_lora_config.json";

const models::Model& model() {
  static const std::unique_ptr<models::Model> kModel = [] {
    std::filesystem::create_directory(scratch() / "model");
    testing::write_model(scratch() / "model", testing::sizes("llama"));
    return models::load_model(io::ModelDirectory::open(scratch() / "model"));
  }();
  return *kModel;
}

/** A folder with the tensors of one library. */
std::filesystem::path make_folder(const char* name, const char* removed) {
  const auto folder = testing::write_random_adapter(
      scratch() / name, model(), {"q_proj", "up_proj"}, 1, 1);
  std::filesystem::remove(folder / removed);
  return folder;
}

const std::filesystem::path& folder_for(std::string_view config) {
  static const auto kPeft = make_folder("peft", "adapters.safetensors");
  static const auto kMlx = make_folder("mlx", "adapter_model.safetensors");
  return config.find("peft_type") == std::string_view::npos ? kMlx : kPeft;
}

void check_written(const adapters::AdapterFiles& files) {
  const auto updates = adapters::load_updates(files);
  const auto folder = scratch() / "written";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directory(folder);
  adapters::write_adapter(
      {.updates = updates,
       .base_model = files.base_model,
       .record = artifacts::Json::object()},
      folder);
  const auto again =
      adapters::load_updates(adapters::open_adapter(folder, model()));
  require(again.size() == updates.size(), "every update is written");
  for (std::size_t i = 0; i < updates.size(); ++i) {
    require(again[i].module == updates[i].module, "modules keep their paths");
    require(
        std::abs(again[i].scale - updates[i].scale) <=
            1e-6f * std::abs(updates[i].scale),
        "scales are written as they were read");
  }
}

} // namespace
} // namespace optiq::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(
    std::uint8_t* data,
    std::size_t size,
    std::size_t max_size,
    unsigned seed) {
  return optiq::fuzz::mutate_json(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(
    const std::uint8_t* data,
    std::size_t size) {
  using namespace optiq;
  const auto [config, record] = fuzz::split_at_zero(fuzz::as_text(data, size));
  const auto& folder = fuzz::folder_for(config);
  test::write_file(folder / fuzz::kConfig, config);
  std::filesystem::remove(folder / fuzz::kRecord);
  if (!record.empty()) {
    test::write_file(folder / fuzz::kRecord, record);
  }
  fuzz::accepts([&] {
    const auto files = adapters::open_adapter(folder, fuzz::model());
    for (const adapters::StoredUpdate& update : files.updates) {
      fuzz::require(std::isfinite(update.scale), "scales are finite");
    }
    fuzz::check_written(files);
  });
  return 0;
}
