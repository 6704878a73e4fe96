#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "optiq/artifacts/json.h"

namespace optiq::artifacts {

/** One weight matrix as it is stored. */
struct MappedModule {
  std::string name; // MLX module path
  int bits = 0; // code width, or that of the dense dtype
  int group_size = 0; // 0 when dense
  std::uint64_t parameters = 0;
  std::uint64_t code_bytes = 0; // dense: all its bytes
  std::uint64_t scale_bytes = 0; // scales and biases
};

/** What the bytes of a model directory are: `optiq inspect`, and the maps of
 * `optiq report`. */
struct ModelMap {
  std::string name; // of the directory
  std::string model_type;
  std::vector<MappedModule> modules; // source order
  std::uint64_t other_bytes = 0; // norms and other small tensors
  std::uint64_t other_parameters = 0;
  std::uint64_t extra_bytes = 0; // in the file, but not of the language model
  std::uint64_t extra_parameters = 0;
  std::uint64_t header_bytes = 0;
  std::uint64_t sidecar_bytes = 0; // optiq/*.safetensors, not in any bpw
};

/** Bytes of model*.safetensors. */
std::uint64_t file_bytes(const ModelMap& map);
/** Parameters stored in them. */
std::uint64_t parameters(const ModelMap& map);
/** Mean code width over the quantized matrices, or over the dense ones of a
 * model without any; 0 for a model without matrices. */
double mean_code_bits(const ModelMap& map);

/** Bytes of a file by what they are for; they add up to file_bytes. */
struct SizeShare {
  std::string label;
  std::uint64_t bytes = 0;
};
std::vector<SizeShare> sizes_by_kind(const ModelMap& map);
/** Bytes of the matrices by their width, narrow first, then everything else. */
struct WidthShare {
  int bits = 0; // 0: not a matrix
  std::uint64_t bytes = 0;
};
std::vector<WidthShare> sizes_by_width(const ModelMap& map);

/** The matrices as a grid: one row a layer, one column a part, a block's parts
 * side by side in the order in which a layer uses them (q, k, v, o). */
struct ModuleGrid {
  std::vector<std::string> parts; // columns
  std::vector<int> layers; // rows
  /** Index into the names, or -1: [row][column]. */
  std::vector<std::vector<int>> cells;
  std::vector<int> outside; // embeddings, head
};
ModuleGrid grid_of(const std::vector<std::string>& module_names);

/** The JSON of `optiq inspect` (format: docs/formats.md). */
Json to_json(const ModelMap& map);

} // namespace optiq::artifacts
