#include "optiq/train/lora_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <utility>

#include "optiq/adapters/adapter_files.h"
#include "optiq/base/error.h"
#include "optiq/base/output_file.h"
#include "optiq/base/staged_directory.h"
#include "optiq/train/training_data.h"

namespace optiq::train {
namespace {

namespace fs = std::filesystem;
using adapters::AdapterUpdate;
using artifacts::Json;
using artifacts::TrainingStep;

constexpr const char* kFunction = "run_lora";
constexpr int kShownSteps = 10; // whose mean loss is shown
// Members of the record beside the settings.
constexpr const char* kStepsDone = "steps_done";
constexpr const char* kEnd = "end"; // null until there is one

std::vector<AdapterUpdate> updates_of(
    const std::vector<TrainedModule>& modules) {
  std::vector<AdapterUpdate> updates;
  for (const TrainedModule& module : modules) {
    const ModuleRank& shape = module.shape;
    updates.push_back(
        {.module = shape.module,
         .a = mx::array(module.a.data(), {shape.rank, shape.in}, mx::float32),
         .b = mx::array(module.b.data(), {shape.rank, shape.out}, mx::float32),
         .scale = shape.scale});
  }
  return updates;
}

/** Those of a folder in the order of the modules, with their scales: a file has
 * alpha, and alpha / rank may round to another one. */
std::vector<AdapterUpdate> read_updates(
    const adapters::AdapterFiles& files,
    const std::vector<TrainedModule>& modules) {
  std::map<std::string, AdapterUpdate> by_name;
  for (AdapterUpdate& update : adapters::load_updates(files)) {
    by_name.emplace(update.module, std::move(update));
  }
  std::vector<AdapterUpdate> updates;
  for (const TrainedModule& module : modules) {
    const auto found = by_name.find(module.shape.module);
    if (found == by_name.end()) {
      fail(
          ErrorKind::Corrupt,
          "[{}] {}: found no update of module '{}', which its state has. Train "
          "it again",
          kFunction,
          files.directory.string(),
          module.shape.module);
    }
    found->second.scale = module.shape.scale;
    updates.push_back(found->second);
  }
  return updates;
}

/** What is the same each time: the settings, and what the data are. */
Json fixed_record(
    const LoraRunOptions& options,
    std::span<const Example> train,
    std::span<const Example> valid) {
  Json record = options.settings;
  record["steps"] = options.trainer.learning_rate.total_steps;
  record["save_every"] = options.save_every;
  record["early_stopping"] = options.early_stopping;
  record["train_examples"] = train.size();
  record["train_hash"] = hash_of(train);
  record["valid_examples"] = valid.size();
  record["valid_hash"] = hash_of(valid);
  return record;
}

/** Mean loss of the last steps. */
double recent_loss(const std::vector<TrainingStep>& log) {
  const std::size_t n = std::min<std::size_t>(log.size(), kShownSteps);
  double sum = 0;
  for (std::size_t i = log.size() - n; i < log.size(); ++i) {
    sum += log[i].loss;
  }
  return sum / static_cast<double>(n);
}

class Run {
 public:
  Run(const models::Setup& setup,
      const std::vector<ModuleRank>& plan,
      std::span<const Example> train,
      std::span<const Example> valid,
      const LoraRunOptions& options,
      const ProgressSink& sink)
      : options_(options),
        setup_(setup),
        valid_(valid),
        sink_(sink),
        trainer_(setup, plan, train, options.trainer),
        record_(fixed_record(options, train, valid)),
        replace_(options.overwrite || options.resume) {
    for (const ModuleRank& module : plan) {
      result_.parameters += module.parameters();
    }
  }

  LoraRunResult run() {
    {
      // A place that cannot be written is found out before the work, and what a
      // killed process left there is put in order.
      const StagedDirectory place(options_.output, staged_options());
    }
    if (options_.resume) {
      read_checkpoint();
    }
    if (!result_.was_finished) {
      go_on_or_save();
    }
    result_.is_stopped_early = is_stalled();
    result_.log = std::move(log_);
    return std::move(result_);
  }

 private:
  int step() const {
    return trainer_.steps_done();
  }
  int total_steps() const {
    return options_.trainer.learning_rate.total_steps;
  }
  /** Whether a checkpoint belongs behind this step. */
  bool is_border() const {
    return step() > 0 &&
        (step() % options_.save_every == 0 || step() == total_steps());
  }
  /** Whether validation has not become better for too long. */
  bool is_stalled() const {
    const TrainingStep* best = artifacts::best_step(log_);
    return options_.early_stopping > 0 && best != nullptr &&
        std::count_if(
            log_.begin() + best->step, log_.end(), [](const auto& later) {
              return later.valid_loss.has_value();
            }) >= options_.early_stopping;
  }
  bool is_finished() const {
    return step() >= total_steps() || is_stalled();
  }
  StagedOptions staged_options() const {
    return {
        .kind = adapters::adapter_folder(),
        .replace = replace_,
        .source = {},
        .place_in_source = {}};
  }

  void read_checkpoint() {
    if (!adapters::is_adapter(options_.output)) {
      fail(
          ErrorKind::NotFound,
          "[{}] {}: found no training to go on from, expected the output of "
          "one. Begin it without --resume",
          kFunction,
          options_.output.string());
    }
    const auto files = adapters::open_adapter(options_.output, *setup_.model);
    Json found = adapters::record_of(files);
    found = found.is_object() ? found : Json::object();
    require_same_settings(found);
    log_ = artifacts::read_training_log(
        options_.output / adapters::kTrainingLogFile);
    result_.was_finished = !found.at(kEnd).is_null();
    if (!result_.was_finished) {
      trainer_.resume(options_.output / adapters::kTrainingStateFile);
    }
    const int steps_done = result_.was_finished
        ? artifacts::required<int>(found, kStepsDone, options_.output.string())
        : step();
    if (log_.empty() || std::cmp_not_equal(log_.size(), steps_done)) {
      fail(
          ErrorKind::Corrupt,
          "[{}] {}: found a log of {} steps beside what {} steps trained. "
          "Train it again (--overwrite)",
          kFunction,
          options_.output.string(),
          log_.size(),
          steps_done);
    }
    if (artifacts::best_step(log_) != nullptr) {
      best_ = read_updates(files, trainer_.modules());
    }
    saved_step_ = step();
  }

  void require_same_settings(const Json& found) const {
    Json expected = record_;
    expected[kEnd] = found.value(kEnd, Json()); // has to be there, as anything
    for (const auto& [key, value] : expected.items()) {
      const auto at = found.find(key);
      if (at == found.end() || *at != value) {
        fail(
            ErrorKind::InvalidInput,
            "[{}] {}: found an adapter trained with {} {}, expected {} to go "
            "on. Give the same settings and data, or train anew (--overwrite)",
            kFunction,
            options_.output.string(),
            key,
            at == found.end() ? "unknown" : at->dump(),
            value.dump());
      }
    }
  }

  void go_on_or_save() {
    try {
      go_on();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Cancelled || step() == 0) {
        throw;
      }
      if (saved_step_ != step()) {
        save(nullptr);
      }
      fail(
          ErrorKind::Cancelled,
          "[{}] {}: step {} of {} is kept there, and the same command with "
          "--resume goes on from it ({})",
          kFunction,
          options_.output.string(),
          step(),
          total_steps(),
          error.what());
    }
  }

  void go_on() {
    tell(losses());
    validate(); // what was interrupted at a border
    while (!is_finished()) {
      take_step();
      validate();
      if (is_border() && !is_finished()) {
        save(nullptr);
      }
    }
    save(is_stalled() ? "early stop" : "all steps");
  }

  void take_step() {
    const auto start = std::chrono::steady_clock::now();
    const StepReport report = trainer_.step();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count();
    log_.push_back(
        {.step = report.step,
         .loss = report.loss,
         .gradient_norm = report.gradient_norm,
         .learning_rate = double{report.learning_rate},
         .tokens = report.tokens,
         .seconds = seconds,
         .valid_loss = {}});
    tokens_ += report.tokens;
    seconds_ += seconds;
    tell(losses());
  }

  /** At a border, once. */
  void validate() {
    if (!is_border() || valid_.empty() || log_.back().valid_loss) {
      return;
    }
    const double loss =
        trainer_.evaluate(valid_, [this](const ProgressEvent& event) {
          tell(fmt::format("validating {} of {}", event.done, event.total));
        });
    if (!std::isfinite(loss)) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] step {}: found a validation loss of {}, expected a finite "
          "number. Train again with a lower learning rate",
          kFunction,
          step(),
          loss);
    }
    log_.back().valid_loss = loss;
    if (artifacts::best_step(log_) == &log_.back()) {
      best_ = updates_of(trainer_.modules());
    }
    tell(losses());
  }

  /** The sink, how far training is and `what` it does. */
  void tell(const std::string& what) const {
    if (sink_) {
      sink_(
          {.stage = "train",
           .done = static_cast<std::uint64_t>(step()),
           .total = static_cast<std::uint64_t>(total_steps()),
           .detail = what});
    }
  }

  std::string losses() const {
    std::string text =
        log_.empty() ? "" : fmt::format("loss {:.4f}", recent_loss(log_));
    if (seconds_ > 0) {
      text += fmt::format(
          ", {:.0f} tokens/s", static_cast<double>(tokens_) / seconds_);
    }
    if (const TrainingStep* best = artifacts::best_step(log_)) {
      text += fmt::format(
          ", validation {:.4f} at step {}", *best->valid_loss, best->step);
    }
    return text;
  }

  /** The record of now. */
  Json make_record(const char* end) const {
    Json record = record_;
    record[kStepsDone] = step();
    record[kEnd] = end == nullptr ? Json() : Json(end);
    record["train_loss"] = recent_loss(log_);
    if (const TrainingStep* best = artifacts::best_step(log_)) {
      record["best_step"] = best->step;
      record["valid_loss"] = *best->valid_loss;
    }
    return record;
  }

  /** Without an end a checkpoint, from which one can go on. */
  void save(const char* end) {
    try {
      StagedDirectory staged(options_.output, staged_options());
      adapters::write_adapter(
          {.updates = best_.empty() ? updates_of(trainer_.modules()) : best_,
           .base_model = options_.base_model,
           .dropout = options_.trainer.dropout,
           .record = make_record(end)},
          staged.path());
      write_file_atomically(
          staged.path() / adapters::kTrainingLogFile,
          artifacts::training_log_text(log_));
      if (end == nullptr) {
        trainer_.save(staged.path() / adapters::kTrainingStateFile);
      }
      staged.publish();
    } catch (const Error& error) {
      fail(
          error.kind(),
          "{}. The checkpoint of step {} was not written; {}",
          error.what(),
          step(),
          saved_step_ == 0
              ? "there is none before it"
              : fmt::format(
                    "that of step {} is whole in {}, and --resume goes on from "
                    "it",
                    saved_step_,
                    options_.output.string()));
    }
    replace_ = true;
    saved_step_ = step();
  }

  const LoraRunOptions& options_;
  const models::Setup& setup_;
  std::span<const Example> valid_;
  const ProgressSink& sink_;
  LoraTrainer trainer_;
  Json record_; // what stays the same
  bool replace_; // what is at the output's place
  int saved_step_ = 0; // of the last checkpoint
  std::uint64_t tokens_ = 0; // of the steps of this process
  double seconds_ = 0; // that they took
  std::vector<TrainingStep> log_; // [steps_done]
  std::vector<AdapterUpdate> best_; // by validation; empty before the first
  LoraRunResult result_;
};

void check(const LoraRunOptions& options, std::span<const Example> valid) {
  if (options.trainer.learning_rate.total_steps < 1 || options.save_every < 1 ||
      options.early_stopping < 0) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] found {} steps, a checkpoint every {} and a patience of {}, "
        "expected 1 or more, 1 or more, and 0 or more.",
        kFunction,
        options.trainer.learning_rate.total_steps,
        options.save_every,
        options.early_stopping);
  }
  if (options.early_stopping > 0 && valid.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] early stopping: found no examples to validate on, expected a "
        "valid.jsonl beside train.jsonl.",
        kFunction);
  }
}

} // namespace

int steps_of(
    double epochs,
    std::size_t n_examples,
    const TrainerOptions& trainer) {
  const double examples_a_step =
      static_cast<double>(trainer.batch_size) * trainer.accumulation;
  const double steps =
      std::ceil(epochs * static_cast<double>(n_examples) / examples_a_step);
  return static_cast<int>(std::clamp(steps, 1.0, 1e9));
}

LoraRunResult run_lora(
    const models::Setup& setup,
    const std::vector<ModuleRank>& plan,
    std::span<const Example> train,
    std::span<const Example> valid,
    const LoraRunOptions& options,
    const ProgressSink& sink) {
  check(options, valid);
  return Run(setup, plan, train, valid, options, sink).run();
}

} // namespace optiq::train
