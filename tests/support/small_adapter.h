#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/kernel_checks.h"
#include "support/scratch_folder.h"

#include "optiq/adapters/adapter_files.h"
#include "optiq/io/safetensors.h"
#include "optiq/models/model.h"

/** Adapters at random values, and their files by hand. */
namespace optiq::testing {

/** Updates of the modules whose path ends in one of `parts`; ranks 1, 2, 3, ..
 * up to `most`, again and again. */
inline std::vector<adapters::AdapterUpdate> random_updates(
    const models::Model& model,
    const std::vector<std::string>& parts,
    int most,
    unsigned seed,
    float deviation = 0.05f) {
  std::vector<adapters::AdapterUpdate> updates;
  for (const models::Module& module : model.modules()) {
    for (const std::string& part : parts) {
      if (module.name.ends_with(part)) {
        const int rank = 1 + static_cast<int>(updates.size()) % most;
        updates.push_back(
            {.module = module.name,
             .a = normal_array(
                 {rank, module.matrix.in_features()}, ++seed, deviation),
             .b = normal_array(
                 {rank, module.matrix.out_features()}, ++seed, deviation),
             .scale = 2.f / static_cast<float>(rank)});
      }
    }
  }
  return updates;
}

/** A new folder with such an adapter. */
inline std::filesystem::path write_random_adapter(
    const std::filesystem::path& folder,
    const models::Model& model,
    const std::vector<std::string>& parts,
    int most,
    unsigned seed) {
  std::filesystem::create_directory(folder);
  adapters::write_adapter(
      {.updates = random_updates(model, parts, most, seed),
       .base_model = "small",
       .record = artifacts::Json::object()},
      folder);
  return folder;
}

using NamedArrays = std::vector<std::pair<std::string, mx::array>>;

inline void write_tensors(
    const std::filesystem::path& file,
    const NamedArrays& arrays) {
  std::vector<io::TensorToWrite> tensors;
  for (const auto& [name, array] : arrays) {
    tensors.push_back(
        {.name = name,
         .dtype = array.dtype(),
         .shape = array.shape(),
         .make = [array = array] { return array; }});
  }
  io::write_safetensors(file, tensors, {});
}

} // namespace optiq::testing
