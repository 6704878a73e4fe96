#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "optiq/adapters/adapter_files.h"
#include "optiq/artifacts/model_map.h"
#include "optiq/artifacts/module_id.h"
#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"
#include "optiq/base/staged_directory.h"
#include "optiq/cli/commands.h"
#include "optiq/cli/lora_train.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/cli/progress.h"
#include "optiq/quant/fuse.h"

namespace optiq::cli {
namespace {

using adapters::AdapterFiles;
using adapters::StoredUpdate;

struct InfoFlags {
  std::string directory;
  bool json = false;
};

struct MergeFlags {
  std::vector<std::string> directories;
  std::vector<double> weights;
  std::string output;
  bool overwrite = false;
};

struct FuseFlags {
  std::string model;
  std::string adapter;
  std::string output;
  bool overwrite = false;
  std::string progress = "auto";
  quant::CalibrationOptions text{.n_chunks = 4};
};

/** Ranks, one row a layer and one column a part. */
void print_ranks(const AdapterFiles& files) {
  std::vector<std::string> names;
  for (const StoredUpdate& update : files.updates) {
    names.push_back(update.module);
  }
  const artifacts::ModuleGrid grid = artifacts::grid_of(names);
  std::vector<int> widths;
  std::string header = "layer";
  for (const std::string& part : grid.parts) {
    const std::string leaf = artifacts::short_leaf(part);
    widths.push_back(std::max<int>(5, static_cast<int>(leaf.size()) + 2));
    header += fmt::format("{:>{}}", leaf, widths.back());
  }
  print("\nRank of each update\n{}\n", header);
  for (std::size_t row = 0; row < grid.layers.size(); ++row) {
    std::string line = fmt::format("{:>5}", grid.layers[row]);
    for (std::size_t i = 0; i < grid.parts.size(); ++i) {
      const int index = grid.cells[row][i];
      line += fmt::format(
          "{:>{}}",
          index < 0 ? "." : std::to_string(files.updates[index].rank),
          widths[i]);
    }
    print("{}\n", line);
  }
  for (const int index : grid.outside) {
    print("{}: {}\n", files.updates[index].id.part, files.updates[index].rank);
  }
}

/** "8", or "2 to 16". */
template <typename T>
std::string range_text(const std::set<T>& values) {
  return values.size() == 1
      ? fmt::format("{}", *values.begin())
      : fmt::format("{} to {}", *values.begin(), *values.rbegin());
}

/** What we, or the original, said of the training; null when nobody did. */
artifacts::Json training_of(const AdapterFiles& files) {
  const artifacts::Json ours = adapters::record_of(files);
  return ours.is_object()        ? ours
      : files.record.is_object() ? files.record
                                 : artifacts::Json();
}

void print_info(const AdapterFiles& files) {
  std::set<int> ranks;
  std::set<float> scales;
  for (const StoredUpdate& update : files.updates) {
    ranks.insert(update.rank);
    scales.insert(update.scale);
  }
  print(
      "{}: an adapter in the format of {}\n",
      files.directory.string(),
      files.format);
  print(
      "base          {}\n",
      files.base_model.empty() ? "not named" : files.base_model);
  print("modules       {}\n", files.updates.size());
  print("rank          {}\n", range_text(ranks));
  print("scale         {}\n", range_text(scales));
  print(
      "parameters    {} ({} resident)\n",
      files.parameters(),
      artifacts::format_size(2 * files.parameters()));
  print_ranks(files);
  if (const auto training = training_of(files); !training.is_null()) {
    print("\nTraining\n");
    for (const auto& [key, value] : training.items()) {
      if (!value.is_structured()) {
        print("{:<17} {}\n", key, value.dump());
      }
    }
  }
}

artifacts::Json info_json(const AdapterFiles& files) {
  artifacts::Json modules = artifacts::Json::object();
  for (const StoredUpdate& update : files.updates) {
    modules[update.module] = {
        {"rank", update.rank},
        {"scale", update.scale},
        {"in", update.in},
        {"out", update.out}};
  }
  return {
      {"format", files.format},
      {"base_model", files.base_model},
      {"parameters", files.parameters()},
      {"modules", modules},
      {"training", training_of(files)}};
}

void run_info(const InfoFlags& flags) {
  const AdapterFiles files = adapters::open_adapter(flags.directory);
  if (flags.json) {
    print_json_document(info_json(files));
  } else {
    print_info(files);
  }
}

void check_weights(MergeFlags& flags) {
  if (flags.weights.empty()) {
    flags.weights.assign(flags.directories.size(), 1.0);
  }
  if (flags.weights.size() != flags.directories.size()) {
    fail(
        ErrorKind::InvalidInput,
        "[lora merge] --weights: found {} of them for {} adapters, expected one "
        "for each",
        flags.weights.size(),
        flags.directories.size());
  }
}

void run_merge(MergeFlags flags) {
  check_weights(flags);
  std::vector<adapters::WeightedUpdates> terms;
  std::string base;
  artifacts::Json merged = artifacts::Json::array();
  for (std::size_t i = 0; i < flags.directories.size(); ++i) {
    const AdapterFiles files = adapters::open_adapter(flags.directories[i]);
    if (!base.empty() && !files.base_model.empty() &&
        base != files.base_model) {
      print_error(
          "note: {} was made for {}, the others for {}\n",
          flags.directories[i],
          files.base_model,
          base);
    }
    base = base.empty() ? files.base_model : base;
    terms.push_back({adapters::load_updates(files), flags.weights[i]});
    merged.push_back(
        {{"adapter", name_of_model(flags.directories[i])},
         {"weight", flags.weights[i]}});
  }
  StagedDirectory staged(
      flags.output,
      {.kind = adapters::adapter_folder(),
       .replace = flags.overwrite,
       .source = flags.directories.front(),
       .place_in_source = {}});
  adapters::write_adapter(
      {.updates = adapters::sum_of(terms),
       .base_model = base,
       .record = {{"merged", merged}}},
      staged.path());
  staged.publish();
  print("written to {}\n", flags.output);
}

void run_fuse(const FuseFlags& flags) {
  const ProgressMode mode = parse_progress_mode(flags.progress);
  ProgressPrinter printer(mode);
  const auto result = quant::fuse_adapter(
      {.model = find_model(flags.model, mode),
       .adapter = flags.adapter,
       .output = flags.output,
       .overwrite = flags.overwrite,
       .text = flags.text},
      [&](const ProgressEvent& event) { printer.show(event); });
  printer.finish();
  for (const std::string& notice : result.notices) {
    print_error("note: {}\n", notice);
  }
  print("modules       {} changed\n", result.modules);
  print(
      "file          {} of model*.safetensors\n",
      artifacts::format_size(result.file_bytes));
  print(
      "KL            {:.3e} nats per token to the model with the adapter, mean "
      "over {} tokens\n",
      result.mean_kl,
      result.tokens);
  print("written to    {}\n", flags.output);
}

void add_output_options(
    CLI::App& command,
    std::string& output,
    bool& overwrite) {
  add_file_option(command, "-o,--output", output, "The new folder")->required();
  command.add_flag(
      "--overwrite",
      overwrite,
      "Replace an existing folder of this kind, once the new one is complete");
}

void add_info_command(CLI::App& lora) {
  auto* command = lora.add_subcommand(
      "info", "Ranks, scales, parameters and training of an adapter");
  auto flags = std::make_shared<InfoFlags>();
  command->add_option("DIR", flags->directory, "Folder of an adapter")
      ->required();
  command->add_flag("--json", flags->json, "One JSON object");
  command->callback([flags] { run_info(*flags); });
}

void add_merge_command(CLI::App& lora) {
  auto* command = lora.add_subcommand(
      "merge", "One adapter that adds what several of a model add");
  auto flags = std::make_shared<MergeFlags>();
  command->add_option("DIR", flags->directories, "Folders of adapters")
      ->required();
  command->add_option("--weights", flags->weights, "One for each [1]")
      ->delimiter(',')
      ->option_text("W,W,...");
  add_output_options(*command, flags->output, flags->overwrite);
  command->callback([flags] { run_merge(*flags); });
}

void add_fuse_command(CLI::App& lora) {
  auto* command = lora.add_subcommand(
      "fuse",
      "A model whose weights hold the adapter, rounded to their widths");
  auto flags = std::make_shared<FuseFlags>();
  command
      ->add_option(
          "MODEL",
          flags->model,
          "Model directory, .gguf file, or org/name of the hub")
      ->required();
  command->add_option("DIR", flags->adapter, "Folder of an adapter")
      ->required();
  add_output_options(*command, flags->output, flags->overwrite);
  command
      ->add_option(
          "--calibration",
          flags->text.source,
          "Text to measure the loss on: mix (built in) or a FILE of text or "
          "JSONL")
      ->option_text("mix|FILE");
  command
      ->add_option(
          "--n-calibration", flags->text.n_chunks, "Chunks of 512 tokens")
      ->capture_default_str();
  add_threads_option(*command);
  add_progress_option(*command, flags->progress);
  command->callback([flags] { run_fuse(*flags); });
}

} // namespace

void add_lora_command(CLI::App& app) {
  auto* command = app.add_subcommand(
      "lora", "LoRA adapters: train them, look at them, merge them, fuse them");
  command->require_subcommand(1);
  add_lora_train_command(*command);
  add_info_command(*command);
  add_merge_command(*command);
  add_fuse_command(*command);
  command->footer(
      "Examples:\n"
      "  optiq lora train MODEL --data DIR -o ADAPTER\n"
      "  optiq lora info ADAPTER\n"
      "  optiq lora merge A B --weights 1,0.5 -o BOTH\n"
      "  optiq lora fuse MODEL ADAPTER -o FUSED");
}

} // namespace optiq::cli
