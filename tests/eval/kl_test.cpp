#include "optiq/eval/kl.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "optiq/base/error.h"

namespace optiq::eval {
namespace {

namespace mx = mlx::core;

/** A model that has facts but must not be run. */
class PaperModel : public models::Model {
 public:
  PaperModel(int vocab_size, int max_positions) {
    info_.vocab_size = vocab_size;
    info_.max_positions = max_positions;
  }
  const models::ModelInfo& info() const override {
    return info_;
  }
  std::vector<cache::LayerFormat> dense_layout(mx::Dtype) const override {
    return {};
  }
  mx::array embed(std::span<const std::int32_t>) const override {
    throw std::logic_error("run");
  }
  mx::array run_layer(int, const mx::array&, const nn::ForwardContext&)
      const override {
    throw std::logic_error("run");
  }
  mx::array logits(const mx::array&, const nn::ForwardContext&) const override {
    throw std::logic_error("run");
  }
  std::vector<models::Module> modules() const override {
    return {};
  }
  std::unique_ptr<models::Model> with_matrices(
      const models::MatricesByName&) const override {
    throw std::logic_error("run");
  }

 private:
  models::ModelInfo info_;
};

void expect_refused(
    const models::Setup& reference,
    const models::Setup& model,
    const std::vector<TokenRow>& rows,
    const char* says) {
  try {
    measure_kl(reference, model, rows, {});
    ADD_FAILURE() << "accepted; expected: " << says;
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::InvalidInput);
    EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
  }
}

models::Setup paper(int vocab_size, int max_positions) {
  return {
      std::make_shared<PaperModel>(vocab_size, max_positions),
      kernels::Compute::Exact};
}

TEST(MeasureKl, RefusesBeforeItRuns) {
  const models::Setup model = paper(10, 4);
  expect_refused(paper(11, 4), model, {{1, 2}}, "11");
  expect_refused(model, model, {}, "no rows");
  expect_refused(model, model, {{1}, {}}, "row 2");
  expect_refused(model, model, {{1, 2, 3, 4, 5}}, "5 tokens");
  expect_refused(paper(10, 8), model, {{1, 2, 3, 4, 5}}, "4 positions");
}

TEST(SummarizeKl, BothMeansTheirErrorsAndQuantiles) {
  const std::vector<std::vector<double>> kl{{0.1, 0.3, 0.2}, {0.8}};
  const std::vector<std::vector<double>> agreement{{1, 0, 1}, {1}};
  const artifacts::KlScores s = summarize_kl(kl, agreement);
  const double eps = 8 * std::numeric_limits<double>::epsilon();
  EXPECT_EQ(s.tokens, 4u);
  EXPECT_EQ(s.rows, 2u);
  EXPECT_NEAR(s.mean_kl, 1.4 / 4, eps);
  EXPECT_NEAR(s.mean_row_kl, (0.2 + 0.8) / 2, eps);
  // Two rows: half the distance of their means.
  EXPECT_NEAR(s.mean_row_kl_stderr, 0.3, eps);
  // Residuals .6 - 3 * .35 and .8 - .35.
  EXPECT_NEAR(s.mean_kl_stderr, std::sqrt(2 * 2 * 0.45 * 0.45) / 4, eps);
  EXPECT_NEAR(s.median_kl, 0.25, eps);
  EXPECT_NEAR(s.p99_kl, 0.3 + 0.97 * 0.5, eps);
  EXPECT_NEAR(s.top1_agreement, 0.75, eps);
}

} // namespace
} // namespace optiq::eval
