#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "optiq/artifacts/metadata.h"
#include "optiq/artifacts/module_id.h"
#include "optiq/artifacts/size.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/models/model_map.h"

namespace optiq::cli {
namespace {

struct InspectFlags {
  std::string model;
  bool json = false;
};

/** One block of columns of the table: "mlp" over gate, up and down. */
struct ColumnBlock {
  std::string name;
  std::vector<std::size_t> columns; // of the grid
  std::vector<int> widths; // in characters
};

std::vector<ColumnBlock> column_blocks(const artifacts::ModuleGrid& grid) {
  std::vector<ColumnBlock> blocks;
  for (std::size_t i = 0; i < grid.parts.size(); ++i) {
    const std::string block = artifacts::block_of(grid.parts[i]);
    if (blocks.empty() || blocks.back().name != block) {
      blocks.push_back({block, {}, {}});
    }
    const auto length =
        static_cast<int>(artifacts::short_leaf(grid.parts[i]).size());
    blocks.back().columns.push_back(i);
    blocks.back().widths.push_back(std::max(length, 3) + 1);
  }
  for (ColumnBlock& block : blocks) {
    int width = 0;
    for (const int w : block.widths) {
      width += w;
    }
    const auto name = static_cast<int>(block.name.size()) + 1;
    block.widths.front() += std::max(0, name - width);
  }
  return blocks;
}

void print_grid(
    const artifacts::ModelMap& map,
    const artifacts::ModuleGrid& grid,
    const std::set<std::string>& protected_names) {
  const std::vector<ColumnBlock> blocks = column_blocks(grid);
  std::string names = "      ";
  std::string leaves = "layer ";
  for (const ColumnBlock& block : blocks) {
    std::string line;
    for (std::size_t i = 0; i < block.columns.size(); ++i) {
      line += fmt::format(
          "{:>{}}",
          artifacts::short_leaf(grid.parts[block.columns[i]]),
          block.widths[i]);
    }
    names += fmt::format(" {:<{}} ", " " + block.name, line.size());
    leaves += " " + line + " ";
  }
  print("{}\n{}\n", names, leaves);
  for (std::size_t row = 0; row < grid.layers.size(); ++row) {
    std::string line = fmt::format("{:>5} ", grid.layers[row]);
    for (const ColumnBlock& block : blocks) {
      line += ' ';
      for (std::size_t i = 0; i < block.columns.size(); ++i) {
        const int index = grid.cells[row][block.columns[i]];
        std::string cell = ".";
        if (index >= 0) {
          const artifacts::MappedModule& module = map.modules[index];
          cell = std::to_string(module.bits);
          cell += protected_names.contains(module.name) ? "*" : "";
        }
        line += fmt::format("{:>{}}", cell, block.widths[i]);
      }
      line += ' ';
    }
    print("{}\n", line);
  }
}

void print_map(
    const artifacts::ModelMap& map,
    const std::set<std::string>& protected_names) {
  std::vector<std::string> names;
  for (const artifacts::MappedModule& module : map.modules) {
    names.push_back(module.name);
  }
  const artifacts::ModuleGrid grid = artifacts::grid_of(names);
  print("\nBits of each matrix\n");
  if (!grid.layers.empty()) {
    print_grid(map, grid, protected_names);
  }
  for (const int index : grid.outside) {
    const artifacts::MappedModule& module = map.modules[index];
    print(
        "{}: {}{}\n",
        artifacts::module_id(module.name).part,
        module.bits,
        protected_names.contains(module.name) ? "*" : "");
  }
  if (!protected_names.empty()) {
    print("* protected by rule, not by measurement\n");
  }
}

void print_sizes(const artifacts::ModelMap& map, const char* files_label) {
  const std::uint64_t whole = artifacts::file_bytes(map);
  print("\nSizes\n");
  for (const artifacts::SizeShare& share : artifacts::sizes_by_kind(map)) {
    print(
        "  {:<26} {:>10} {:>6.1f} %\n",
        share.label,
        artifacts::format_size(share.bytes),
        100.0 * static_cast<double>(share.bytes) / static_cast<double>(whole));
  }
  print("  {:<26} {:>10}\n", files_label, artifacts::format_size(whole));
  if (map.sidecar_bytes != 0) {
    print(
        "  {:<26} {:>10}\n",
        "beside it, in optiq/",
        artifacts::format_size(map.sidecar_bytes));
  }
}

void print_head(
    const artifacts::ModelMap& map,
    const std::optional<artifacts::Metadata>& metadata,
    double nominal) {
  const std::uint64_t bytes = artifacts::file_bytes(map);
  const std::uint64_t count = artifacts::parameters(map);
  print("{} ({})\n", map.name, map.model_type);
  print("parameters   {}\n", count);
  print(
      "nominal bpw  {:.3f}  {}\n",
      nominal,
      metadata ? "code widths outside the protected set" : "mean code width");
  print(
      "file bpw     {:.3f}  {}, everything counted\n",
      artifacts::file_bpw(bytes, count),
      artifacts::format_size(bytes));
  if (metadata) {
    print(
        "made from    {} by method {}\n",
        metadata->base_model,
        name_of(metadata->plan.method));
  }
}

void run_inspect(const InspectFlags& flags) {
  const auto directory = open_model(flags.model);
  const artifacts::ModelMap map = models::map_model(directory);
  const auto metadata = artifacts::read_metadata(directory.path());
  const double nominal =
      metadata ? metadata->plan.achieved_bpw : artifacts::mean_code_bits(map);
  if (flags.json) {
    artifacts::Json json = artifacts::to_json(map);
    json["nominal_bpw"] = nominal;
    print_json_document(json);
    return;
  }
  std::set<std::string> protected_names;
  if (metadata) {
    for (const artifacts::LayerBits& layer : metadata->plan.layers) {
      if (layer.is_protected) {
        protected_names.insert(layer.name);
      }
    }
  }
  print_head(map, metadata, nominal);
  print_map(map, protected_names);
  print_sizes(map, directory.files_label());
}

} // namespace

void add_inspect_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "inspect", "Show the bits of each matrix, bits per weight and sizes");
  auto flags = std::make_shared<InspectFlags>();
  add_model_option(*command, flags->model);
  command->add_flag("--json", flags->json, "One JSON object on stdout");
  command->footer(
      "Reads headers only, of quantized and full-precision directories.\n"
      "Example:\n"
      "  optiq inspect DIR");
  command->callback([flags] { run_inspect(*flags); });
}

} // namespace optiq::cli
