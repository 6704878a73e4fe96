#include "optiq/cli/lora_train.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optiq/artifacts/metadata.h"
#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"
#include "optiq/base/system.h"
#include "optiq/cli/adapter_option.h"
#include "optiq/cli/interrupt.h"
#include "optiq/cli/model_option.h"
#include "optiq/cli/output.h"
#include "optiq/cli/progress.h"
#include "optiq/generate/defaults.h"
#include "optiq/kernels/devices.h"
#include "optiq/train/lora_run.h"
#include "optiq/train/training_data.h"

namespace optiq::cli {
namespace {

namespace fs = std::filesystem;

struct TrainFlags {
  std::string model;
  std::string data;
  std::string output;
  std::string progress = "auto";
  std::string device = "auto";
  std::string rank_scaling = "by_bits";
  std::string schedule = "cosine";
  double epochs = 3;
  std::optional<int> iterations;
  std::optional<int> save_every;
  train::RankOptions ranks;
  train::TrainingDataOptions data_options;
  train::LoraRunOptions run;

  TrainFlags() {
    run.trainer.learning_rate.peak = 2e-4f;
  }
};

/** Flags that say which tokens are learned; one at a time (flag_rules). */
struct LearnedFlag {
  const char* flag;
  train::LearnedPart part;
  const char* name; // in the record
  const char* description;
};
constexpr LearnedFlag kLearnedFlags[] = {
    {"--all-turns",
     train::LearnedPart::AllAnswers,
     "all answers",
     "Learn every answer of a conversation (the default)"},
    {"--mask-prompt",
     train::LearnedPart::LastAnswer,
     "last answer",
     "Learn the last answer only, and nothing before it"},
    {"--no-mask-prompt",
     train::LearnedPart::Everything,
     "everything",
     "Learn prompts and answers"}};

std::string name_of(train::LearnedPart part) {
  const auto* found = std::find_if(
      std::begin(kLearnedFlags),
      std::end(kLearnedFlags),
      [&](const auto& flag) { return flag.part == part; });
  return found->name;
}

/** What is trained on. */
struct TrainingSets {
  train::ExampleSet train;
  train::ExampleSet valid; // may be empty
};

const std::map<std::string, train::Decay> kSchedules{
    {"cosine", train::Decay::Cosine},
    {"linear", train::Decay::Linear},
    {"constant", train::Decay::Constant}};

train::TrainingEncoder load_encoder(const io::ModelDirectory& directory) {
  train::TrainingEncoder encoder{
      .tokenizer = generate::load_tokenizer(directory),
      .chat = {},
      .end_of_text = {}};
  encoder.end_of_text = generate::end_of_text(directory, *encoder.tokenizer);
  try {
    encoder.chat = generate::load_chat_template(directory);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::NotFound) {
      throw;
    }
    print_error("note: {}; only lines with 'text' can be read\n", error.what());
  }
  return encoder;
}

train::ExampleSet load_set(
    const fs::path& file,
    const train::TrainingEncoder& encoder,
    const train::TrainingDataOptions& options) {
  train::ExampleSet set = train::load_examples(file, encoder, options);
  if (set.n_cut > 0) {
    print_error(
        "note: {}: {} of {} examples are longer than {} tokens and were cut "
        "there (--max-seq-length)\n",
        file.string(),
        set.n_cut,
        set.examples.size(),
        options.max_tokens);
  }
  return set;
}

TrainingSets load_sets(
    const TrainFlags& flags,
    const io::ModelDirectory& directory) {
  const train::TrainingEncoder encoder = load_encoder(directory);
  const fs::path folder = flags.data;
  TrainingSets sets;
  sets.train = load_set(folder / "train.jsonl", encoder, flags.data_options);
  if (fs::exists(folder / "valid.jsonl")) {
    sets.valid = load_set(folder / "valid.jsonl", encoder, flags.data_options);
  }
  return sets;
}

/** 0.1f as the user wrote it: 0.1. */
double decimal(float value) {
  return std::stod(fmt::format("{}", value));
}

/** What decides the result, as the record says it. */
artifacts::Json settings_of(
    const TrainFlags& flags,
    const models::Setup& setup,
    const std::string& model) {
  const train::RankOptions& ranks = flags.ranks;
  const train::TrainerOptions& trainer = flags.run.trainer;
  return {
      {"model", model},
      {"device", setup.model->device().name()},
      {"rank", ranks.rank},
      {"rank_scaling", flags.rank_scaling},
      {"budget_match", ranks.matches_budget},
      {ranks.scale ? "scale" : "alpha",
       decimal(ranks.scale.value_or(ranks.alpha))},
      {"rslora", ranks.is_rank_stabilized},
      {"target_modules",
       fmt::format("{}", fmt::join(ranks.target_modules, ","))},
      {"num_layers", ranks.n_layers},
      {"dropout", decimal(trainer.dropout)},
      {"batch_size", trainer.batch_size},
      {"grad_accumulation", trainer.accumulation},
      {"lr", decimal(trainer.learning_rate.peak)},
      {"lr_schedule", flags.schedule},
      {"warmup", trainer.learning_rate.warmup_steps},
      {"clip", decimal(trainer.clip)},
      {"seed", trainer.seed},
      {"max_seq_length", flags.data_options.max_tokens},
      {"learned", name_of(flags.data_options.learned)}};
}

train::LoraRunOptions run_options(
    const TrainFlags& flags,
    const models::Setup& setup,
    const fs::path& model,
    std::size_t n_examples) {
  train::LoraRunOptions options = flags.run;
  options.output = flags.output.empty()
      ? "optiq_output/" + name_of_model(model) + "-lora"
      : flags.output;
  train::LearningRate& rate = options.trainer.learning_rate;
  rate.decay = kSchedules.at(flags.schedule);
  rate.total_steps = flags.iterations.value_or(
      train::steps_of(flags.epochs, n_examples, options.trainer));
  options.save_every =
      flags.save_every.value_or(std::max(1, rate.total_steps / 10));
  const auto metadata = artifacts::read_metadata(model);
  options.base_model = metadata ? metadata->base_model : flags.model;
  options.settings = settings_of(flags, setup, name_of_model(model));
  return options;
}

void print_summary(
    const train::LoraRunOptions& options,
    const train::LoraRunResult& result) {
  const auto& log = result.log;
  std::uint64_t tokens = 0;
  double seconds = 0;
  for (const artifacts::TrainingStep& step : log) {
    tokens += step.tokens;
    seconds += step.seconds;
  }
  if (result.was_finished) {
    print_error(
        "note: {} was finished already; nothing was done\n",
        options.output.string());
  }
  print("parameters    {}\n", result.parameters);
  print(
      "steps         {}{}\n",
      log.size(),
      result.is_stopped_early ? fmt::format(
                                    ", stopped early of {}",
                                    options.trainer.learning_rate.total_steps)
                              : "");
  print(
      "loss          {:.4f} in the first step, {:.4f} in the last, nats per "
      "learned token\n",
      log.front().loss,
      log.back().loss);
  if (const auto* best = artifacts::best_step(log)) {
    print(
        "validation    {:.4f} at step {}, which is what was kept\n",
        *best->valid_loss,
        best->step);
  }
  print(
      "speed         {:.0f} tokens/s, {} tokens in {}\n",
      static_cast<double>(tokens) / seconds,
      tokens,
      format_duration(seconds));
  print("peak RSS      {}\n", artifacts::format_size(peak_rss_bytes()));
  print("written to    {}\n", options.output.string());
}

void run_train(const TrainFlags& flags) {
  const ProgressMode mode = parse_progress_mode(flags.progress);
  const fs::path model = find_model(flags.model, mode);
  refuse_adapter_inside("lora train", model);
  const auto directory = io::ModelDirectory::open(model);
  // Every line is read before the weights are.
  const TrainingSets sets = load_sets(flags, directory);
  const models::Setup setup(
      load_checked(directory, kernels::find_device(flags.device)),
      kernels::Compute::Exact);
  train::RankOptions ranks = flags.ranks;
  ranks.scaling = train::rank_scaling_of(flags.rank_scaling);
  const auto plan = train::plan_ranks(
      *setup.model, artifacts::read_sensitivity(model), ranks);
  const train::LoraRunOptions options =
      run_options(flags, setup, model, sets.train.examples.size());

  const InterruptGuard interrupt;
  ProgressPrinter printer(mode);
  const train::LoraRunResult result = train::run_lora(
      setup,
      plan,
      sets.train.examples,
      sets.valid.examples,
      options,
      [&](const ProgressEvent& event) {
        if (interrupt.flag()) {
          printer.finish();
          fail(ErrorKind::Cancelled, "[lora train] interrupted");
        }
        printer.show(event);
      });
  printer.finish();
  print_summary(options, result);
}

void add_data_options(CLI::App& command, TrainFlags& flags) {
  command
      .add_option(
          "--data",
          flags.data,
          "Folder with train.jsonl and, to choose the best by, valid.jsonl")
      ->required();
  add_file_option(
      command,
      "-o,--output",
      flags.output,
      "Folder of the adapter (default optiq_output/<name>-lora)");
  command.add_flag(
      "--overwrite",
      flags.run.overwrite,
      "Replace an existing adapter at the first checkpoint");
  command.add_flag(
      "--resume",
      flags.run.resume,
      "Go on from the output's last checkpoint, to the same bits");
  command
      .add_option(
          "--max-seq-length",
          flags.data_options.max_tokens,
          "Tokens of an example; longer ones are cut")
      ->check(CLI::Range(2, 1 << 24))
      ->capture_default_str();
  for (const LearnedFlag& learned : kLearnedFlags) {
    command.add_flag_callback(
        learned.flag,
        [&flags, part = learned.part] { flags.data_options.learned = part; },
        learned.description);
  }
}

void add_rank_options(CLI::App& command, TrainFlags& flags) {
  train::RankOptions& ranks = flags.ranks;
  command.add_option("--rank", ranks.rank, "Rank of a module of 4 bits")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command
      .add_option(
          "--rank-scaling",
          flags.rank_scaling,
          "by_bits: twice the rank at 8 bits; by_kl: by measured sensitivity; "
          "constant")
      ->check(CLI::IsMember({"by_bits", "by_kl", "constant"}))
      ->option_text("by_bits|by_kl|constant [by_bits]");
  command.add_flag(
      "--budget-match",
      ranks.matches_budget,
      "Scale the ranks to as many parameters as constant ones have");
  command
      .add_option(
          "--alpha", ranks.alpha, "A module's update counts alpha / its rank")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--scale", ranks.scale, "The same factor for all instead")
      ->check(CLI::PositiveNumber);
  command.add_flag(
      "--rslora", ranks.is_rank_stabilized, "alpha / sqrt(rank) instead");
  command
      .add_option(
          "--target-modules",
          ranks.target_modules,
          "Names or parts of linears (default: all of the layers)")
      ->delimiter(',')
      ->option_text("NAME,NAME,...");
  command
      .add_option(
          "--num-layers", ranks.n_layers, "The last N layers only; 0 = all")
      ->check(CLI::Range(0, 1 << 16))
      ->capture_default_str();
}

void add_step_options(CLI::App& command, TrainFlags& flags) {
  train::TrainerOptions& trainer = flags.run.trainer;
  const auto count = CLI::Range(1, 1 << 30);
  command.add_option("--iters", flags.iterations, "Steps")->check(count);
  command.add_option("--epochs", flags.epochs, "Or times through the examples")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      .add_option("--batch-size", trainer.batch_size, "Examples of one forward")
      ->check(count)
      ->capture_default_str();
  command
      .add_option(
          "--grad-accumulation", trainer.accumulation, "Forwards of one step")
      ->check(count)
      ->capture_default_str();
  command.add_flag(
      "--grad-checkpoint",
      trainer.recomputes_layers,
      "Keep one layer's activations: less memory, a second forward, the same "
      "bits");
  command.add_option("--seed", trainer.seed, "Of order, ranks' begin, dropout")
      ->capture_default_str();
  command
      .add_option(
          "--save-every",
          flags.save_every,
          "Steps between checkpoints, each of which validates (default: a "
          "tenth)")
      ->check(count);
  command
      .add_option(
          "--early-stopping",
          flags.run.early_stopping,
          "End after so many validations without a better one; 0 = never")
      ->check(CLI::Range(0, 1 << 30))
      ->capture_default_str();
}

void add_optimizer_options(CLI::App& command, TrainFlags& flags) {
  train::TrainerOptions& trainer = flags.run.trainer;
  command.add_option("--lr", trainer.learning_rate.peak, "Peak learning rate")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option(
          "--lr-schedule", flags.schedule, "From the peak to 0, or constant")
      ->check(CLI::IsMember({"cosine", "linear", "constant"}))
      ->option_text("cosine|linear|constant [cosine]");
  command
      .add_option(
          "--warmup",
          trainer.learning_rate.warmup_steps,
          "Steps up to the peak")
      ->check(CLI::Range(0, 1 << 30))
      ->capture_default_str();
  command
      .add_option(
          "--clip", trainer.clip, "Largest norm of the gradient; 0 = any")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option(
          "--dropout", trainer.dropout, "Share of what the updates read")
      ->check(CLI::Range(0.0, 0.999))
      ->capture_default_str();
}

} // namespace

void add_lora_train_command(CLI::App& lora) {
  auto* command = lora.add_subcommand(
      "train", "Train a LoRA adapter whose ranks follow the sensitivity");
  auto flags = std::make_shared<TrainFlags>();
  add_model_option(*command, flags->model);
  add_data_options(*command, *flags);
  add_rank_options(*command, *flags);
  add_step_options(*command, *flags);
  add_optimizer_options(*command, *flags);
  add_device_option(*command, flags->device);
  add_threads_option(*command);
  add_progress_option(*command, flags->progress);
  command->footer(
      "Lines of the data: {\"messages\": [...], \"tools\": [...]}, "
      "{\"prompt\": ..., \"completion\": ...}\nor {\"text\": ...}. The output "
      "loads in PEFT and mlx-lm.\n"
      "Examples:\n"
      "  optiq lora train MODEL --data DIR -o ADAPTER --epochs 2\n"
      "  optiq lora train MODEL --data DIR -o ADAPTER --epochs 2 --resume\n"
      "  optiq report MODEL --adapter ADAPTER -o training.html");
  command->callback([flags] { run_train(*flags); });
}

} // namespace optiq::cli
