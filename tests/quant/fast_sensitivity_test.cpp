#include "optiq/quant/fast_sensitivity.h"

#include <map>
#include <string>

#include <gtest/gtest.h>

#include "support/scratch_folder.h"
#include "support/small_checkpoint.h"

#include "optiq/models/checkpoint.h"
#include "optiq/models/forward.h"
#include "optiq/quant/label_sampler.h"
#include "optiq/quant/sensitivity.h"
#include "optiq/train/backpropagation.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;
using artifacts::Json;

/** A small llama, and chunks of uneven lengths. The rows of down_proj, 48, do
 * not divide by a group, those of o_proj by 64, the others by 32. */
struct Fixture {
  test::ScratchFolder folder;
  std::unique_ptr<io::ModelDirectory> directory;
  std::unique_ptr<models::Checkpoint> checkpoint;
  std::unique_ptr<models::Setup> setup;
  MatrixMaker make_matrix;
  Calibration calibration;
  FastOptions options;

  explicit Fixture(bool is_tied = true) {
    Json config = testing::sizes("llama");
    config["tie_word_embeddings"] = is_tied;
    testing::write_model(
        folder.path(),
        config,
        is_tied ? std::vector<std::string>{}
                : std::vector<std::string>{"lm_head.weight"});
    directory = std::make_unique<io::ModelDirectory>(
        io::ModelDirectory::open(folder.path()));
    checkpoint = std::make_unique<models::Checkpoint>(
        models::open_checkpoint(*directory));
    setup = std::make_unique<models::Setup>(
        models::load_model(*directory), kernels::Compute::Exact);
    make_matrix = matrix_maker(*checkpoint, round_to_nearest);
    std::mt19937 random(2);
    std::uniform_int_distribution<std::int32_t> token(0, testing::kVocab - 1);
    for (const int n : {40, 40, 9}) {
      calibration.chunks.emplace_back();
      for (int i = 0; i < n; ++i) {
        calibration.chunks.back().push_back(token(random));
      }
    }
    for (const models::Module& module : setup->model->modules()) {
      if (module.matrix.in_features() % 32 == 0) {
        options.modules.push_back(module.name);
      }
    }
    options.candidate_bits = {2, 4, 8};
    options.seed = 11;
  }

  void estimate(
      SensitivityJournal& of_32,
      SensitivityJournal& of_64,
      const ProgressSink& progress = {}) const {
    const std::vector<GroupJournal> journals{{32, &of_32}, {64, &of_64}};
    estimate_sensitivity(
        *setup, make_matrix, calibration, options, journals, progress);
  }
};

using Squares = std::vector<double>; // [out, in]

/** Of every matrix the squared gradients that the estimate is made of, in
 * double, from the visitor's rows: of products added up over the chunk first,
 * of the head position by position. */
std::map<std::string, Squares> squared_gradients(
    const Fixture& fixture,
    int chunk) {
  const models::Model& model = *fixture.setup->model;
  const std::vector<std::int32_t>& tokens = fixture.calibration.chunks[chunk];
  models::Forward forward(*fixture.setup);
  const mx::array logits = models::logits_of(
      *fixture.setup, forward.add_fresh(tokens).hidden_states());
  const train::Example example{
      tokens,
      sample_labels(model.device(), logits, fixture.options.seed, chunk, 0),
      std::vector<float>(tokens.size(), 1.f)};
  std::map<std::string, Squares> squares;
  train::Backpropagation(*fixture.setup)
      .run({&example, 1}, {}, {.visitor = [&](const train::WeightUse& use) {
             for (const models::Module& module : model.modules()) {
               if (&module.matrix.storage() != &use.weight.storage()) {
                 continue;
               }
               const int in = module.matrix.in_features();
               const int out = module.matrix.out_features();
               Squares& sum = squares[module.name];
               sum.resize(std::size_t{1} * in * out);
               Squares gradient(sum.size());
               const int rows = use.dy.shape(0);
               for (int t = 0; t < rows; ++t) {
                 const float* dy = use.dy.data<float>() + t * use.dy.shape(1);
                 if (use.x == nullptr) {
                   for (int i = 0; i < in; ++i) {
                     gradient[use.ids[t] * in + i] += dy[i];
                   }
                   continue;
                 }
                 for (int o = 0; o < out; ++o) {
                   for (int i = 0; i < in; ++i) {
                     const double g =
                         double{dy[o]} * use.x->data<float>()[t * in + i];
                     if (module.id.layer < 0) {
                       sum[o * in + i] += g * g;
                     } else {
                       gradient[o * in + i] += g;
                     }
                   }
                 }
               }
               for (std::size_t i = 0; i < sum.size(); ++i) {
                 sum[i] += gradient[i] * gradient[i];
               }
             }
           }});
  return squares;
}

double expected_kl(
    const Fixture& fixture,
    const std::string& name,
    const Squares& squares,
    int bits,
    int group_size,
    std::size_t tokens) {
  const mx::array w = fixture.checkpoint->at(name + ".weight").load();
  std::vector<std::int32_t> ids(w.shape(0));
  std::iota(ids.begin(), ids.end(), 0);
  const mx::array was =
      kernels::cpu_device().embed(ids, kernels::cpu_device().dense(w), 1.f);
  const mx::array is = kernels::cpu_device().embed(
      ids, fixture.make_matrix(name, bits, group_size), 1.f);
  double sum = 0;
  for (std::size_t g = 0; g < squares.size() / group_size; ++g) {
    double mean_error = 0;
    double square = 0;
    for (std::size_t i = g * group_size; i < (g + 1) * group_size; ++i) {
      const double error = double{is.data<float>()[i]} - was.data<float>()[i];
      mean_error += error * error / group_size;
      square += squares[i];
    }
    sum += square * mean_error;
  }
  return sum / (2.0 * static_cast<double>(tokens));
}

TEST(EstimateSensitivity, IsTheDiagonalFormFoldedByGroup) {
  for (const bool is_tied : {true, false}) {
    for (const std::size_t kept : {std::size_t{0}, std::size_t{1} << 30}) {
      Fixture fixture(is_tied);
      fixture.options.max_kept_bytes = kept;
      SensitivityJournal of_32;
      SensitivityJournal of_64;
      int n_of_64 = 0;
      fixture.estimate(of_32, of_64);
      for (int chunk = 0; chunk < 3; ++chunk) {
        const auto all = squared_gradients(fixture, chunk);
        for (const std::string& name : fixture.options.modules) {
          for (const int bits : fixture.options.candidate_bits) {
            const auto expect = [&](const SensitivityJournal& of, int group) {
              const double expected = expected_kl(
                  fixture,
                  name,
                  all.at(name),
                  bits,
                  group,
                  fixture.calibration.chunks[chunk].size());
              // What bfloat16 leaves of each group's error.
              EXPECT_NEAR(of.at(name, bits, chunk), expected, 0x1p-8 * expected)
                  << name << " " << bits;
            };
            expect(of_32, 32);
            if (of_64.has(name, bits, chunk, 1)) {
              expect(of_64, 64);
              ++n_of_64;
            }
          }
        }
      }
      EXPECT_EQ(n_of_64, 4 * 3 * 3); // o_proj of the layers
    }
  }
}

// Of rounding to 8 bits the KL is quadratic, and the labels' noise goes down
// with their number.
TEST(EstimateSensitivity, IsTheMeasuredKlOfSmallErrors) {
  Fixture fixture;
  SensitivityJournal measured;
  SensitivityOptions exact;
  exact.modules = fixture.options.modules;
  exact.candidate_bits = {8};
  exact.group_size = 32;
  const auto truth = measure_sensitivity(
      *fixture.setup,
      fixture.make_matrix,
      fixture.calibration,
      exact,
      measured,
      {});
  fixture.options.candidate_bits = {8};
  std::map<std::string, double> means;
  constexpr int kSeeds = 6;
  for (int seed = 0; seed < kSeeds; ++seed) {
    fixture.options.seed = seed;
    SensitivityJournal of_32;
    SensitivityJournal of_64;
    fixture.estimate(of_32, of_64);
    for (const auto& layer : summarize_sensitivity(
             *fixture.setup->model, fixture.calibration, exact, of_32)) {
      means[layer.name] += layer.kl.at(8) / kSeeds;
    }
  }
  double log_ratio = 0;
  for (const auto& layer : truth) {
    const double ratio = means.at(layer.name) / layer.kl.at(8);
    // Of 512 to 2048 weights rounding is one draw of errors, whose expectation
    // the estimate is.
    EXPECT_GT(ratio, 0.5) << layer.name;
    EXPECT_LT(ratio, 2.0) << layer.name;
    log_ratio += std::log(ratio) / static_cast<double>(truth.size());
  }
  EXPECT_NEAR(log_ratio, 0, 0.1);
}

TEST(EstimateSensitivity, GoesOnWhereItWasStopped) {
  const Fixture fixture;
  SensitivityJournal whole;
  SensitivityJournal whole_64;
  fixture.estimate(whole, whole_64);
  const std::string path = fixture.folder.path() / "j.jsonl";
  const std::string path_64 = fixture.folder.path() / "j64.jsonl";
  for (int stop = 1; stop < 60; stop += 17) {
    struct Stopped {};
    int n_events = 0;
    try {
      SensitivityJournal journal(path, "key");
      SensitivityJournal journal_64(path_64, "key");
      fixture.estimate(journal, journal_64, [&](const ProgressEvent& event) {
        EXPECT_LE(event.done, event.total);
        if (event.stage == "sensitivity" && ++n_events == stop) {
          throw Stopped();
        }
      });
    } catch (const Stopped&) {
    }
  }
  SensitivityJournal journal(path, "key");
  SensitivityJournal journal_64(path_64, "key");
  EXPECT_TRUE(journal.has(fixture.options.modules.front(), 4, 0, 1));
  fixture.estimate(journal, journal_64);
  bool has_run = false;
  fixture.estimate(
      journal, journal_64, [&](const ProgressEvent&) { has_run = true; });
  EXPECT_FALSE(has_run);
  for (const std::string& name : fixture.options.modules) {
    for (const int bits : fixture.options.candidate_bits) {
      for (int chunk = 0; chunk < 3; ++chunk) {
        EXPECT_EQ(journal.at(name, bits, chunk), whole.at(name, bits, chunk));
      }
    }
  }
}

} // namespace
} // namespace optiq::quant
