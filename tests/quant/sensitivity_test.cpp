#include "optiq/quant/sensitivity.h"

#include <cmath>
#include <fstream>
#include <map>

#include <gtest/gtest.h>
#include <mlx/ops.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"
#include "support/small_network.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;
using testing::SmallNetwork;
using testing::Table;

constexpr int kVocab = 48;
constexpr int kHidden = 64;
constexpr int kLayers = 4;
constexpr int kGroup = 64;

/** The network, its weights by name, and chunks of uneven lengths. */
struct Fixture {
  std::map<std::string, mx::array> weights;
  std::shared_ptr<SmallNetwork> model;
  Calibration calibration;
  SensitivityOptions options;

  explicit Fixture(unsigned seed = 1) {
    std::mt19937 random(seed);
    const float unit = 1.f / std::sqrt(static_cast<float>(kHidden));
    const float scale = 0.3f * unit; // layers are small beside the residual
    mx::array embedding = testing::random_weight(kVocab, kHidden, 1.f, random);
    mx::array head = testing::random_weight(kVocab, kHidden, 2 * unit, random);
    std::vector<mx::array> layers;
    for (int i = 0; i < kLayers; ++i) {
      layers.push_back(testing::random_weight(kHidden, kHidden, scale, random));
      weights.emplace("layers." + std::to_string(i) + ".mlp", layers.back());
    }
    weights.emplace("embed_tokens", embedding);
    weights.emplace("lm_head", head);
    model = std::make_shared<SmallNetwork>(
        kVocab, kHidden, layers, embedding, head);
    std::uniform_int_distribution<std::int32_t> token(0, kVocab - 1);
    for (const int n : {17, 17, 17, 17, 5}) {
      calibration.chunks.emplace_back();
      for (int i = 0; i < n; ++i) {
        calibration.chunks.back().push_back(token(random));
      }
    }
    for (const models::Module& module : model->modules()) {
      options.modules.push_back(module.name);
    }
    options.candidate_bits = {3, 4, 8};
    options.group_size = kGroup;
  }

  MatrixMaker maker() const {
    return [this](const std::string& name, int bits, int group_size) {
      const auto q =
          kernels::quantize_affine(weights.at(name), bits, group_size);
      return kernels::cpu_device().quantized(
          q.weight, q.scales, q.biases, bits, group_size);
    };
  }

  std::vector<artifacts::LayerSensitivity> measure(
      SensitivityJournal& journal,
      const ProgressSink& sink = {}) const {
    return measure_sensitivity(
        {model, kernels::Compute::Exact},
        maker(),
        calibration,
        options,
        journal,
        sink);
  }
  std::vector<artifacts::LayerSensitivity> measure() const {
    SensitivityJournal journal;
    return measure(journal);
  }
};

using Doubles = std::vector<double>;

/** Logits of one chunk in double precision, with one table replaced. */
std::vector<Doubles> forward_in_double(
    const SmallNetwork& model,
    const std::vector<std::int32_t>& tokens,
    std::size_t replaced,
    const Table& table) {
  const auto at = [&](std::size_t i) -> const Table& {
    return i == replaced ? table : model.table(i);
  };
  std::vector<Doubles> sums(kLayers, Doubles(kHidden, 0.0));
  std::vector<Doubles> logits;
  for (const std::int32_t token : tokens) {
    Doubles x(at(0).row(token), at(0).row(token) + kHidden);
    for (int layer = 0; layer < kLayers; ++layer) {
      Doubles hidden(kHidden);
      for (int i = 0; i < kHidden; ++i) {
        sums[layer][i] += x[i];
        hidden[i] = std::tanh(x[i] + sums[layer][i] / 8);
      }
      for (int o = 0; o < kHidden; ++o) {
        x[o] += std::inner_product(
            hidden.begin(), hidden.end(), at(layer + 1).row(o), 0.0);
      }
    }
    Doubles row(kVocab);
    for (int o = 0; o < kVocab; ++o) {
      row[o] =
          std::inner_product(x.begin(), x.end(), at(kLayers + 1).row(o), 0.0);
    }
    logits.push_back(row);
  }
  return logits;
}

Doubles log_softmax(const Doubles& logits) {
  double sum = 0;
  for (const double l : logits) {
    sum += std::exp(l);
  }
  Doubles result;
  for (const double l : logits) {
    result.push_back(l - std::log(sum));
  }
  return result;
}

double kl_in_double(const Doubles& reference, const Doubles& other) {
  const Doubles p = log_softmax(reference);
  const Doubles q = log_softmax(other);
  double kl = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    kl += std::exp(p[i]) * (p[i] - q[i]);
  }
  return kl;
}

/** Dequantized by MLX itself, in float32. */
Table quantized_table(const mx::array& weight, int bits) {
  const auto parts = mx::quantize(weight, kGroup, bits);
  const mx::array w = io::materialize(mx::dequantize(
      parts[0],
      mx::astype(parts[1], mx::float32),
      mx::astype(parts[2], mx::float32),
      kGroup,
      bits));
  const auto values = io::floats(w);
  return {w.shape(0), w.shape(1), {values.begin(), values.end()}};
}

TEST(MeasureSensitivity, EqualsFullForwardsInDoublePrecision) {
  const Fixture fixture;
  const auto found = fixture.measure();
  const auto modules = fixture.model->modules();
  ASSERT_EQ(found.size(), modules.size());
  for (std::size_t m = 0; m < modules.size(); ++m) {
    EXPECT_EQ(found[m].name, modules[m].name);
    for (const int bits : fixture.options.candidate_bits) {
      const Table changed =
          quantized_table(fixture.weights.at(modules[m].name), bits);
      double sum = 0;
      double tokens = 0;
      double largest = 0; // |logit|
      Doubles residuals;
      for (const auto& chunk : fixture.calibration.chunks) {
        const auto p = forward_in_double(
            *fixture.model, chunk, m, fixture.model->table(m));
        const auto q = forward_in_double(*fixture.model, chunk, m, changed);
        double chunk_sum = 0;
        for (std::size_t t = 0; t < chunk.size(); ++t) {
          chunk_sum += kl_in_double(p[t], q[t]);
          for (const double l : p[t]) {
            largest = std::max(largest, std::abs(l));
          }
        }
        sum += chunk_sum;
        tokens += static_cast<double>(chunk.size());
        residuals.push_back(chunk_sum);
      }
      const double mean = sum / tokens;
      double squares = 0;
      for (std::size_t c = 0; c < residuals.size(); ++c) {
        const double n =
            static_cast<double>(fixture.calibration.chunks[c].size());
        squares += std::pow(residuals[c] - n * mean, 2);
      }
      const double n_chunks = static_cast<double>(residuals.size());
      const double stderr_ =
          std::sqrt(squares * n_chunks / (n_chunks - 1)) / tokens;
      // A logit is off by at most d = (terms) eps |logit|; the KL changes by
      // at most |p - q|_1 d <= sqrt(2 KL) d per side, plus d^2.
      const double d = kHidden * (kLayers + 1) * 6e-8 * largest;
      const double tolerance = 2 * std::sqrt(2 * mean) * d + d * d;
      EXPECT_NEAR(found[m].kl.at(bits), mean, tolerance)
          << modules[m].name << " " << bits;
      EXPECT_NEAR(found[m].kl_stderr.at(bits), stderr_, tolerance)
          << modules[m].name << " " << bits;
      EXPECT_GT(mean, 2 * tolerance) << "zeros would pass too";
    }
    EXPECT_GT(found[m].kl.at(3), 2 * found[m].kl.at(4));
    EXPECT_GT(found[m].kl.at(4), found[m].kl.at(8));
  }
  // Scales are the means over modules at 3 bits, so these average to 1.
  double relative = 0;
  for (const auto& layer : found) {
    relative += layer.relative_kl.at(3) / static_cast<double>(found.size());
    EXPECT_GT(layer.relative_kl.at(3), layer.relative_kl.at(8));
  }
  EXPECT_NEAR(relative, 1, 1e-12);
}

TEST(MeasureSensitivity, BoundsOnMemoryDoNotChangeABit) {
  Fixture fixture;
  const auto whole = fixture.measure();
  // One chunk at a time, logits recomputed for three rows at a time.
  fixture.options.max_state_bytes = 1;
  fixture.options.max_activation_bytes = 1;
  fixture.options.max_logit_bytes = 3 * 4 * kVocab * sizeof(float);
  EXPECT_EQ(fixture.measure(), whole);
}

TEST(MeasureSensitivity, RunsOnlyTheLayersBehindTheMatrix) {
  Fixture fixture;
  fixture.options.candidate_bits = {4};
  fixture.options.modules = {"layers.3.mlp"};
  fixture.measure();
  // Reference 4; states advance over layers 0, 1, 2; then layer 3 alone.
  EXPECT_EQ(fixture.model->counters().layers, 4 + 3 + 1);
  Fixture head;
  head.options.candidate_bits = {4, 8};
  head.options.modules = {"lm_head"};
  head.measure();
  EXPECT_EQ(head.model->counters().layers, 4 + 3);
  EXPECT_EQ(head.model->counters().logits, 1 + 2);
}

TEST(MeasureSensitivity, ResumedEqualsUninterrupted) {
  const Fixture fixture;
  const auto whole = fixture.measure();
  test::ScratchFolder folder;
  for (int stop = 1; stop < 12; stop += 2) {
    const auto path = folder / ("journal" + std::to_string(stop));
    int events = 0;
    try {
      SensitivityJournal journal(path, "key");
      fixture.measure(journal, [&](const ProgressEvent&) {
        if (++events == stop) {
          fail(ErrorKind::Cancelled, "stop");
        }
      });
      FAIL() << "ended after " << events << " events";
    } catch (const Error& e) {
      ASSERT_EQ(e.kind(), ErrorKind::Cancelled);
    }
    // As after a kill in the middle of a write.
    std::ofstream(path, std::ios::app) << R"({"module": "layers.2.mlp", "bi)";
    SensitivityJournal journal(path, "key");
    EXPECT_EQ(fixture.measure(journal), whole) << stop;
  }
}

TEST(MeasureSensitivity, AFinishedMeasurementServesSubsetsWithoutForwards) {
  test::ScratchFolder folder;
  const auto path = folder / "journal";
  Fixture fixture;
  std::vector<artifacts::LayerSensitivity> whole;
  {
    SensitivityJournal journal(path, "key");
    whole = fixture.measure(journal);
  }
  Fixture again;
  again.options.candidate_bits = {8, 3};
  again.options.modules = {"layers.1.mlp", "lm_head"};
  SensitivityJournal journal(path, "key");
  const auto part = again.measure(journal);
  EXPECT_EQ(again.model->counters().layers, 0);
  EXPECT_EQ(part[0].kl.at(3), whole[2].kl.at(3));
  EXPECT_EQ(part[1].kl_stderr.at(8), whole[5].kl_stderr.at(8));
  EXPECT_FALSE(part[0].kl.contains(4));
}

TEST(MeasureSensitivity, ProgressEndsAtItsTotal) {
  const Fixture fixture;
  std::uint64_t last = 0;
  std::uint64_t total = 0;
  SensitivityJournal journal;
  const auto sink = [&](const ProgressEvent& event) {
    EXPECT_GE(event.done, last);
    last = event.done;
    total = event.total;
  };
  fixture.measure(journal, sink);
  EXPECT_EQ(last, total);
  // 73 rows; embedding and layer 0: 5 units, then 4, 3, 2, the head 1.
  EXPECT_EQ(total, 73u * 3 * (5 + 5 + 4 + 3 + 2 + 1));
}

TEST(MeasureSensitivity, ANaNIsAnError) {
  Fixture fixture;
  mx::array& w = fixture.weights.at("layers.2.mlp");
  w = io::materialize(mx::full(w.shape(), NAN, mx::bfloat16));
  fixture.model = std::make_shared<SmallNetwork>(
      kVocab,
      kHidden,
      std::vector<mx::array>{
          fixture.weights.at("layers.0.mlp"),
          fixture.weights.at("layers.1.mlp"),
          w,
          fixture.weights.at("layers.3.mlp")},
      fixture.weights.at("embed_tokens"),
      fixture.weights.at("lm_head"));
  fixture.options.modules = {"layers.1.mlp"};
  test::expect_error(
      ErrorKind::Corrupt, {"layers.1.mlp", "nan"}, [&] { fixture.measure(); });
}

} // namespace
} // namespace optiq::quant
