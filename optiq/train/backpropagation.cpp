#include "optiq/train/backpropagation.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>

#include "optiq/artifacts/module_id.h"
#include "optiq/base/error.h"
#include "optiq/io/spilled.h"
#include "optiq/models/forward.h"
#include "optiq/models/on_device.h"

namespace optiq::train {
namespace {

constexpr const char* kFunction = "Backpropagation";

void check_batch(std::span<const Example> batch, int vocab_size) {
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const Example& example = batch[i];
    if (example.tokens.empty() ||
        example.labels.size() != example.tokens.size() ||
        example.weights.size() != example.tokens.size()) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] example {}: found {} tokens, {} labels and {} weights, expected "
          "one of each per token, and a token.",
          kFunction,
          i,
          example.tokens.size(),
          example.labels.size(),
          example.weights.size());
    }
    for (std::size_t t = 0; t < example.tokens.size(); ++t) {
      const std::int32_t label = example.labels[t];
      if (example.weights[t] != 0.f && (label < 0 || label >= vocab_size)) {
        fail(
            ErrorKind::InvalidInput,
            "[{}] example {}: found label {}, expected a token below {}.",
            kFunction,
            i,
            label,
            vocab_size);
      }
    }
  }
}

/** Modules are numbered by name: the order of an adapter's is anybody's. */
Dropout make_dropout(
    const nn::Adapter& adapter,
    const DropoutOptions& options) {
  Dropout dropout(options);
  std::map<std::string_view, const mx::array*> by_name;
  for (const auto& [name, change] : adapter.updates) {
    by_name.emplace(name, &change.a);
  }
  std::uint64_t number = 0;
  for (const auto& [name, a] : by_name) {
    dropout.add_module(*a, number++);
  }
  return dropout;
}

bool shares_kv(const models::Setup& setup) {
  return std::any_of(
      setup.layout.begin(),
      setup.layout.end(),
      [](const cache::LayerFormat& format) {
        return std::holds_alternative<cache::SharedFormat>(format);
      });
}

/** The first layer of which something is trained; -1 before all of them. */
int first_trained_layer(const nn::Adapter& adapter, int n_layers) {
  int first = n_layers;
  for (const auto& [name, change] : adapter.updates) {
    const artifacts::ModuleId id = artifacts::module_id(name);
    const bool is_head = id.role == artifacts::ModuleRole::Head;
    first = std::min(first, is_head ? n_layers : id.layer);
  }
  return first;
}

/** The rows of a batch that cost something. */
struct LabeledRows {
  std::vector<int> rows; // ascending, of the flat batch
  std::vector<std::int32_t> labels;
  std::vector<float> weights;

  explicit LabeledRows(std::span<const Example> batch) {
    int row = 0;
    for (const Example& example : batch) {
      for (std::size_t t = 0; t < example.tokens.size(); ++t, ++row) {
        if (example.weights[t] != 0.f) {
          rows.push_back(row);
          labels.push_back(example.labels[t]);
          weights.push_back(example.weights[t]);
        }
      }
    }
  }
};

} // namespace

/** One batch on its way through the model and back. */
class Backpropagation::Step {
 public:
  Step(
      Backpropagation& owner,
      std::span<const Example> batch,
      const nn::Adapter& adapter,
      const PassOptions& options = {})
      : tape_(owner.tape_),
        options_(owner.options_),
        model_(*owner.noted_.model),
        forward_(owner.noted_),
        labeled_(batch),
        sampler_(options.sampler),
        loss_(options.loss) {
    for (const Example& example : batch) {
      forward_.add_fresh(example.tokens, &adapter);
      tokens_.insert(
          tokens_.end(), example.tokens.begin(), example.tokens.end());
    }
  }

  /** Forward, and the loss with what it asks of the last layer. */
  Loss run_forward(bool is_differentiated, bool keeps_notes) {
    tape_.note(is_differentiated);
    inputs_.push_back(model_.embed(tokens_));
    forward_.run_layers(0, 0, inputs_.front()); // makes what layers get besides
    before_layers_ = tape_.position();
    tape_.note(keeps_notes);
    const int n_layers = model_.info().n_layers;
    mx::array x = inputs_.front();
    for (int layer = 0; layer < n_layers; ++layer) {
      x = forward_.run_layers(layer, layer + 1, std::move(x));
      if (is_differentiated && !keeps_notes) {
        x = io::spilled(x);
        inputs_.push_back(x);
        tape_.finish({&x, 1});
      }
    }
    tape_.note(false);
    return run_head(x, is_differentiated);
  }

  /** Back through noted layers. */
  void go_back() {
    tape_.go_back(0);
  }

  /** Back through the layers down to `first`, each of which runs again. */
  void go_back_layer_by_layer(int first) {
    for (int layer = model_.info().n_layers - 1; layer >= std::max(first, 0);
         --layer) {
      const mx::array x = inputs_[layer];
      std::optional<mx::array> dy = tape_.take_gradient(inputs_[layer + 1]);
      inputs_.pop_back();
      if (!dy) {
        continue;
      }
      if (layer > first) {
        tape_.watch(x);
      }
      tape_.note(true);
      const mx::array y = forward_.run_layers(layer, layer + 1, x);
      tape_.add_gradient(y, *dy);
      tape_.go_back(before_layers_);
      dy.reset();
      if (layer > first) {
        finish_gradient(x);
      }
    }
    tape_.go_back(0);
  }

 private:
  void finish_gradient(const mx::array& x) {
    if (const auto dx = tape_.take_gradient(x)) {
      tape_.finish({&*dx, 1});
      tape_.add_gradient(x, *dx);
    }
  }

  /** Logits, loss and dL/dx of the last layer's rows, some at a time. */
  Loss run_head(const mx::array& x, bool is_differentiated) {
    Loss loss;
    std::vector<mx::array> gradients;
    const auto n = static_cast<int>(labeled_.rows.size());
    if (n == 0) {
      return loss;
    }
    const mx::array picked = tape_.take_rows(x, labeled_.rows);
    for (int at = 0; at < n; at += options_.logit_rows) {
      const int rows = std::min(options_.logit_rows, n - at);
      const mx::array part = tape_.row_range(picked, at, rows);
      const mx::array dpart = run_logits(part, at, is_differentiated, loss);
      gradients.push_back(dpart);
    }
    if (is_differentiated) {
      kernels::Device& device = tape_.inner();
      tape_.add_gradient(
          x,
          device.gradients().take_rows(
              device.concatenate(gradients), labeled_.rows, x.shape(0)));
    }
    return loss;
  }

  /** dL/d part, or part itself where nothing is differentiated. */
  mx::array run_logits(
      const mx::array& part,
      int at,
      bool is_differentiated,
      Loss& loss) {
    const std::size_t rows = part.shape(0);
    const std::size_t position = tape_.position();
    tape_.watch(part);
    tape_.note(is_differentiated);
    const mx::array logits =
        forward_.logits(part, std::span(labeled_.rows).subspan(at, rows));
    if (sampler_) {
      const std::vector<std::int32_t> drawn = sampler_(logits, at);
      std::copy(drawn.begin(), drawn.end(), labeled_.labels.begin() + at);
    }
    const std::span weights = std::span(labeled_.weights).subspan(at, rows);
    const kernels::LogitLoss found = loss_
        ? loss_(logits, at, weights)
        : tape_.inner().gradients().cross_entropy(
              logits, std::span(labeled_.labels).subspan(at, rows), weights);
    for (std::size_t i = 0; i < rows; ++i) {
      loss.sum += double{weights[i]} * found.losses[i];
      loss.weight += double{weights[i]};
    }
    if (is_differentiated) {
      tape_.add_gradient(logits, found.gradient);
    }
    tape_.go_back(position);
    return tape_.take_gradient(part).value_or(part);
  }

  Tape& tape_;
  const BackpropagationOptions& options_;
  const models::Model& model_;
  models::Forward forward_;
  LabeledRows labeled_;
  LabelSampler sampler_; // or nothing
  LossOfLogits loss_; // or the labels' cross entropy
  std::vector<std::int32_t> tokens_; // [T]
  std::size_t before_layers_ = 0; // on the tape
  /** Of layers that run again what each reads, [T, hidden], and what the last
   * one gave. */
  std::vector<mx::array> inputs_;
};

Backpropagation::Backpropagation(
    const models::Setup& setup,
    BackpropagationOptions options)
    : setup_(setup),
      options_(options),
      tape_(setup.model->device()),
      noted_(setup.with_model(models::run_on(*setup.model, tape_))) {
  tape_.keep_kv(shares_kv(setup));
}

Loss Backpropagation::run(
    std::span<const Example> batch,
    const nn::Adapter& adapter,
    const PassOptions& options) {
  const int n_layers = setup_.model->info().n_layers;
  check_batch(batch, setup_.model->info().vocab_size);
  tape_.forget();
  tape_.watch_weights(options.visitor);
  tape_.drop_out(make_dropout(adapter, options.dropout));
  for (const auto& [name, change] : adapter.updates) {
    tape_.watch(change.a);
    tape_.watch(change.b);
  }
  Step step(*this, batch, adapter, options);
  Loss loss = step.run_forward(true, !options_.recomputes_layers);
  if (options_.recomputes_layers) {
    step.go_back_layer_by_layer(
        options.visitor ? -1 : first_trained_layer(adapter, n_layers));
  } else {
    step.go_back();
  }
  take_gradients(adapter, loss);
  return loss;
}

Loss Backpropagation::evaluate(
    std::span<const Example> batch,
    const nn::Adapter& adapter) {
  check_batch(batch, setup_.model->info().vocab_size);
  tape_.forget();
  tape_.drop_out({});
  return Step(*this, batch, adapter).run_forward(false, false);
}

void Backpropagation::take_gradients(const nn::Adapter& adapter, Loss& loss) {
  std::vector<mx::array> all;
  for (const auto& [name, change] : adapter.updates) {
    const auto a = tape_.take_gradient(change.a);
    const auto b = tape_.take_gradient(change.b);
    if (loss.weight != 0 && (!a || !b)) {
      fail(
          ErrorKind::NotFound,
          "[{}] adapter: found module '{}', expected one that the model runs.",
          kFunction,
          name);
    }
    if (a && b) {
      loss.gradients.insert({name, {*a, *b}});
      all.insert(all.end(), {*a, *b});
    }
  }
  tape_.finish(all);
}

} // namespace optiq::train
