#include "optiq/quant/measurement.h"

#include <algorithm>
#include <map>
#include <utility>

#include "optiq/base/ram_limit.h"
#include "optiq/quant/convert_cost.h"

namespace optiq::quant {
namespace {

using artifacts::SensitivityForm;

// Up to so many bits an estimate may be several times too low: the terms that
// it leaves out are no longer small.
constexpr int kUnsureBits = 2;

bool has_all(
    const SensitivityJournal& journal,
    const SensitivityOptions& options,
    int n_chunks) {
  return std::all_of(
      options.modules.begin(), options.modules.end(), [&](const auto& name) {
        return std::all_of(
            options.candidate_bits.begin(),
            options.candidate_bits.end(),
            [&](int bits) { return journal.has(name, bits, 0, n_chunks); });
      });
}

void copy(
    const SensitivityJournal& from,
    const std::string& module,
    int bits,
    int n_chunks,
    SensitivityJournal& to) {
  std::vector<double> kl;
  kl.reserve(static_cast<std::size_t>(n_chunks));
  for (int chunk = 0; chunk < n_chunks; ++chunk) {
    kl.push_back(from.at(module, bits, chunk));
  }
  to.record(module, bits, 0, kl);
}

void copy_all(
    const SensitivityJournal& from,
    const SensitivityOptions& options,
    int n_chunks,
    SensitivityJournal& to) {
  for (const std::string& module : options.modules) {
    for (const int bits : options.candidate_bits) {
      copy(from, module, bits, n_chunks, to);
    }
  }
}

} // namespace

Measurement::Measurement(
    const models::Setup& setup,
    const Calibration& calibration,
    MeasurementOptions options,
    PlanMaker make_plans)
    : setup_(setup),
      calibration_(calibration),
      options_(std::move(options)),
      make_plans_(std::move(make_plans)),
      groups_(1 + options_.other_group_sizes.size()) {
  std::map<std::string, int> columns;
  for (const models::Module& module : setup.model->modules()) {
    columns[module.name] = module.matrix.in_features();
  }
  std::vector<int> sizes = options_.other_group_sizes;
  sizes.insert(sizes.begin(), options_.group_size);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    groups_[i].options = static_cast<const SensitivityOptions&>(options_);
    groups_[i].options.group_size = sizes[i];
    std::erase_if(groups_[i].options.modules, [&](const std::string& name) {
      return columns[name] % sizes[i] != 0;
    });
  }
}

std::uint64_t Measurement::bytes() const {
  const std::uint64_t measuring =
      sensitivity_bytes(setup_, calibration_, options_);
  if (options_.form == SensitivityForm::Exact) {
    return measuring;
  }
  std::vector<int> sizes;
  for (const Group& group : groups_) {
    sizes.push_back(group.options.group_size);
  }
  const std::uint64_t estimating = fast_sensitivity_bytes(
      *setup_.model, calibration_, fast_options(), sizes);
  return options_.form == SensitivityForm::Fast
      ? estimating
      : std::max(estimating, measuring);
}

std::uint64_t Measurement::work() const {
  if (options_.form == SensitivityForm::Exact) {
    std::uint64_t work = 0;
    for (const Group& group : groups_) {
      work += sensitivity_work(setup_, calibration_, group.options);
    }
    return work;
  }
  const std::uint64_t estimating =
      fast_sensitivity_work(*setup_.model, calibration_);
  return options_.form == SensitivityForm::Fast
      ? estimating
      : estimating + budget_forwards() * forward_work();
}

std::uint64_t Measurement::forward_work() const {
  return calibration_.n_tokens() *
      static_cast<std::uint64_t>(setup_.model->info().n_layers + 1);
}

std::uint64_t Measurement::budget_forwards() const {
  if (options_.form != SensitivityForm::Auto) {
    return 0;
  }
  if (!budget_) {
    budget_ = options_.budget_forwards;
  }
  if (!budget_ && options_.budget_seconds) {
    const double forward = layer_seconds(setup_, calibration_) *
        static_cast<double>(forward_work());
    budget_ = static_cast<std::uint64_t>(*options_.budget_seconds / forward);
  }
  if (!budget_) {
    budget_ =
        fast_sensitivity_work(*setup_.model, calibration_) / forward_work();
  }
  return *budget_;
}

std::uint64_t Measurement::chunks_left() const {
  return left_ * calibration_.chunks.size() / forward_work();
}

artifacts::Sensitivity Measurement::run(
    const std::string& model_digest,
    const MatrixMaker& make_matrix,
    const ProgressSink& progress,
    std::vector<std::string>& notices) {
  for (Group& group : groups_) {
    const int size = group.options.group_size;
    if (is_estimated()) {
      group.estimated =
          open_sensitivity_journal(key_of(model_digest, size, true), notices);
    }
    if (options_.form != SensitivityForm::Fast) {
      group.measured =
          open_sensitivity_journal(key_of(model_digest, size, false), notices);
    }
  }
  const Maker maker{make_matrix, progress};
  make_all(&maker);
  return result(model_digest);
}

std::optional<artifacts::Sensitivity> Measurement::find(
    const std::string& model_digest) {
  for (Group& group : groups_) {
    const int size = group.options.group_size;
    group.estimated =
        find_sensitivity_journal(key_of(model_digest, size, true));
    group.measured =
        find_sensitivity_journal(key_of(model_digest, size, false));
  }
  return make_all(nullptr) ? std::optional(result(model_digest)) : std::nullopt;
}

void Measurement::run_share(
    const Share& share,
    const std::string& model_digest,
    const MatrixMaker& make_matrix,
    const ProgressSink& progress) {
  const ChunkRange chunks = share.chunks(calibration_.chunks.size());
  std::vector<GroupJournal> journals;
  for (Group& group : groups_) {
    std::unique_ptr<SensitivityJournal>& journal =
        is_estimated() ? group.estimated : group.measured;
    const int size = group.options.group_size;
    journal =
        open_share_journal(key_of(model_digest, size, is_estimated()), share);
    if (is_estimated()) {
      journals.push_back({size, journal.get()});
    } else {
      group.options.chunks = chunks;
      measure_all_widths(
          setup_, make_matrix, calibration_, group.options, *journal, progress);
    }
  }
  if (is_estimated()) {
    FastOptions options = fast_options();
    options.chunks = chunks;
    estimate_sensitivity(
        setup_, make_matrix, calibration_, options, journals, progress);
  }
}

std::optional<RankAgreement> Measurement::agreement() const {
  std::vector<double> estimates;
  std::vector<double> truth;
  const auto n = static_cast<int>(calibration_.chunks.size());
  for (const Choice& choice : settled_) {
    for (const Group& group : groups_) {
      if (group.options.group_size == choice.group_size &&
          choice.bits > kUnsureBits && n > 0) {
        const auto mean = [&](const SensitivityJournal& journal) {
          return mean_over_chunks(
                     calibration_, journal, choice.module, choice.bits)
              .kl;
        };
        estimates.push_back(mean(*group.estimated));
        truth.push_back(mean(*group.measured));
      }
    }
  }
  return truth.size() < 2 ? std::nullopt
                          : std::optional(rank_agreement(estimates, truth));
}

bool Measurement::is_estimated() const {
  return options_.form != SensitivityForm::Exact;
}

std::string Measurement::key_of(
    const std::string& model_digest,
    int group_size,
    bool is_estimated) const {
  std::string form =
      is_estimated ? "fast, labels " + std::to_string(options_.seed) : "exact";
  if (options_.rounding != Rounding::Nearest) { // which goes without saying
    form += std::string(", rounding ") + name_of(options_.rounding);
    if (options_.rounding == Rounding::Gptq) {
      form += ", damping held out"; // how it has come to its codes since
    }
  }
  return sensitivity_key(
      model_digest,
      {.calibration_hash = calibration_.hash,
       .group_size = group_size,
       .compute = setup_.compute,
       .arithmetic = setup_.model->device().arithmetic(),
       .form = std::move(form)});
}

bool Measurement::make_all(const Maker* maker) {
  if (!is_estimated()) {
    return measure_all(maker);
  }
  return estimate(maker) &&
      (options_.form == SensitivityForm::Fast || settle(maker));
}

bool Measurement::measure_all(const Maker* maker) {
  const auto n = static_cast<int>(calibration_.chunks.size());
  for (Group& group : groups_) {
    if (maker != nullptr) {
      measure_all_widths(
          setup_,
          maker->make_matrix,
          calibration_,
          group.options,
          *group.measured,
          maker->progress);
    } else if (!has_all(*group.measured, group.options, n)) {
      return false;
    }
    copy_all(*group.measured, group.options, n, group.settled);
  }
  return true;
}

bool Measurement::estimate(const Maker* maker) {
  const auto n = static_cast<int>(calibration_.chunks.size());
  if (maker != nullptr) {
    std::vector<GroupJournal> journals;
    for (const Group& group : groups_) {
      journals.push_back({group.options.group_size, group.estimated.get()});
    }
    estimate_sensitivity(
        setup_,
        maker->make_matrix,
        calibration_,
        fast_options(),
        journals,
        maker->progress);
  }
  for (Group& group : groups_) {
    if (!has_all(*group.estimated, group.options, n)) {
      return false;
    }
    copy_all(*group.estimated, group.options, n, group.settled);
  }
  return true;
}

bool Measurement::settle(const Maker* maker) {
  const std::uint64_t budget = budget_forwards() * forward_work();
  std::uint64_t left = budget / 2; // the other half is for whole plans
  for (;;) {
    const std::vector<artifacts::Plan> plans = make_plans_(summarize());
    std::vector<Choice> choices = unsure_choices(plans);
    if (choices.empty()) {
      choices = disputed_choices(plans, left);
    }
    if (choices.empty()) {
      left_ = budget - budget / 2 + left;
      return true;
    }
    if (!measure(choices, maker)) {
      return false;
    }
    left -= std::min(left, work_of(choices));
  }
}

bool Measurement::measure(
    const std::vector<Choice>& choices,
    const Maker* maker) {
  const auto n = static_cast<int>(calibration_.chunks.size());
  for (Group& group : groups_) {
    WidthsByModule widths;
    for (const Choice& choice : choices) {
      if (choice.group_size == group.options.group_size) {
        widths[choice.module].push_back(choice.bits);
      }
    }
    if (widths.empty()) {
      continue;
    }
    if (maker != nullptr) {
      measure_widths(
          setup_,
          maker->make_matrix,
          calibration_,
          group.options,
          widths,
          *group.measured,
          maker->progress);
    }
    for (const auto& [module, all_bits] : widths) {
      for (const int bits : all_bits) {
        if (!group.measured->has(module, bits, 0, n)) {
          return false;
        }
        copy(*group.measured, module, bits, n, group.settled);
      }
    }
  }
  settled_.insert(choices.begin(), choices.end());
  return true;
}

void Measurement::add_open_choice(
    const artifacts::LayerBits& layer,
    std::vector<Choice>& choices) const {
  const Choice choice{layer.group_size, layer.name, layer.bits};
  if (!layer.is_protected && layer.bits != artifacts::kDenseBits &&
      !settled_.contains(choice) &&
      std::find(choices.begin(), choices.end(), choice) == choices.end()) {
    choices.push_back(choice);
  }
}

std::vector<Measurement::Choice> Measurement::unsure_choices(
    const std::vector<artifacts::Plan>& plans) const {
  std::vector<Choice> choices;
  for (const artifacts::Plan& plan : plans) {
    for (const artifacts::LayerBits& layer : plan.layers) {
      if (layer.bits <= kUnsureBits) {
        add_open_choice(layer, choices);
      }
    }
  }
  return choices;
}

std::vector<Measurement::Choice> Measurement::disputed_choices(
    const std::vector<artifacts::Plan>& plans,
    std::uint64_t budget) const {
  std::vector<Choice> choices;
  const std::vector<artifacts::LayerBits>& first = plans.front().layers;
  for (const artifacts::Plan& plan : plans) {
    for (std::size_t i = 0; i < first.size(); ++i) {
      const artifacts::LayerBits& other = plan.layers[i];
      if (other.bits == first[i].bits &&
          other.group_size == first[i].group_size) {
        continue;
      }
      std::vector<Choice> more = choices;
      add_open_choice(first[i], more);
      add_open_choice(other, more);
      if (work_of(more) <= budget) {
        choices = std::move(more);
      }
    }
  }
  return choices;
}

std::uint64_t Measurement::work_of(const std::vector<Choice>& choices) const {
  std::uint64_t work = 0;
  for (const Group& group : groups_) {
    WidthsByModule widths;
    for (const Choice& choice : choices) {
      if (choice.group_size == group.options.group_size) {
        widths[choice.module].push_back(choice.bits);
      }
    }
    work += widths.empty() ? 0 : widths_work(setup_, calibration_, widths);
  }
  return work;
}

FastOptions Measurement::fast_options() const {
  FastOptions options{
      .modules = options_.modules,
      .candidate_bits = options_.candidate_bits,
      .seed = options_.seed};
  if (const auto left = RamLimit::left()) {
    options.max_kept_bytes =
        std::min<std::uint64_t>(options.max_kept_bytes, *left / 8);
  }
  return options;
}

std::vector<artifacts::LayerSensitivity> Measurement::summarize() const {
  std::vector<artifacts::LayerSensitivity> all;
  for (const Group& group : groups_) {
    const auto of_group = summarize_sensitivity(
        *setup_.model, calibration_, group.options, group.settled);
    all.insert(all.end(), of_group.begin(), of_group.end());
  }
  return all;
}

artifacts::Sensitivity Measurement::result(
    const std::string& model_digest) const {
  artifacts::Sensitivity sensitivity{
      .base_model = {},
      .candidate_bits = options_.candidate_bits,
      .group_size = options_.group_size,
      .key = key_of(model_digest, options_.group_size, is_estimated()),
      .form = options_.form,
      .layers = {},
      .other_groups = {}};
  for (artifacts::LayerSensitivity& layer : summarize()) {
    (layer.group_size == options_.group_size ? sensitivity.layers
                                             : sensitivity.other_groups)
        .push_back(std::move(layer));
  }
  return sensitivity;
}

} // namespace optiq::quant
