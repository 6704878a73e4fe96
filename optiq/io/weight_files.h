#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace optiq::io {

/** Names the shards of a model that has more than one. */
inline constexpr const char* kWeightIndexName = "model.safetensors.index.json";

/** Whether a file of this name, at the top of a model directory, may hold
 * weights: model*.safetensors. */
bool is_weight_file(const std::string& name);

/** The shards of text generation that such an index names, sorted: names of
 * files beside it. Throws Corrupt. */
std::vector<std::string> shard_names(const std::filesystem::path& index);

/**
 * Which files hold a model's weights, sorted. `present` are the weight files
 * that are there, `indexed` those that an index beside them names.
 *
 * Where Transformers and mlx-lm agree, so do we: they read model.safetensors
 * where there is one, whatever an index says that does not name it (the index
 * of the source beside re-quantized weights). An index of which no shard is
 * there does not hold against a whole set of shards. Else the index decides;
 * without one, a set of shards is wanted whole. Names that `present` lacks are
 * those of an interrupted download.
 */
std::vector<std::string> choose_weight_files(
    const std::vector<std::string>& present,
    const std::optional<std::vector<std::string>>& indexed);

/** As above, with an index that may be there; one that cannot be read counts
 * only where it is needed. Throws Corrupt. */
std::vector<std::string> choose_weight_files(
    const std::vector<std::string>& present,
    const std::filesystem::path& index);

/** The weights of a model directory. */
struct WeightFiles {
  std::vector<std::string> names; // sorted; files of the directory
  std::vector<std::string> missing; // those of `names` that are not there
};

/** As choose_weight_files, of what lies in a directory; links are followed. */
WeightFiles find_weight_files(const std::filesystem::path& directory);

} // namespace optiq::io
