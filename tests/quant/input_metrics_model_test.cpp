#include <map>

#include <gtest/gtest.h>

#include "support/tiny_model.h"

#include "optiq/models/forward.h"
#include "optiq/quant/input_metrics.h"

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

const std::string kPrefix = "language_model.model.";

struct Fixture {
  Fixture() {
    const auto tokens = testing::arithmetic_tokens(150);
    calibration.chunks = {
        {tokens.begin(), tokens.begin() + 70},
        {tokens.begin() + 70, tokens.end()}};
  }
  models::Setup setup{testing::load_tiny_model(), kernels::Compute::Exact};
  Calibration calibration;
};

/** By linear, the sum over all rows of each input's square. */
std::map<std::string, std::vector<double>> squares_of(const Fixture& fixture) {
  std::map<std::string, std::vector<double>> squares;
  for (const auto& chunk : fixture.calibration.chunks) {
    models::Forward forward(
        fixture.setup, [&](const nn::Linear& linear, const mx::array& x) {
          const kernels::HostRows rows = kernels::cpu_device().to_host(x);
          auto& sums = squares[linear.name];
          sums.resize(static_cast<std::size_t>(x.shape(-1)));
          for (int t = 0; t < x.shape(0); ++t) {
            for (std::size_t i = 0; i < sums.size(); ++i) {
              sums[i] += double{rows.row(t)[i]} * rows.row(t)[i];
            }
          }
        });
    forward.add_fresh(chunk).hidden_states();
  }
  return squares;
}

TEST(InputMetrics, AreTheMomentsOfWhatEveryMatrixReads) {
  const Fixture fixture;
  const InputMetrics metrics(
      fixture.setup, fixture.calibration, {.has_factors = false}, {});
  const auto squares = squares_of(fixture);
  EXPECT_EQ(squares.size(), 62u); // all matrices but the embedding
  for (const auto& [name, expected] : squares) {
    const kernels::ErrorMetric metric = metrics.of(name, expected.size());
    EXPECT_TRUE(metric.factor.empty());
    ASSERT_EQ(metric.importance.size(), expected.size()) << name;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      // A chain of 150 float32 sums.
      EXPECT_NEAR(
          metric.importance[i], expected[i], 150 * 0x1p-24 * expected[i])
          << name << ' ' << i;
    }
  }
}

TEST(InputMetrics, FactorTheMomentsAndShareThem) {
  const Fixture fixture;
  const InputMetrics metrics(fixture.setup, fixture.calibration, {}, {});
  const std::string layer = kPrefix + "layers.3.";
  const auto q = metrics.of(layer + "self_attn.q_proj", 256);
  EXPECT_EQ(q.factor.size(), 256u * 256);
  EXPECT_EQ(q.factor, metrics.of(layer + "self_attn.v_proj", 256).factor);
  EXPECT_NE(q.factor, metrics.of(layer + "self_attn.o_proj", 256).factor);
  EXPECT_EQ(metrics.of(layer + "mlp.down_proj", 768).factor.size(), 768u * 768);
  EXPECT_FALSE(metrics.of(kPrefix + "embed_tokens", 256).factor.empty());
}

TEST(InputMetrics, OfWhatNothingReadAllInputsCountAlike) {
  const Fixture fixture;
  const InputMetrics metrics(fixture.setup, fixture.calibration, {}, {});
  const auto metric = metrics.of("mtp.layers.0.mlp.up_proj", 5);
  EXPECT_EQ(metric.importance, std::vector<float>(5, 1.f));
  EXPECT_TRUE(metric.factor.empty());
}

TEST(InputMetrics, ReportsEveryLayerAndTheHead) {
  const Fixture fixture;
  std::vector<std::uint64_t> done;
  const InputMetrics metrics(
      fixture.setup, fixture.calibration, {}, [&](const ProgressEvent& event) {
        EXPECT_EQ(event.stage, "moments");
        EXPECT_EQ(event.total, 9u);
        done.push_back(event.done);
      });
  EXPECT_EQ(done, (std::vector<std::uint64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

} // namespace
} // namespace optiq::quant
