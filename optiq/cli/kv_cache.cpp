#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "optiq/artifacts/affine_format.h"
#include "optiq/base/error.h"
#include "optiq/base/system.h"
#include "optiq/cli/adapter_option.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/interrupt.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/cli/progress.h"
#include "optiq/kernels/devices.h"
#include "optiq/quant/kv_choice.h"

namespace optiq::cli {
namespace {

constexpr double kDefaultTargetBits = 4.5;

struct KvCacheFlags {
  std::string model;
  std::string output;
  std::vector<std::string> methods = {"affine"};
  std::string rotation;
  std::string device = "auto";
  std::string progress = "auto";
  std::string json;
  quant::KvCacheOptions options;
};

quant::KvCacheOptions to_options(const KvCacheFlags& flags) {
  quant::KvCacheOptions options = flags.options;
  quant::KvSearch& search = options.search;
  search.methods.clear();
  for (const std::string& name : flags.methods) {
    search.methods.push_back(artifacts::kv_method_of(name));
  }
  if (!flags.rotation.empty()) {
    search.codec.rotation = artifacts::kv_rotation_of(flags.rotation);
  }
  if (!options.target.bytes_per_token && !options.target.bits) {
    options.target.bits = kDefaultTargetBits;
  }
  return options;
}

/** One row of the table. */
struct Row {
  const artifacts::KvLayer& layer;
  artifacts::KvCost cost;
};

std::vector<Row> rows_of(const quant::KvCacheResult& result) {
  std::vector<Row> rows;
  for (std::size_t i = 0; i < result.plan.layers.size(); ++i) {
    const artifacts::KvLayer& layer = result.plan.layers[i];
    rows.push_back(
        {layer,
         artifacts::measured_cost(layer, result.sensitivity[i]).value()});
  }
  return rows;
}

double bits_per_value(const quant::KvCacheResult& result) {
  return 8 * result.plan_bytes_per_token /
      static_cast<double>(result.values_per_token);
}

void print_result(
    const quant::KvCacheOptions& options,
    const kernels::Device& device,
    const quant::KvCacheResult& result) {
  print(
      "{:>5} {:>8} {:>7} {:>7} {:>12} {:>12}\n",
      "layer",
      "method",
      "K bits",
      "V bits",
      "bytes/token",
      "KL");
  for (const auto& [layer, cost] : rows_of(result)) {
    print(
        "{:>5} {:>8} {:>7} {:>7} {:>12} {:>12.3e}\n",
        layer.layer_idx,
        artifacts::name_of(layer.codec.method),
        layer.codec.key_bits,
        layer.codec.value_bits,
        cost.bytes_per_token,
        cost.kl);
  }
  const double kept = result.kept_bytes_per_token;
  const double bytes = result.plan_bytes_per_token + kept;
  const double dense = result.dense_bytes_per_token + kept;
  print(
      "\ntrue width    {:.4f} bits per value, scales and norms included\n",
      bits_per_value(result));
  print(
      "cache         {} bytes per token, {:.2f} x less than bf16's {}{}\n",
      bytes,
      dense / bytes,
      dense,
      kept > 0 ? fmt::format(" ({} of them stay bf16)", kept) : "");
  print(
      "KL            {:.3e} nats per token, summed over {}\n",
      result.plan.predicted_kl,
      options.search.split ? "layers and sides" : "layers");
  print(
      "whole model   {:.3e} nats per token on the calibration text (by {})\n",
      result.plan.measured_kl.value(),
      result.plan.origin);
  print("device        {}\n", device.name());
  print("written to    {}\n", options.output.string());
}

void write_result_json(
    const std::string& path,
    const std::filesystem::path& model,
    const quant::KvCacheOptions& options,
    const kernels::Device& device,
    const quant::KvCacheResult& result,
    double seconds) {
  artifacts::Json json;
  json["output"] = options.output.string();
  json["device"] = device.name();
  json["kv_config"] =
      artifacts::to_json(artifacts::KvConfig{result.plan.layers});
  artifacts::Json layers = artifacts::Json::array();
  for (const auto& [layer, cost] : rows_of(result)) {
    layers.push_back(
        {{"layer_idx", layer.layer_idx},
         {"kl", cost.kl},
         {"bytes_per_token", cost.bytes_per_token}});
  }
  json["layers"] = std::move(layers);
  json["bits_per_value"] = bits_per_value(result);
  json["bytes_per_token"] =
      result.plan_bytes_per_token + result.kept_bytes_per_token;
  json["bf16_bytes_per_token"] =
      result.dense_bytes_per_token + result.kept_bytes_per_token;
  json["predicted_kl"] = result.plan.predicted_kl;
  json["measured_kl"] = result.plan.measured_kl.value();
  json["chosen_by"] = result.plan.origin;
  json["calibration_hash"] = result.calibration_hash;
  json["seconds"] = seconds;
  json["peak_rss_bytes"] = peak_rss_bytes();
  json["notices"] = result.notices;
  write_result(path, artifacts::dump_json(json, 2), model);
}

void run_kv_cache(const KvCacheFlags& flags) {
  quant::KvCacheOptions options = to_options(flags);
  const ProgressMode mode = parse_progress_mode(flags.progress);
  const auto model = find_model(flags.model, mode);
  refuse_adapter_inside("kv-cache", model);
  const auto directory = io::ModelDirectory::open(model);
  options.output = flags.output.empty()
      ? "optiq_output/kv_cache/" + name_of_model(directory.path())
      : flags.output;
  kernels::Device& device = kernels::find_device(flags.device);
  const InterruptGuard interrupt;
  ProgressPrinter printer(mode);
  const auto start = std::chrono::steady_clock::now();
  const quant::KvCacheResult result = quant::choose_kv_cache(
      load_checked(directory, device),
      directory,
      options,
      [&](const ProgressEvent& event) {
        if (interrupt.flag()) {
          printer.finish();
          fail(
              ErrorKind::Cancelled,
              "[kv-cache] interrupted; nothing was written. What was measured "
              "is kept: the same command goes on from there.");
        }
        printer.show(event);
      });
  printer.finish();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  for (const std::string& notice : result.notices) {
    print_error("note: {}\n", notice);
  }
  print_result(options, device, result);
  if (!flags.json.empty()) {
    write_result_json(
        flags.json, directory.path(), options, device, result, seconds);
  }
}

void add_search_options(CLI::App& command, KvCacheFlags& flags) {
  quant::KvSearch& search = flags.options.search;
  quant::KvTarget& target = flags.options.target;
  command.add_option(
      "--target-bits",
      target.bits,
      "Budget: the bytes of the cheapest method at this mean width (default "
      "4.5)");
  command.add_option(
      "--target-bytes-per-token",
      target.bytes_per_token,
      "Budget: bytes of K/V per token, over all layers");
  command
      .add_option(
          "--candidate-bits",
          search.candidate_bits,
          fmt::format(
              "Widths to choose from: affine has {}, turbo 1,2,2.5,3,3.5,4,5",
              fmt::join(artifacts::kAffineBits, ",")))
      ->delimiter(',')
      ->default_str("4,8");
  command.add_option("--methods", flags.methods, "Ways to code: affine, turbo")
      ->delimiter(',')
      ->default_str("affine");
  command.add_flag(
      "--split-kv",
      search.split,
      "Measure keys and values one by one; they may get other widths");
  command.add_option(
      "--group-size",
      search.codec.group_size,
      fmt::format(
          "affine: values per scale, {} (default 64)",
          artifacts::list_text(artifacts::kAffineGroupSizes)));
  command
      .add_option(
          "--kv-rotation",
          flags.rotation,
          "turbo rotates by: hadamard (default)")
      ->option_text("hadamard|orthogonal");
  command.add_option(
      "--kv-seed", search.codec.seed, "turbo: seed of rotations (default 42)");
}

void add_calibration_options(CLI::App& command, KvCacheFlags& flags) {
  quant::CalibrationOptions& calibration = flags.options.calibration;
  command
      .add_option(
          "--calibration",
          calibration.source,
          "Text to measure on: mix (built in), self (sampled from the model) or "
          "a FILE of text or JSONL")
      ->option_text("mix|self|FILE");
  command
      .add_option(
          "--n-samples", calibration.n_chunks, "Chunks of text to measure on")
      ->capture_default_str();
  command
      .add_option("--seq-len", calibration.chunk_tokens, "Tokens of a chunk")
      ->capture_default_str();
  command
      .add_option(
          "--seed", calibration.seed, "Which chunks (self: which samples)")
      ->capture_default_str();
}

void add_output_options(CLI::App& command, KvCacheFlags& flags) {
  add_file_option(
      command,
      "-o,--output",
      flags.output,
      "Folder of the result (default optiq_output/kv_cache/<name>)");
  command.add_flag(
      "--overwrite",
      flags.options.overwrite,
      "Replace an earlier result, once the new one is complete");
  add_progress_option(command, flags.progress);
  add_file_option(
      command, "--json", flags.json, "Write the result to this file");
}

} // namespace

void add_kv_cache_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "kv-cache", "Choose the K/V cache per layer: measure, choose, write");
  auto flags = std::make_shared<KvCacheFlags>();
  add_model_option(*command, flags->model);
  add_output_options(*command, *flags);
  add_search_options(*command, *flags);
  add_calibration_options(*command, *flags);
  add_device_option(*command, flags->device);
  add_threads_option(*command);
  refuse_adapter_option(
      *command,
      "the formats are measured on the model, and serve it with every adapter; "
      "those of one adapter are measured on the model that optiq lora fuse "
      "MODEL DIR -o OUT makes");
  command->footer(
      "Examples:\n"
      "  optiq kv-cache DIR --target-bits 4.5 --candidate-bits 4,8 -o KV\n"
      "  optiq kv-cache DIR --methods affine,turbo --candidate-bits 2,3,4,8 \\\n"
      "    --split-kv --target-bytes-per-token 8000\n"
      "  optiq generate DIR --kv-config KV/kv_config.json -p TEXT\n"
      "Measurements are kept beside those of optiq convert and serve every "
      "later target.");
  command->callback([flags] { run_kv_cache(*flags); });
}

} // namespace optiq::cli
