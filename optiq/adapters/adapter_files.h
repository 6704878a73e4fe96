#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <mlx/array.h>

#include "optiq/artifacts/json.h"
#include "optiq/artifacts/module_id.h"
#include "optiq/base/folder_kind.h"
#include "optiq/models/model.h"

/**
 * The files of a LoRA adapter (arXiv 2106.09685), which are in a folder:
 *
 *   adapter_config.json       both libraries' settings
 *   adapter_model.safetensors PEFT: base_model.model.<module>.lora_A.weight
 *                             [rank, in], .lora_B.weight [out, rank]
 *   adapters.safetensors      mlx-lm: <module>.lora_a [in, rank], .lora_b
 *                             [rank, out]
 *   optiq_lora_config.json    how it was made
 *   train_log.jsonl           its training, step by step
 *   training_state.safetensors  what an unfinished training goes on from
 *
 * We write the first four, `optiq lora train` all; PEFT's folders have the
 * first two, mlx-lm's the first and the third, those of the Python original all
 * but the second. docs/formats.md says what the settings mean.
 */
namespace optiq::adapters {

namespace mx = mlx::core;

inline constexpr const char* kTrainingLogFile = "train_log.jsonl";
inline constexpr const char* kTrainingStateFile = "training_state.safetensors";

/** What an adapter adds to one linear: scale (x A^T) B^T. */
struct AdapterUpdate {
  std::string module; // path of the linear
  mx::array a; // [rank, in] f32, on the host
  mx::array b; // [rank, out] f32: B transposed
  float scale = 1.f;
};

/** The same as its files have it, read when it is asked for. */
struct StoredUpdate {
  std::string module; // path as the files spell it, or as the model does
  artifacts::ModuleId id; // of that path
  int rank = 0;
  int in = 0;
  int out = 0;
  float scale = 1.f;
  /** As a module of this name. Throws Corrupt for values that are not finite,
   * naming the tensor. */
  std::function<AdapterUpdate(const std::string& module)> load;

  std::uint64_t parameters() const {
    return std::uint64_t{1} * rank * (in + out);
  }
};

/** An adapter whose settings and tensors' shapes were read and agree. */
struct AdapterFiles {
  std::filesystem::path directory;
  std::filesystem::path tensors; // the file of the updates
  const char* format = ""; // "optiq", "PEFT", "mlx-lm" or "mlx-optiq"
  std::string base_model; // what it was trained on, by its maker; may be empty
  std::vector<StoredUpdate> updates; // by layer, then by path
  artifacts::Json record; // optiq_lora_config.json, or null

  std::uint64_t parameters() const;
};

/** Whether a folder is or holds an adapter: has an adapter_config.json. */
bool is_adapter(const std::filesystem::path& directory);

/**
 * Reads an adapter's settings and headers. Throws NotFound, Corrupt, or
 * Unsupported for what is more than low-rank updates of linears (DoRA, biases,
 * whole modules, changed base weights, experts), naming file and key or tensor.
 */
AdapterFiles open_adapter(const std::filesystem::path& directory);

/** The same for a model: every update has the path of one of its linears.
 * Throws InvalidInput for a module that it lacks or that has another shape. */
AdapterFiles open_adapter(
    const std::filesystem::path& directory,
    const models::Model& model);

/** What write_adapter was given as the record; null for other makers'. */
artifacts::Json record_of(const AdapterFiles& files);

/** Everything of it in memory. */
std::vector<AdapterUpdate> load_updates(const AdapterFiles& files);

/** One adapter that adds, for each of several, `weight` times what it adds:
 * ranks one after another, scales in B. A module is the same in all by its
 * place in the decoder. Throws InvalidInput for one whose shapes differ. */
struct WeightedUpdates {
  std::vector<AdapterUpdate> updates;
  double weight = 1.0;
};
std::vector<AdapterUpdate> sum_of(const std::vector<WeightedUpdates>& terms);

/** A folder that write_adapter makes, and no other, may be replaced. */
FolderKind adapter_folder();

struct AdapterToWrite {
  std::vector<AdapterUpdate> updates; // modules by the paths of the model
  std::string base_model;
  float dropout = 0.f; // in training
  artifacts::Json record; // an object: goes into optiq_lora_config.json
};

/** Writes all four files into an existing empty folder, flushed to the disk.
 * Throws InvalidInput for no or non-finite updates; Exhausted, Denied, Io. */
void write_adapter(
    const AdapterToWrite& adapter,
    const std::filesystem::path& directory);

} // namespace optiq::adapters
