#include "optiq/quant/fast_sensitivity.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "optiq/base/error.h"
#include "optiq/base/thread_pool.h"
#include "optiq/kernels/gradients.h"
#include "optiq/quant/gradient_pass.h"
#include "optiq/quant/label_sampler.h"
#include "optiq/quant/rounding_errors.h"
#include "optiq/train/backpropagation.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

/** A matrix whose sensitivity is estimated. */
struct Target {
  std::string name;
  int in = 0;
  /** Embeddings and head: their rows of logits are drawn independently. */
  bool is_outer = false;
  int fold = 0; // the least group size
  std::vector<RoundingErrors> errors; // of every group size and width
  std::vector<double> sums; // of the present chunk, one per entry of errors
};

/** sum over a row's groups of squares x mean squares. */
double row_error(
    const float* squares,
    int fold,
    const mx::bfloat16_t* mean_squares,
    int group_size,
    int in) {
  const int ratio = group_size / fold;
  double sum = 0;
  for (int g = 0; g < in / group_size; ++g) {
    float group = 0;
    for (int i = 0; i < ratio; ++i) {
      group += squares[g * ratio + i];
    }
    sum += double{group} * static_cast<float>(mean_squares[g]);
  }
  return sum;
}

/** Adds what the squared gradients of some rows [n, in / fold] say. */
void add_rows(
    Target& target,
    std::span<const int> rows,
    std::span<const float> squares) {
  const std::size_t n = target.errors.size();
  std::vector<double> parts(rows.size() * n);
  parallel_for(rows.size(), 16, [&](std::size_t begin, std::size_t end) {
    for (std::size_t r = begin; r < end; ++r) {
      for (std::size_t e = 0; e < n; ++e) {
        const RoundingErrors& errors = target.errors[e];
        const auto groups =
            static_cast<std::size_t>(target.in / errors.group_size);
        parts[r * n + e] = row_error(
            squares.data() + r * (target.in / target.fold),
            target.fold,
            errors.mean_squares.data() + rows[r] * groups,
            errors.group_size,
            target.in);
      }
    }
  });
  for (std::size_t i = 0; i < parts.size(); ++i) {
    target.sums[i % n] += parts[i];
  }
}

/** Turns the uses of matrices on the way back into sums. */
class Estimator {
 public:
  explicit Estimator(kernels::Device& device) : device_(device) {}

  void see(const train::WeightUse& use, Target& target) {
    if (use.x == nullptr) {
      see_lookup(use, target);
    } else if (target.is_outer) {
      see_logits(use, target);
    } else {
      see_product(use, target);
    }
  }

 private:
  // Gradients of positions are added up before they are squared: what tokens
  // read and what follows them have directions in common.
  void see_product(const train::WeightUse& use, Target& target) {
    for_gradient_tiles(
        device_,
        use,
        [&](std::span<const int> rows, const mx::array& gradient) {
          add(target, rows, device_.sum_squares(gradient, target.fold));
        });
  }

  void see_lookup(const train::WeightUse& use, Target& target) {
    for_gradient_rows(
        device_,
        use,
        [&](std::span<const int> rows, std::span<const float> gradient) {
          const mx::array there = device_.upload(mx::array(
              gradient.data(),
              {static_cast<int>(rows.size()), target.in},
              mx::float32));
          add(target, rows, device_.sum_squares(there, target.fold));
        });
  }

  // The labels of positions are independent and nothing lies between them and
  // the head, so the expectation is the sum of the positions' own squares:
  // (dy^2)' x^2, of which only the sums over groups are needed.
  void see_logits(const train::WeightUse& use, Target& target) {
    const mx::array x = device_.sum_squares(*use.x, target.fold);
    for_tiles(
        device_, use.dy, x.shape(0), [&](std::span<const int> rows, auto dy) {
          const mx::array squares = device_.sum_squares(dy, 1);
          add(target, rows, device_.gradients().outer(squares, x));
        });
  }

  void add(Target& target, std::span<const int> rows, const mx::array& sums) {
    add_rows(target, rows, device_.to_host(sums).all());
  }

  kernels::Device& device_;
};

/** One estimation. */
class FastPass {
 public:
  FastPass(
      const models::Setup& setup,
      const Calibration& calibration,
      const FastOptions& options,
      std::span<const GroupJournal> journals,
      const ProgressSink& progress)
      : setup_(setup),
        calibration_(calibration),
        options_(options),
        journals_(journals),
        progress_(progress),
        estimator_(setup.model->device()) {
    const std::set<std::string> wanted(
        options.modules.begin(), options.modules.end());
    for (const models::Module& module : setup.model->modules()) {
      if (wanted.contains(module.name)) {
        modules_.push_back(module);
      }
    }
  }

  void run(const MatrixMaker& make_matrix) {
    std::vector<int> missing;
    const std::size_t end =
        std::min(options_.chunks.end, calibration_.chunks.size());
    for (std::size_t c = options_.chunks.first; c < end; ++c) {
      if (!is_there(static_cast<int>(c))) {
        missing.push_back(static_cast<int>(c));
      }
    }
    if (missing.empty()) {
      return;
    }
    make_targets(make_matrix);
    train::Backpropagation backpropagation(
        setup_,
        {.recomputes_layers = !keeps_layers(
             *setup_.model, calibration_, options_.max_kept_bytes)});
    n_chunks_ = end - options_.chunks.first;
    n_done_ = n_chunks_ - missing.size();
    for (const int chunk : missing) {
      run_chunk(backpropagation, chunk);
      ++n_done_;
    }
    report("");
  }

 private:
  bool is_there(int chunk) const {
    for (const GroupJournal& group : journals_) {
      for (const models::Module& module : modules_) {
        for (const int bits : options_.candidate_bits) {
          if (module.matrix.in_features() % group.group_size == 0 &&
              !group.journal->has(module.name, bits, chunk, 1)) {
            return false;
          }
        }
      }
    }
    return true;
  }

  void make_targets(const MatrixMaker& make_matrix) {
    kernels::Device& device = setup_.model->device();
    for (const models::Module& module : modules_) {
      if (progress_) {
        progress_(
            {"rounding errors", targets_.size(), modules_.size(), module.name});
      }
      Target target{
          .name = module.name,
          .in = module.matrix.in_features(),
          .is_outer = module.id.role == artifacts::ModuleRole::Embedding ||
              module.id.role == artifacts::ModuleRole::Head,
          .errors = {},
          .sums = {}};
      for (const GroupJournal& group : journals_) {
        if (target.in % group.group_size != 0) {
          continue;
        }
        target.fold = target.fold == 0
            ? group.group_size
            : std::min(target.fold, group.group_size);
        for (const int bits : options_.candidate_bits) {
          target.errors.push_back(rounding_errors(
              device,
              module.matrix,
              make_matrix(module.name, bits, group.group_size)));
        }
      }
      if (!target.errors.empty()) {
        by_storage_.emplace(&module.matrix.storage(), targets_.size());
        targets_.push_back(std::move(target));
      }
    }
  }

  void run_chunk(train::Backpropagation& backpropagation, int chunk) {
    for (Target& target : targets_) {
      target.sums.assign(target.errors.size(), 0.0);
    }
    const std::vector<std::int32_t>& tokens = calibration_.chunks[chunk];
    const train::Example example{
        .tokens = tokens,
        .labels = tokens, // drawn instead
        .weights = std::vector<float>(tokens.size(), 1.f)};
    report("forward");
    backpropagation.run(
        {&example, 1},
        {},
        {.visitor =
             [&](const train::WeightUse& use) {
               const auto found = by_storage_.find(&use.weight.storage());
               if (found != by_storage_.end()) {
                 Target& target = targets_[found->second];
                 report(target.name);
                 estimator_.see(use, target);
               }
             },
         .sampler =
             [&](const mx::array& logits, int first_row) {
               return sample_labels(
                   setup_.model->device(),
                   logits,
                   options_.seed,
                   chunk,
                   first_row);
             }});
    record(chunk, static_cast<double>(tokens.size()));
  }

  void record(int chunk, double n_tokens) const {
    for (const GroupJournal& group : journals_) {
      std::vector<SensitivityJournal::Record> records;
      for (const Target& target : targets_) {
        for (std::size_t e = 0; e < target.errors.size(); ++e) {
          if (target.errors[e].group_size != group.group_size) {
            continue;
          }
          const double kl = target.sums[e] / (2 * n_tokens);
          if (!std::isfinite(kl)) {
            fail(
                ErrorKind::Corrupt,
                "[estimate_sensitivity] {} at {} bits: the KL is {}, expected "
                "a number. Does the model hold NaN or infinite weights?",
                target.name,
                target.errors[e].bits,
                kl);
          }
          records.push_back({target.name, target.errors[e].bits, chunk, {kl}});
        }
      }
      group.journal->record(records);
    }
  }

  void report(const std::string& detail) const {
    if (progress_) {
      const std::uint64_t work =
          fast_sensitivity_work(*setup_.model, calibration_) * n_chunks_ /
          calibration_.chunks.size();
      progress_({"sensitivity", work * n_done_ / n_chunks_, work, detail});
    }
  }

  const models::Setup& setup_;
  const Calibration& calibration_;
  const FastOptions& options_;
  std::span<const GroupJournal> journals_;
  const ProgressSink& progress_;
  Estimator estimator_;
  std::vector<models::Module> modules_; // to estimate
  std::vector<Target> targets_; // of modules_
  std::map<const kernels::MatrixStorage*, std::size_t> by_storage_;
  std::size_t n_chunks_ = 0; // to estimate
  std::size_t n_done_ = 0; // of them
};

} // namespace

void estimate_sensitivity(
    const models::Setup& setup,
    const MatrixMaker& make_matrix,
    const Calibration& calibration,
    const FastOptions& options,
    std::span<const GroupJournal> journals,
    const ProgressSink& progress) {
  FastPass(setup, calibration, options, journals, progress).run(make_matrix);
}

std::uint64_t fast_sensitivity_work(
    const models::Model& model,
    const Calibration& calibration) {
  return kForwardsOfPass * calibration.n_tokens() *
      static_cast<std::uint64_t>(model.info().n_layers + 1);
}

std::uint64_t fast_sensitivity_bytes(
    const models::Model& model,
    const Calibration& calibration,
    const FastOptions& options,
    std::span<const int> group_sizes) {
  const std::set<std::string> wanted(
      options.modules.begin(), options.modules.end());
  std::uint64_t errors = 0; // of all rounding
  std::uint64_t largest = 0; // a matrix, as MLX stores it and packed
  for (const models::Module& module : model.modules()) {
    const auto in = static_cast<std::uint64_t>(module.matrix.in_features());
    const auto out = static_cast<std::uint64_t>(module.matrix.out_features());
    if (!wanted.contains(module.name)) {
      continue;
    }
    largest = std::max(largest, 2 * in * out);
    for (const int group_size : group_sizes) {
      errors += in % group_size == 0 ? in / group_size * out *
              options.candidate_bits.size() * sizeof(mx::bfloat16_t)
                                     : 0;
    }
  }
  return errors +
      std::max(
             largest,
             gradient_pass_bytes(model, calibration, options.max_kept_bytes)) +
      3 * sizeof(float) * kGradientTile;
}

} // namespace optiq::quant
