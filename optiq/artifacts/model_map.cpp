#include "optiq/artifacts/model_map.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "optiq/artifacts/module_id.h"
#include "optiq/artifacts/size.h"

namespace optiq::artifacts {
namespace {

std::uint64_t bytes_of(const MappedModule& module) {
  return module.code_bytes + module.scale_bytes;
}

void add_share(
    std::vector<SizeShare>& shares,
    std::string label,
    std::uint64_t bytes) {
  if (bytes != 0) {
    shares.push_back({std::move(label), bytes});
  }
}

/** Known blocks first, the parts of a block side by side; what the tables do
 * not know stays in order of its first appearance. */
void sort_parts(std::vector<std::string>& parts) {
  std::map<std::string, std::size_t> first_of_block;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    first_of_block.emplace(block_of(parts[i]), i);
  }
  const auto key = [&](const std::string& part) {
    const std::string block = block_of(part);
    return std::tuple(
        rank_of_block(block), first_of_block.at(block), rank_of_part(part));
  };
  std::stable_sort(
      parts.begin(), parts.end(), [&](const auto& a, const auto& b) {
        return key(a) < key(b);
      });
}

} // namespace

std::uint64_t file_bytes(const ModelMap& map) {
  std::uint64_t bytes = map.other_bytes + map.extra_bytes + map.header_bytes;
  for (const MappedModule& module : map.modules) {
    bytes += bytes_of(module);
  }
  return bytes;
}

std::uint64_t parameters(const ModelMap& map) {
  std::uint64_t count = map.other_parameters + map.extra_parameters;
  for (const MappedModule& module : map.modules) {
    count += module.parameters;
  }
  return count;
}

double mean_code_bits(const ModelMap& map) {
  const bool quantized = std::any_of(
      map.modules.begin(), map.modules.end(), [](const MappedModule& module) {
        return module.group_size != 0;
      });
  double bits = 0;
  double count = 0;
  for (const MappedModule& module : map.modules) {
    if ((module.group_size != 0) == quantized) {
      bits += static_cast<double>(module.parameters) * module.bits;
      count += static_cast<double>(module.parameters);
    }
  }
  return count == 0 ? 0 : bits / count;
}

std::vector<SizeShare> sizes_by_kind(const ModelMap& map) {
  std::uint64_t codes = 0;
  std::uint64_t scales = 0;
  std::uint64_t dense = 0;
  std::uint64_t outside = 0;
  for (const MappedModule& module : map.modules) {
    if (layer_of(module.name) < 0) {
      outside += bytes_of(module);
    } else if (module.group_size == 0) {
      dense += module.code_bytes;
    } else {
      codes += module.code_bytes;
      scales += module.scale_bytes;
    }
  }
  std::vector<SizeShare> shares;
  add_share(shares, "codes", codes);
  add_share(shares, "scales and biases", scales);
  add_share(shares, "full-precision matrices", dense);
  add_share(shares, "embeddings and head", outside);
  add_share(shares, "norms and other", map.other_bytes + map.header_bytes);
  add_share(shares, "not of the language model", map.extra_bytes);
  return shares;
}

std::vector<WidthShare> sizes_by_width(const ModelMap& map) {
  std::map<int, std::uint64_t> by_bits;
  std::uint64_t matrices = 0;
  for (const MappedModule& module : map.modules) {
    by_bits[module.bits] += bytes_of(module);
    matrices += bytes_of(module);
  }
  std::vector<WidthShare> shares;
  shares.reserve(by_bits.size() + 1);
  for (const auto& [bits, bytes] : by_bits) {
    shares.push_back({bits, bytes});
  }
  if (const std::uint64_t rest = file_bytes(map) - matrices; rest != 0) {
    shares.push_back({0, rest});
  }
  return shares;
}

ModuleGrid grid_of(const std::vector<std::string>& names) {
  ModuleGrid grid;
  std::set<int> layers;
  std::vector<ModuleId> ids;
  for (std::size_t i = 0; i < names.size(); ++i) {
    ids.push_back(module_id(names[i]));
    if (ids[i].layer < 0) {
      grid.outside.push_back(static_cast<int>(i));
    } else {
      layers.insert(ids[i].layer);
      if (std::find(grid.parts.begin(), grid.parts.end(), ids[i].part) ==
          grid.parts.end()) {
        grid.parts.push_back(ids[i].part);
      }
    }
  }
  sort_parts(grid.parts);
  grid.layers.assign(layers.begin(), layers.end());
  grid.cells.assign(
      grid.layers.size(), std::vector<int>(grid.parts.size(), -1));
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (ids[i].layer < 0) {
      continue;
    }
    const auto row = std::distance(layers.begin(), layers.find(ids[i].layer));
    const auto column = std::distance(
        grid.parts.begin(),
        std::find(grid.parts.begin(), grid.parts.end(), ids[i].part));
    grid.cells[row][column] = static_cast<int>(i);
  }
  return grid;
}

Json to_json(const ModelMap& map) {
  Json json;
  json["name"] = map.name;
  json["model_type"] = map.model_type;
  json["parameters"] = parameters(map);
  json["file_bytes"] = file_bytes(map);
  json["file_bpw"] = file_bpw(file_bytes(map), parameters(map));
  json["mean_code_bits"] = mean_code_bits(map);
  json["sidecar_bytes"] = map.sidecar_bytes;
  json["sizes"] = Json::object();
  for (const SizeShare& share : sizes_by_kind(map)) {
    json["sizes"][share.label] = share.bytes;
  }
  json["modules"] = Json::object();
  for (const MappedModule& module : map.modules) {
    json["modules"][module.name] = {
        {"bits", module.bits},
        {"group_size", module.group_size},
        {"parameters", module.parameters},
        {"bytes", bytes_of(module)}};
  }
  return json;
}

} // namespace optiq::artifacts
