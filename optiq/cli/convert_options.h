#pragma once

#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "optiq/quant/convert.h"

/** What commands that convert have in common on the command line. */
namespace optiq::cli {

struct ConvertFlags {
  std::string source;
  std::string output;
  std::string target_size;
  std::string method;
  std::string rounding;
  std::string sensitivity;
  std::vector<int> group_sizes;
  std::string progress = "auto";
  std::string json;
  std::string save_plan;
  std::string plan;
  std::string shard;
  std::string max_ram;
  std::string device = "cpu";
  bool protect = true;
  std::optional<int> bits;
  quant::ConvertOptions options;
};

/** --candidate-bits, --group-size, --protect. */
void add_width_options(CLI::App& command, ConvertFlags& flags);
/** How weights become codes. */
void add_rounding_options(CLI::App& command, ConvertFlags& flags);
/** The text to measure on, and how much is measured. */
void add_calibration_options(CLI::App& command, ConvertFlags& flags);

/** Finds the source, fetching it where it is of the hub. */
quant::ConvertOptions to_options(const ConvertFlags& flags);

} // namespace optiq::cli
