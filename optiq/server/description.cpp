#include "optiq/server/description.h"

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "optiq/artifacts/model_map.h"
#include "optiq/artifacts/module_id.h"
#include "optiq/artifacts/size.h"
#include "optiq/base/version.h"
#include "optiq/cache/layout.h"
#include "optiq/kernels/machine.h"
#include "optiq/models/model_map.h"

namespace optiq::server {
namespace {

using artifacts::Json;

Json part_to_json(const artifacts::MappedModule& module) {
  return {
      {"part", artifacts::module_id(module.name).part},
      {"bits", module.bits},
      {"group_size", module.group_size},
      {"bytes", module.code_bytes + module.scale_bytes}};
}

Json kv_to_json(const kernels::KvFormat& format) {
  const kernels::KvCodec& codec = format.codec;
  Json json{{"method", artifacts::name_of(codec.method)}};
  if (codec.method == kernels::KvMethod::Dense) {
    json["bits"] = 8 * mlx::core::size_of(format.dtype);
  } else {
    json["key_bits"] = codec.key_bits;
    json["value_bits"] = codec.value_bits;
  }
  if (codec.method == kernels::KvMethod::Affine) {
    json["group_size"] = codec.group_size;
  }
  if (format.window != 0) {
    json["window"] = format.window;
  }
  return json;
}

Json kv_to_json(const cache::RecurrentFormat& format) {
  return {{"method", "state"}, {"bytes", cache::piece_bytes(format)}};
}

Json kv_to_json(const cache::SharedFormat& format) {
  return {{"method", "shared"}, {"layer", format.layer}};
}

Json columns_of(const artifacts::ModuleGrid& grid) {
  Json columns = Json::array();
  for (const std::string& part : grid.parts) {
    columns.push_back(
        {{"part", part},
         {"block", artifacts::block_of(part)},
         {"name", artifacts::short_leaf(part)}});
  }
  return columns;
}

/** Every layer of the model, one without matrices too. */
Json layers_of(
    const artifacts::ModelMap& map,
    const artifacts::ModuleGrid& grid,
    const std::vector<cache::LayerFormat>& layout) {
  Json layers = Json::array();
  for (std::size_t i = 0; i < layout.size(); ++i) {
    Json layer{{"layer", i}, {"parts", Json::array()}};
    layer["kv"] = std::visit(
        [](const auto& format) { return kv_to_json(format); }, layout[i]);
    layers.push_back(std::move(layer));
  }
  for (std::size_t row = 0; row < grid.layers.size(); ++row) {
    Json& parts = layers.at(grid.layers[row])["parts"];
    for (const int index : grid.cells[row]) {
      if (index >= 0) {
        parts.push_back(part_to_json(map.modules[index]));
      }
    }
  }
  return layers;
}

Json outside_of(
    const artifacts::ModelMap& map,
    const artifacts::ModuleGrid& grid) {
  Json outside = Json::array();
  for (const int index : grid.outside) {
    outside.push_back(part_to_json(map.modules[index]));
  }
  return outside;
}

} // namespace

Json describe_model(
    const io::ModelDirectory& directory,
    const models::Setup& setup) {
  const artifacts::ModelMap map = models::map_model(directory);
  std::vector<std::string> names;
  for (const artifacts::MappedModule& module : map.modules) {
    names.push_back(module.name);
  }
  const artifacts::ModuleGrid grid = artifacts::grid_of(names);
  const std::uint64_t bytes = artifacts::file_bytes(map);
  const std::uint64_t parameters = artifacts::parameters(map);
  const models::ModelInfo& info = setup.model->info();
  return {
      {"model_type", map.model_type},
      {"parameters", parameters},
      {"file_bytes", bytes},
      {"file_bpw", artifacts::file_bpw(bytes, parameters)},
      {"mean_code_bits", artifacts::mean_code_bits(map)},
      {"context", info.max_positions},
      {"vocab_size", info.vocab_size},
      {"device", setup.model->device().name()},
      {"simd", kernels::simd_target()},
      {"compute", kernels::name_of(setup.compute)},
      {"version", kVersion},
      {"columns", columns_of(grid)},
      {"layers", layers_of(map, grid, setup.layout)},
      {"outside", outside_of(map, grid)},
      {"kv_bytes_per_token", cache::bytes_per_token(setup.layout)},
      {"sequence_bytes", cache::fixed_bytes(setup.layout)}};
}

} // namespace optiq::server
