#include "optiq/quant/sweep.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include <fmt/format.h>

#include "optiq/artifacts/affine_format.h"
#include "optiq/artifacts/size.h"
#include "optiq/base/error.h"
#include "optiq/base/printable.h"
#include "optiq/eval/dataset.h"
#include "optiq/eval/exact_match.h"
#include "optiq/eval/kl.h"
#include "optiq/eval/perplexity.h"
#include "optiq/generate/defaults.h"
#include "optiq/kernels/machine.h"
#include "optiq/models/model_map.h"
#include "optiq/quant/inventory.h"
#include "optiq/quant/plan.h"

namespace optiq::quant {
namespace {

namespace fs = std::filesystem;
using artifacts::EvalResult;
using artifacts::PlanMethod;
using artifacts::SweepPoint;

constexpr std::size_t kMaxSizes = 1000;

std::string name_of(const fs::path& path) {
  const fs::path whole = fs::weakly_canonical(path);
  return printable(
      (whole.has_filename() ? whole : whole.parent_path()).filename().string());
}

/** Whether every row wants a number. */
bool has_answers(const eval::Dataset& dataset) {
  return !dataset.rows.empty() &&
      std::all_of(
          dataset.rows.begin(), dataset.rows.end(), [](const auto& row) {
            return !row.value.empty() ||
                row.answer.find("####") != std::string::npos;
          });
}

/** A data set in the source's tokens, and what the source says of it. */
struct Subject {
  eval::Dataset dataset;
  std::vector<eval::TokenRow> rows;
  std::vector<eval::TokenRow> questions; // none without answers
  std::vector<std::string> wanted;
  std::unique_ptr<eval::KlReference> reference;
};

/** Measures models by the source. */
class Judge {
 public:
  Judge(const SweepOptions& options, const ProgressSink& progress)
      : options_(options),
        progress_(progress),
        directory_(io::ModelDirectory::open(
            options.convert.source,
            io::QuantizedForm::Values)),
        reference_(models::load_model(directory_), kernels::Compute::Exact),
        tokenizer_(generate::load_tokenizer(directory_)),
        stop_ids_(generate::stop_ids(directory_, *tokenizer_)) {
    for (const fs::path& file : options.data) {
      subjects_.push_back(read(file));
    }
  }

  const io::ModelDirectory& source() const {
    return directory_;
  }

  std::vector<std::string> data() const {
    std::vector<std::string> names;
    for (const Subject& subject : subjects_) {
      names.push_back(subject.dataset.name);
    }
    return names;
  }

  SweepPoint
  measure(const fs::path& model, std::string series, std::string label) const {
    const auto directory = io::ModelDirectory::open(model);
    const artifacts::ModelMap map = models::map_model(directory);
    SweepPoint point{
        .series = std::move(series),
        .label = std::move(label),
        .bytes = artifacts::file_bytes(map),
        .file_bpw = artifacts::file_bpw(
            artifacts::file_bytes(map), artifacts::parameters(map)),
        .results = {}};
    const std::shared_ptr<const models::Model> loaded =
        models::load_model(directory);
    const models::Setup exact(loaded, kernels::Compute::Exact);
    const models::Setup fast(loaded, kernels::Compute::Fast);
    for (const Subject& subject : subjects_) {
      const auto add = [&](auto scores, kernels::Compute compute) {
        point.results.push_back(
            result_of(point, subject, compute, std::move(scores)));
      };
      add(subject.reference->compare(exact), kernels::Compute::Exact);
      add(eval::measure_perplexity(
              exact, subject.rows, {.on_progress = progress_}),
          kernels::Compute::Exact);
      if (!subject.questions.empty()) {
        add(eval::measure_exact_match(
                fast,
                *tokenizer_,
                subject.questions,
                subject.wanted,
                {.clamp_max_tokens = true,
                 .stop_ids = stop_ids_,
                 .on_progress = progress_}),
            kernels::Compute::Fast);
      }
    }
    return point;
  }

  /** Throws InvalidInput where a model reads the data as other tokens. */
  void require_same_tokens(const fs::path& model) const {
    const auto directory = io::ModelDirectory::open(model);
    const auto tokenizer = generate::load_tokenizer(directory);
    for (const Subject& subject : subjects_) {
      eval::require_same_tokens(
          encode(directory, *tokenizer, subject.dataset),
          subject.rows,
          model.string(),
          options_.convert.source.string(),
          subject.dataset.name);
    }
  }

 private:
  std::vector<eval::TokenRow> encode(
      const io::ModelDirectory& directory,
      const text::Tokenizer& tokenizer,
      const eval::Dataset& dataset) const {
    std::optional<text::ChatTemplate> chat;
    if (!dataset.rows.empty()) {
      chat = generate::load_chat_template(directory);
    }
    return eval::encode_dataset(
        dataset,
        tokenizer,
        chat ? &*chat : nullptr,
        std::nullopt,
        options_.limit);
  }

  Subject read(const fs::path& file) const {
    Subject subject;
    subject.dataset = eval::load_dataset(file, options_.limit);
    subject.rows = encode(directory_, *tokenizer_, subject.dataset);
    if (has_answers(subject.dataset)) {
      subject.questions = eval::encode_chats(
          eval::render_questions(
              subject.dataset, generate::load_chat_template(directory_)),
          *tokenizer_);
      subject.wanted = eval::wanted_numbers(subject.dataset);
    }
    // Rows stay where they are when the subject is moved.
    subject.reference = std::make_unique<eval::KlReference>(
        reference_,
        subject.rows,
        eval::KlOptions{.on_progress = progress_},
        true);
    return subject;
  }

  template <typename Scores>
  EvalResult result_of(
      const SweepPoint& point,
      const Subject& subject,
      kernels::Compute compute,
      Scores scores) const {
    const bool is_kl = std::is_same_v<Scores, artifacts::KlScores>;
    const std::string device = reference_.model->device().name();
    return {
        .model = point.series + " " + point.label,
        .reference = is_kl ? name_of(options_.convert.source) : "",
        .data = subject.dataset.name,
        .compute = kernels::name_of(compute),
        .device = device,
        .reference_device = is_kl ? device : "",
        .simd = kernels::simd_target(),
        .limit = options_.limit,
        .scores = std::move(scores)};
  }

  const SweepOptions& options_;
  const ProgressSink& progress_;
  io::ModelDirectory directory_;
  models::Setup reference_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::vector<std::int32_t> stop_ids_;
  std::vector<Subject> subjects_;
};

/** What is converted. */
struct Entry {
  std::string label;
  PlanOptions plan;
};

std::vector<Entry> sized_entries(
    const SweepOptions& options,
    const Judge& judge,
    PlanMethod method,
    std::vector<std::string>& notices) {
  const models::Checkpoint checkpoint = models::open_checkpoint(judge.source());
  PlanOptions plan = options.convert.plan;
  plan.method = method;
  if (method != PlanMethod::Optiq && !plan.other_group_sizes.empty()) {
    // Only optiq weighs them.
    plan.group_size = artifacts::kDefaultGroupSize;
    plan.other_group_sizes.clear();
  }
  const Inventory inventory = take_inventory(checkpoint, plan.group_size);
  const SizeRange range = size_range(checkpoint, inventory, plan);
  std::vector<Entry> entries;
  std::string left_out;
  for (const double bpw : sizes_of(options.range)) {
    plan.target_file_bpw = bpw;
    if (*byte_target(inventory, plan) < range.low) {
      left_out += fmt::format("{}{:g}", left_out.empty() ? "" : ", ", bpw);
    } else {
      entries.push_back({fmt::format("{:g}", bpw), plan});
    }
  }
  if (!left_out.empty()) {
    notices.push_back(fmt::format(
        "{} has no plan at {} bits per weight: with these candidates{} it takes "
        "{} bytes",
        artifacts::name_of(method),
        left_out,
        plan.protect ? " and protection" : "",
        range.low));
  }
  return entries;
}

std::vector<Entry> uniform_entries(
    const SweepOptions& options,
    const Judge& judge) {
  const models::Checkpoint checkpoint = models::open_checkpoint(judge.source());
  std::vector<Entry> entries;
  for (const int group_size : group_sizes_of(options.convert.plan)) {
    const Inventory inventory = take_inventory(checkpoint, group_size);
    for (const int bits : artifacts::kAffineBits) {
      PlanOptions plan;
      plan.method = PlanMethod::Uniform;
      plan.uniform_bits = bits;
      plan.group_size = group_size;
      validate(plan);
      const double bpw = make_plan(checkpoint, inventory, plan, {}).file_bpw;
      if (bpw >= options.range.low && bpw <= options.range.high) {
        entries.push_back(
            {fmt::format("{} bits, groups of {}", bits, group_size), plan});
      }
    }
  }
  return entries;
}

void add_new(
    const std::vector<std::string>& more,
    std::vector<std::string>& notices) {
  for (const std::string& notice : more) {
    if (std::find(notices.begin(), notices.end(), notice) == notices.end()) {
      notices.push_back(notice);
    }
  }
}

} // namespace

std::vector<double> sizes_of(const SweepRange& range) {
  // Not comparisons that NaN passes.
  if (!(range.low > 0 && range.low <= range.high && range.high <= 64 &&
        range.step > 0)) {
    fail(
        ErrorKind::InvalidInput,
        "[sweep] --file-bpw {}:{}:{}: expected LOW:HIGH:STEP in bits per "
        "weight, 0 < LOW <= HIGH <= 64 and STEP above 0.",
        range.low,
        range.high,
        range.step);
  }
  const double count = std::floor((range.high - range.low) / range.step + 1e-9);
  if (count >= kMaxSizes) {
    fail(
        ErrorKind::InvalidInput,
        "[sweep] --file-bpw {}:{}:{}: found {:.0f} sizes, expected at most {}.",
        range.low,
        range.high,
        range.step,
        count + 1,
        kMaxSizes);
  }
  std::vector<double> sizes;
  for (int i = 0; i <= static_cast<int>(count); ++i) {
    sizes.push_back(range.low + i * range.step);
  }
  return sizes;
}

artifacts::Sweep run_sweep(
    const SweepOptions& options,
    const fs::path& workspace,
    const ProgressSink& progress) {
  SweepOptions checked = options;
  checked.convert.plan.target_file_bpw = options.range.low; // any
  validate(checked.convert.plan);
  sizes_of(options.range);
  const Judge judge(checked, progress);
  for (const fs::path& model : options.also) {
    judge.require_same_tokens(model);
  }
  artifacts::Sweep sweep{
      .base_model = name_of(options.convert.source),
      .base_bytes = judge.source().file_bytes(),
      .data = judge.data(),
      .points = {},
      .notices = {}};
  std::vector<std::pair<PlanMethod, Entry>> entries;
  const auto add = [&](PlanMethod method, const std::vector<Entry>& more) {
    for (const Entry& entry : more) {
      entries.emplace_back(method, entry);
    }
  };
  for (const PlanMethod method : {PlanMethod::Optiq, PlanMethod::Static}) {
    add(method, sized_entries(checked, judge, method, sweep.notices));
  }
  add(PlanMethod::Uniform, uniform_entries(checked, judge));
  const std::size_t total = entries.size() + options.also.size();
  const auto report = [&](const std::string& detail) {
    if (progress) {
      progress({"sweep", sweep.points.size(), total, detail});
    }
  };
  for (const auto& [method, entry] : entries) {
    report(std::string(artifacts::name_of(method)) + " " + entry.label);
    ConvertOptions conversion = checked.convert;
    conversion.plan = entry.plan;
    conversion.output = workspace / "model";
    conversion.overwrite = true; // what a sweep that was killed has left
    add_new(convert(conversion, progress).notices, sweep.notices);
    sweep.points.push_back(judge.measure(
        conversion.output, artifacts::name_of(method), entry.label));
    fs::remove_all(conversion.output);
  }
  for (const fs::path& model : options.also) {
    report(name_of(model));
    sweep.points.push_back(judge.measure(model, name_of(model), "as it is"));
  }
  report("");
  return sweep;
}

} // namespace optiq::quant
