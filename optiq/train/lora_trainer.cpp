#include "optiq/train/lora_trainer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"
#include "optiq/base/hash.h"
#include "optiq/train/random.h"
#include "optiq/train/training_data.h"
#include "optiq/train/training_state_impl.h"

namespace optiq::train {
namespace {

constexpr const char* kFunction = "LoraTrainer";

// Streams of random numbers: orders of epochs count from 0, modules from here.
constexpr std::uint64_t kFirstModule = std::uint64_t{1} << 32;
constexpr std::uint64_t kDropout = std::uint64_t{1} << 33; // a seed per forward

void check(const TrainerOptions& options, std::span<const Example> examples) {
  if (examples.empty() || options.batch_size < 1 || options.accumulation < 1 ||
      !(options.learning_rate.peak >= 0.f) || !(options.clip >= 0.f) ||
      !(options.dropout >= 0.f && options.dropout < 1.f)) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] found {} examples, batches of {}, {} of them a step, a learning "
        "rate of {}, a clip of {} and a dropout of {}, expected examples, "
        "positive sizes, numbers of 0 or more and a dropout below 1.",
        kFunction,
        examples.size(),
        options.batch_size,
        options.accumulation,
        options.learning_rate.peak,
        options.clip,
        options.dropout);
  }
}

/** Names, ranks and scales. */
std::string hash_of(const std::vector<TrainedModule>& modules) {
  Sha256 hash;
  for (const TrainedModule& module : modules) {
    hash.update(fmt::format(
        "{} {} {}\n",
        module.shape.module,
        module.shape.rank,
        module.shape.scale));
  }
  return hash.hex_digest();
}

TrainedModule
begin_module(const ModuleRank& shape, std::uint64_t seed, std::uint64_t index) {
  TrainedModule module{.shape = shape};
  module.a.resize(std::size_t{1} * shape.rank * shape.in);
  module.b.resize(std::size_t{1} * shape.rank * shape.out);
  const double bound = 1 / std::sqrt(static_cast<double>(shape.in));
  for (std::size_t i = 0; i < module.a.size(); ++i) {
    module.a[i] = static_cast<float>(
        bound * (2 * random_uniform(seed, kFirstModule + index, i) - 1));
  }
  module.a_mean.resize(module.a.size());
  module.a_square.resize(module.a.size());
  module.b_mean.resize(module.b.size());
  module.b_square.resize(module.b.size());
  return module;
}

/** What the gradient's values add up to, in their order. */
double square_sum(const std::vector<std::vector<float>>& gradients) {
  double sum = 0;
  for (const std::vector<float>& gradient : gradients) {
    for (const float value : gradient) {
      sum += double{value} * double{value};
    }
  }
  return sum;
}

} // namespace

LoraTrainer::LoraTrainer(
    const models::Setup& setup,
    const std::vector<ModuleRank>& plan,
    std::span<const Example> examples,
    const TrainerOptions& options)
    : setup_(setup),
      options_(options),
      examples_(examples),
      examples_hash_(train::hash_of(examples)),
      backpropagation_(
          setup,
          {.recomputes_layers = options.recomputes_layers}) {
  check(options, examples);
  for (const ModuleRank& shape : plan) {
    modules_.push_back(begin_module(shape, options.seed, modules_.size()));
  }
  upload();
}

StepReport LoraTrainer::step() {
  Sum sum;
  for (const TrainedModule& module : modules_) {
    sum.a.emplace_back(module.a.size());
    sum.b.emplace_back(module.b.size());
  }
  for (int part = 0; part < options_.accumulation; ++part) {
    const std::uint64_t number =
        std::uint64_t{1} * steps_done_ * options_.accumulation + part;
    add_batch(
        batch_from(number * options_.batch_size, options_.batch_size),
        number,
        sum);
  }
  const int step = steps_done_ + 1;
  StepReport report{
      .step = step,
      .loss = sum.loss.sum / sum.loss.weight,
      .gradient_norm =
          std::sqrt(square_sum(sum.a) + square_sum(sum.b)) / sum.loss.weight,
      .learning_rate = learning_rate_at(options_.learning_rate, step),
      .tokens = sum.tokens,
      .learned = sum.loss.weight};
  if (!std::isfinite(report.loss) || !std::isfinite(report.gradient_norm)) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] step {}: found a loss of {} with a gradient of norm {}, expected "
        "finite numbers. Train again with a lower learning rate (now {}) or a "
        "smaller clip",
        kFunction,
        step,
        report.loss,
        report.gradient_norm,
        report.learning_rate);
  }
  double scale = 1 / sum.loss.weight;
  if (options_.clip > 0 && report.gradient_norm > double{options_.clip}) {
    scale *= double{options_.clip} / report.gradient_norm;
  }
  for (std::size_t i = 0; i < modules_.size(); ++i) {
    TrainedModule& m = modules_[i];
    const auto update = [&](const AdamTensor& tensor,
                            const std::vector<float>& gradient) {
      adamw_step(
          tensor,
          gradient,
          static_cast<float>(scale),
          report.learning_rate,
          step,
          options_.adam);
    };
    update({m.a, m.a_mean, m.a_square}, sum.a[i]);
    update({m.b, m.b_mean, m.b_square}, sum.b[i]);
  }
  steps_done_ = step;
  upload();
  return report;
}

double LoraTrainer::evaluate(
    std::span<const Example> examples,
    const ProgressSink& sink) {
  double sum = 0;
  double weight = 0;
  for (std::size_t at = 0; at < examples.size(); at += options_.batch_size) {
    if (sink) {
      sink({.stage = "validate", .done = at, .total = examples.size()});
    }
    const std::size_t n =
        std::min<std::size_t>(options_.batch_size, examples.size() - at);
    const Loss loss =
        backpropagation_.evaluate(examples.subspan(at, n), adapter_);
    sum += loss.sum;
    weight += loss.weight;
  }
  return sum / weight;
}

void LoraTrainer::save(const std::filesystem::path& file) const {
  save_training_state({settings(), steps_done_}, modules_, file);
}

void LoraTrainer::resume(const std::filesystem::path& file) {
  std::vector<TrainedModule> modules = modules_;
  const TrainingProgress progress = load_training_state(file, modules);
  if (progress.settings != settings()) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] {}: found the state of a training with other settings, ranks or "
        "examples ({}), expected {}. Resume with the same, or begin anew",
        kFunction,
        file.string(),
        progress.settings,
        settings());
  }
  modules_ = std::move(modules);
  steps_done_ = progress.steps_done;
  upload();
}

std::string LoraTrainer::settings() const {
  const LearningRate& rate = options_.learning_rate;
  const AdamOptions& adam = options_.adam;
  const artifacts::Json json = {
      {"learning_rate", rate.peak},
      {"decay", static_cast<int>(rate.decay)},
      {"warmup_steps", rate.warmup_steps},
      {"total_steps", rate.total_steps},
      {"beta1", adam.beta1},
      {"beta2", adam.beta2},
      {"epsilon", adam.epsilon},
      {"weight_decay", adam.weight_decay},
      {"clip", options_.clip},
      {"batch_size", options_.batch_size},
      {"accumulation", options_.accumulation},
      {"seed", options_.seed},
      {"arithmetic", setup_.model->device().arithmetic()},
      {"compute", kernels::name_of(setup_.compute)},
      {"dropout", options_.dropout},
      {"modules", hash_of(modules_)},
      {"examples", examples_hash_}};
  return json.dump();
}

std::vector<Example> LoraTrainer::batch_from(std::uint64_t first, int n) {
  std::vector<Example> batch;
  for (std::uint64_t i = first; i < first + n; ++i) {
    const std::uint64_t epoch = i / examples_.size();
    if (order_.empty() || epoch != epoch_) {
      order_.resize(examples_.size());
      std::iota(order_.begin(), order_.end(), std::size_t{0});
      const auto key = [&](std::size_t example) {
        return random_bits(options_.seed, epoch, example);
      };
      std::sort(order_.begin(), order_.end(), [&](auto a, auto b) {
        return std::pair(key(a), a) < std::pair(key(b), b);
      });
      epoch_ = epoch;
    }
    batch.push_back(examples_[order_[i % examples_.size()]]);
  }
  return batch;
}

void LoraTrainer::add_batch(
    std::span<const Example> batch,
    std::uint64_t number,
    Sum& sum) {
  const Loss loss = backpropagation_.run(
      batch,
      adapter_,
      {.dropout = {
           .rate = options_.dropout,
           .seed = random_bits(options_.seed, kDropout, number)}});
  sum.loss.sum += loss.sum;
  sum.loss.weight += loss.weight;
  for (const Example& example : batch) {
    sum.tokens += example.tokens.size();
  }
  kernels::Device& device = setup_.model->device();
  const auto add = [&](std::vector<float>& to, const mx::array& gradient) {
    const kernels::HostRows values = device.to_host(gradient);
    std::transform(
        to.begin(), to.end(), values.all().begin(), to.begin(), std::plus<>());
  };
  for (std::size_t i = 0; i < modules_.size(); ++i) {
    const auto found = loss.gradients.find(modules_[i].shape.module);
    if (found != loss.gradients.end()) {
      add(sum.a[i], found->second.a);
      add(sum.b[i], found->second.b);
    }
  }
}

void LoraTrainer::upload() {
  kernels::Device& device = setup_.model->device();
  const auto lay = [&](const std::vector<float>& values, int width) {
    const auto rank = static_cast<int>(values.size()) / width;
    return device.upload(mx::array(values.data(), {rank, width}, mx::float32));
  };
  adapter_.updates.clear();
  for (const TrainedModule& module : modules_) {
    adapter_.updates.insert(
        {module.shape.module,
         {.a = lay(module.a, module.shape.in),
          .b = lay(module.b, module.shape.out),
          .scale = module.shape.scale}});
  }
}

} // namespace optiq::train
