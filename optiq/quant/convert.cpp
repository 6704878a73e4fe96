#include "optiq/quant/convert.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <set>

#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"
#include "optiq/base/file.h"
#include "optiq/base/output_file.h"
#include "optiq/base/printable.h"
#include "optiq/base/ram_limit.h"
#include "optiq/base/staged_directory.h"
#include "optiq/base/system.h"
#include "optiq/base/version.h"
#include "optiq/io/hub/cache.h"
#include "optiq/io/model_files.h"
#include "optiq/kernels/gradients.h"
#include "optiq/quant/convert_cost.h"
#include "optiq/quant/inventory.h"
#include "optiq/quant/measurement.h"
#include "optiq/quant/model_calibration.h"
#include "optiq/quant/model_writer.h"
#include "optiq/quant/plan.h"
#include "optiq/quant/plan_choice.h"
#include "optiq/quant/plan_selection.h"
#include "optiq/quant/planned_tensors.h"
#include "optiq/quant/rounder.h"
#include "optiq/quant/sensitivity_journal.h"
#include "optiq/quant/source_notices.h"
#include "optiq/quant/trial_run.h"
#include "optiq/quant/width_choice.h"

namespace optiq::quant {

namespace mx = mlx::core;

namespace {

namespace fs = std::filesystem;
using artifacts::PlanMethod;

// What is rounded for measuring is kept for the choice and for the file.
constexpr std::uint64_t kMaxRoundedBytes = 16u << 20;

// A folder may have any bytes in its name, a text that is read back has not.
std::string base_name(const fs::path& source) {
  if (const auto repo = io::repo_of_snapshot(source)) {
    return *repo;
  }
  // "dir/" and "." have no file name of their own.
  const fs::path path = fs::weakly_canonical(source);
  return printable(
      (path.has_filename() ? path : path.parent_path()).filename().string());
}

std::string dtype_label(
    const models::Checkpoint& checkpoint,
    const Inventory& inventory) {
  const mx::Dtype dtype =
      weight_of(checkpoint, inventory.modules.front().name).dtype;
  return dtype == mx::bfloat16 ? "bf16" : dtype == mx::float16 ? "f16" : "f32";
}

bool is_measured(const ConvertOptions& options) {
  return options.plan.method == PlanMethod::Optiq && !options.load_plan;
}

Rounding rounding_of(const ConvertOptions& options) {
  return options.rounding.value_or(
      is_measured(options) ? Rounding::Gptq : Rounding::Nearest);
}

bool looks_at_inputs(const ConvertOptions& options) {
  return rounding_of(options) != Rounding::Nearest;
}

bool is_calibrated(const ConvertOptions& options) {
  return looks_at_inputs(options) || options.tune_steps > 0;
}

void check_time_budget(std::optional<double> seconds) {
  // Not a comparison that NaN passes.
  if (seconds && !(*seconds >= 0 && *seconds <= 1e9)) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --time-budget {}: expected seconds, from 0 to 1e9.",
        *seconds);
  }
}

void check_tune_steps(int steps) {
  if (steps < 0 || steps > 100'000) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --tune-steps {}: expected 0 to 100000.",
        steps);
  }
}

/** For the names of tensors, and what else is there before it is known what the
 * model needs. */
constexpr std::uint64_t kLeastRam = std::uint64_t{8} << 20;

void check_memory(const ConvertOptions& options) {
  require_ram(kLeastRam, "reading what a model has");
  if (options.max_ram && options.device->own_bytes_left()) {
    fail(
        ErrorKind::InvalidInput,
        "[convert] --max-ram limits the memory of the host, and --device {} "
        "has one of its own. Leave --max-ram out, or choose --device cpu.",
        options.device->name());
  }
}

std::unique_ptr<RamLimit> limit_ram(const ConvertOptions& options) {
  return options.max_ram
      ? std::make_unique<RamLimit>(*options.max_ram, scratch_folder())
      : nullptr;
}

// One conversion, step by step.
class Conversion {
 public:
  Conversion(ConvertOptions& options, const ProgressSink& progress)
      : options_(options),
        progress_(progress),
        source_(io::ModelDirectory::open(
            options.source,
            io::QuantizedForm::Values)),
        checkpoint_(models::open_checkpoint(source_)),
        inventory_(take_inventory(checkpoint_, options.plan.group_size)),
        rounder_(
            looks_at_inputs(options)
                ? fitting_rounder([this]() -> auto& { return metrics(); })
                : round_to_nearest) {
    if (is_measured(options)) { // else each matrix is rounded once
      rounder_ = memoized(std::move(rounder_), kMaxRoundedBytes);
    }
    process_bytes_ = peak_rss_bytes();
    result_.source_bytes = source_.file_bytes();
    result_.metadata.tool_version = kVersion;
    result_.metadata.base_model = base_name(options.source);
    result_.metadata.rounding = name_of(rounding_of(options));
    result_.notices = source_notices(checkpoint_, inventory_);
  }

  ShareResult run_share(const Share& share) {
    models::load_model(source_.outline());
    Measurement measurement = make_measurement_within_ram();
    measurement.run_share(
        share, model_digest(source_), make_matrices(), progress_);
    result_.notices.insert(
        result_.notices.end(),
        calibration_->notices.begin(),
        calibration_->notices.end());
    const std::size_t n = calibration_->chunks.size();
    return {share.chunks(n), n, std::move(result_.notices)};
  }

  ConvertResult run() {
    std::optional<StagedDirectory> staged;
    // Config and tensors must fit each other, whatever the method.
    models::load_model(source_.outline());
    if (!options_.load_plan) {
      require_feasible(checkpoint_, inventory_, options_.plan);
    }
    if (!options_.dry_run) {
      // Made before the long work, so that a folder that cannot be written
      // is found out now.
      staged.emplace(
          options_.output,
          StagedOptions{
              .kind = io::model_folder(),
              .replace = options_.overwrite,
              .source = options_.source,
              .place_in_source = {}});
    }
    make_plan_and_metadata();
    if (is_calibrated(options_)) {
      prepare_calibrated();
    }
    if (options_.tune_steps > 0 && !options_.dry_run) {
      tune();
    }
    const artifacts::Plan& plan = result_.metadata.plan;
    const ModelToWrite model{
        source_, checkpoint_, result_.metadata, result_.sensitivity, rounder_};
    result_.mtp_bytes = mtp_bytes(checkpoint_, plan);
    result_.cost.disk_bytes = written_bytes(model);
    result_.cost.ram_bytes = ram_bytes(plan);
    if (options_.save_plan) {
      io::require_apart_from_model(*options_.save_plan, options_.source);
      write_named_file(
          *options_.save_plan,
          artifacts::dump_json(artifacts::to_json(plan), 2));
    }
    if (options_.dry_run) {
      estimate_time();
      return std::move(result_);
    }
    require_ram(writing_room(checkpoint_), "quantizing and writing the model");
    require_disk(staged->path());
    write_model(model, staged->path(), progress_);
    verify_model(model, staged->path());
    try_result(staged->path());
    staged->publish();
    return std::move(result_);
  }

 private:
  /** That stay in memory: none under a limit. */
  std::uint64_t weight_bytes() const {
    return options_.max_ram ? 0 : source_.loaded_bytes();
  }

  /** At the peak; under a limit weights take what is left of it. */
  std::uint64_t ram_bytes(const artifacts::Plan& plan) const {
    const std::uint64_t bytes =
        process_bytes_ + rounded_bytes_ +
        std::max(
            {measuring_bytes_,
             metric_bytes_,
             tuning_bytes_,
             writing_bytes(source_, checkpoint_, plan)});
    return options_.max_ram
        ? std::min(bytes + source_.loaded_bytes(), *options_.max_ram)
        : bytes;
  }

  /** What runs the calibration text whatever the method. */
  void prepare_calibrated() {
    if (!calibration_) {
      note_calibration(calibrate());
    }
    const models::Model& model = *load_setup().model;
    if (looks_at_inputs(options_)) {
      metric_bytes_ =
          weight_bytes() + input_metrics_bytes(model, *calibration_);
    }
    if (options_.tune_steps > 0) {
      tuning_bytes_ = weight_bytes() +
          tuning_bytes(model,
                       *calibration_,
                       result_.metadata.plan.layers,
                       tuning_options());
    }
  }

  TuningOptions tuning_options() const {
    return {.steps = options_.tune_steps, .seed = options_.calibration.seed};
  }

  /** From here on the rounder gives what is tuned. */
  void tune() {
    const models::Setup& setup = load_setup();
    require_ram(tuning_bytes_ - weight_bytes(), "tuning the scales");
    TuningResult tuned = tune_scales(
        setup,
        checkpoint_,
        result_.metadata.plan.layers,
        rounder_,
        *calibration_,
        tuning_options(),
        progress_);
    result_.tuning = tuned.scores;
    result_.metadata.tuned_steps = tuned.scores.best_step;
    if (!tuned.weights.empty()) {
      rounder_ = tuned_rounder(std::move(tuned.weights), std::move(rounder_));
    }
  }

  // What is complete is not given up because this machine could not run it.
  void try_result(const fs::path& directory) {
    try {
      run_one_token(io::ModelDirectory::open(directory));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Exhausted) {
        throw;
      }
      result_.notices.push_back(fmt::format(
          "the result was not tried with a token, memory is too short: {}",
          error.what()));
    }
  }

  void make_plan_and_metadata() {
    artifacts::Metadata& metadata = result_.metadata;
    metadata.reference = dtype_label(checkpoint_, inventory_);
    if (options_.load_plan) {
      metadata.plan = adopt_plan(
          checkpoint_,
          inventory_,
          artifacts::plan_from_json(
              artifacts::read_json_file(
                  *options_.load_plan, artifacts::kListJson),
              options_.load_plan->string()));
      return;
    }
    if (!is_measured(options_)) {
      metadata.plan = make_plan(checkpoint_, inventory_, options_.plan, {});
      return;
    }
    if (options_.dry_run ? !measure_from_cache() : !measure()) {
      PlanOptions rules = options_.plan;
      rules.method = PlanMethod::Static;
      rules.target_kl.reset();
      metadata.plan = make_plan(checkpoint_, inventory_, rules, {});
      result_.notices.emplace_back(
          options_.plan.target_kl
              ? "nothing is measured yet: the plan shown follows the static "
                "rules at a mean of 5 bits; which size --target-kl takes is "
                "not known before"
              : "nothing is measured yet: the plan shown follows the static "
                "rules; the real one will have the same size limit");
      return;
    }
    metadata.plan = choose_plan();
  }

  // The one that is best as a whole, and what moves make of it.
  artifacts::Plan choose_plan() {
    std::vector<artifacts::LayerSensitivity> all = result_.sensitivity->layers;
    all.insert(
        all.end(),
        result_.sensitivity->other_groups.begin(),
        result_.sensitivity->other_groups.end());
    // A weight's pages are let go: it will not be read for a while.
    const MatrixMaker make_matrix =
        [this, make = make_matrices()](
            const std::string& module, int bits, int group_size) {
          kernels::Matrix matrix = make(module, bits, group_size);
          weight_of(checkpoint_, module).drop();
          return matrix;
        };
    PlanJudge judge(load_setup(), make_matrix, *calibration_);
    ChosenPlan chosen =
        plan_choice().choose(judge, all, exchange_chunks_, progress_);
    result_.exchange = chosen.exchange;
    return std::move(chosen.plan);
  }

  PlanChoice plan_choice() const {
    return {checkpoint_, inventory_, options_.plan};
  }

  MeasurementOptions measurement_options() const {
    MeasurementOptions options;
    options.modules = free_modules(inventory_, options_.plan);
    options.candidate_bits = options_.plan.candidate_bits;
    std::erase(options.candidate_bits, artifacts::kDenseBits); // loses nothing
    options.group_size = options_.plan.group_size;
    options.other_group_sizes = options_.plan.other_group_sizes;
    options.budget_forwards = options_.measure_budget;
    options.budget_seconds = options_.time_budget;
    options.form = options_.sensitivity;
    options.seed = options_.calibration.seed;
    options.rounding = rounding_of(options_);
    fit_into_ram(options);
    return options;
  }

  const models::Setup& load_setup() {
    if (!setup_) {
      require_ram(weight_bytes(), "the weights of " + source_.path().string());
      setup_.emplace(
          models::load_model(source_, *options_.device),
          kernels::Compute::Exact);
    }
    return *setup_;
  }

  const Calibration& calibrate() {
    calibration_ = calibrate_model(
        options_.calibration,
        source_,
        options_.dry_run,
        [this]() -> auto& { return load_setup(); },
        progress_);
    return *calibration_;
  }

  // What a rounder goes by that looks at what matrices read.
  const InputMetrics& metrics() {
    if (!metrics_) {
      const models::Setup& setup = load_setup();
      require_ram(
          input_metrics_bytes(*setup.model, *calibration_),
          "what the matrices read on the calibration text");
      metrics_.emplace(
          setup,
          *calibration_,
          InputMetricOptions{
              .has_factors = rounding_of(options_) == Rounding::Gptq},
          progress_);
    }
    return *metrics_;
  }

  Measurement make_measurement(const Calibration& calibration) {
    Measurement measurement(
        load_setup(),
        calibration,
        measurement_options(),
        [this](std::span<const artifacts::LayerSensitivity> measured) {
          return plan_choice().plans(measured);
        });
    note_measuring_bytes(measurement);
    return measurement;
  }

  Measurement make_measurement_within_ram() {
    Measurement measurement = make_measurement(calibrate());
    require_ram(
        measuring_bytes_ + rounded_bytes_,
        "the weights and measuring with them");
    return measurement;
  }

  // Whatever is not in the cache is measured. Always true.
  bool measure() {
    Measurement measurement = make_measurement_within_ram();
    set_sensitivity(measurement.run(
        model_digest(source_), make_matrices(), progress_, result_.notices));
    note_outcome(measurement);
    return true;
  }

  // False when something still has to be measured; says what that would take.
  bool measure_from_cache() {
    Measurement measurement = make_measurement(calibrate());
    if (auto found = measurement.find(model_digest(source_))) {
      set_sensitivity(std::move(*found));
      note_outcome(measurement);
      return true;
    }
    measuring_seconds_ = measuring_seconds(
        load_setup(),
        *calibration_,
        measurement.work(),
        std::size(kPriorWeights) *
            (options_.plan.target_kl ? kTypicalSizes : 1));
    return false;
  }

  void note_outcome(const Measurement& measurement) {
    result_.agreement = measurement.agreement();
    exchange_chunks_ = measurement.chunks_left();
    if (options_.time_budget) {
      result_.notices.push_back(fmt::format(
          "--time-budget {} is {} forwards of the calibration text on this "
          "machine now: --measure-budget {} gives the same result on any",
          *options_.time_budget,
          measurement.budget_forwards(),
          measurement.budget_forwards()));
    }
  }

  void note_measuring_bytes(const Measurement& measurement) {
    measuring_bytes_ = weight_bytes() + measurement.bytes();
    rounded_bytes_ =
        std::min(kMaxRoundedBytes, all_rounded_bytes(measurement_options()));
  }

  // As convert writes them, on the model's device.
  MatrixMaker make_matrices() {
    return matrix_maker(checkpoint_, rounder_, load_setup().model->device());
  }

  // Of every free matrix at every candidate, and of the others at the widest.
  std::uint64_t all_rounded_bytes(const SensitivityOptions& options) const {
    const std::set<std::string> measured(
        options.modules.begin(), options.modules.end());
    std::uint64_t bytes = 0;
    for (const QuantizableModule& module : inventory_.modules) {
      for (const int bits : options.candidate_bits) {
        if (!measured.contains(module.name) &&
            bits != options.candidate_bits.back()) {
          continue;
        }
        for (const int size : group_sizes_for(module.columns, options_.plan)) {
          bytes +=
              quantized_bytes(weight_of(checkpoint_, module.name), bits, size);
        }
      }
    }
    return bytes;
  }

  void note_calibration(const Calibration& calibration) {
    result_.notices.insert(
        result_.notices.end(),
        calibration.notices.begin(),
        calibration.notices.end());
    result_.metadata.calibration = printable(calibration.name);
    result_.metadata.calibration_hash = calibration.hash;
    result_.metadata.calibration_tokens = calibration.n_tokens();
    result_.metadata.compute = "exact";
  }

  void set_sensitivity(artifacts::Sensitivity sensitivity) {
    note_calibration(*calibration_);
    sensitivity.base_model = result_.metadata.base_model;
    result_.sensitivity = std::move(sensitivity);
  }

  void estimate_time() {
    // Of each candidate for the measurement; where they are not kept, of the
    // plans that are compared and of the result too.
    const std::size_t n_again =
        rounded_bytes_ < kMaxRoundedBytes ? 0 : std::size(kPriorWeights) + 1;
    const std::size_t n_passes =
        measuring_seconds_ ? options_.plan.candidate_bits.size() + n_again : 1;
    const double tuning = options_.tune_steps == 0
        ? 0
        : layer_seconds(load_setup(), *calibration_) *
            static_cast<double>(tuning_work(
                *load_setup().model, *calibration_, tuning_options()));
    result_.cost.seconds = measuring_seconds_.value_or(0) + tuning +
        static_cast<double>(n_passes) *
            quantizing_seconds(checkpoint_, result_.metadata.plan);
  }

  void require_disk(const fs::path& staging) const {
    const std::uint64_t free = free_disk_bytes(staging);
    if (free < result_.cost.disk_bytes) {
      fail(
          ErrorKind::Exhausted,
          "[convert] {}: {} free on this disk, expected {} for the result. "
          "Free some space or choose another -o.",
          options_.output.string(),
          artifacts::format_size(free),
          artifacts::format_size(result_.cost.disk_bytes));
    }
  }

  ConvertOptions& options_;
  const ProgressSink& progress_;
  io::ModelDirectory source_;
  models::Checkpoint checkpoint_;
  Inventory inventory_;
  Rounder rounder_;
  std::optional<models::Setup> setup_; // once it is needed
  std::optional<Calibration> calibration_; // once it is needed
  std::optional<InputMetrics> metrics_; // once a matrix is rounded by them
  std::optional<double> measuring_seconds_;
  std::uint64_t exchange_chunks_ = 0; // forwards, once it is measured
  std::uint64_t process_bytes_ = 0; // once the source is open
  std::uint64_t measuring_bytes_ = 0; // of the weights and measuring
  std::uint64_t metric_bytes_ = 0; // of the weights and what matrices read
  std::uint64_t tuning_bytes_ = 0; // of the weights and tuning
  std::uint64_t rounded_bytes_ = 0; // of what the rounder keeps
  ConvertResult result_;
};

} // namespace

ConvertResult convert(ConvertOptions options, const ProgressSink& progress) {
  check_time_budget(options.time_budget);
  check_tune_steps(options.tune_steps);
  validate(options.plan);
  if (options.load_plan) {
    // Its group sizes decide which matrices can be quantized.
    const artifacts::Plan plan = artifacts::plan_from_json(
        artifacts::read_json_file(*options.load_plan, artifacts::kListJson),
        options.load_plan->string());
    options.plan.group_size = plan.group_size;
    for (const artifacts::LayerBits& layer : plan.layers) {
      options.plan.group_size =
          std::min(options.plan.group_size, layer.group_size);
    }
  }
  check_memory(options);
  const auto limit = limit_ram(options);
  return Conversion(options, progress).run();
}

ShareResult measure_share(
    ConvertOptions options,
    const Share& share,
    const ProgressSink& progress) {
  validate(options.plan);
  check_memory(options);
  const auto limit = limit_ram(options);
  return Conversion(options, progress).run_share(share);
}

} // namespace optiq::quant
