#include "optiq/quant/label_sampler.h"

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include <gtest/gtest.h>

namespace optiq::quant {
namespace {

namespace mx = mlx::core;

constexpr int kRows = 20000;

mx::array repeated(const std::vector<float>& row) {
  std::vector<float> all;
  for (int i = 0; i < kRows; ++i) {
    all.insert(all.end(), row.begin(), row.end());
  }
  return mx::array(
      all.data(), {kRows, static_cast<int>(row.size())}, mx::float32);
}

TEST(SampleLabels, FollowsTheSoftmax) {
  const float never = -std::numeric_limits<float>::infinity();
  const std::vector<float> row{
      std::log(0.5f) + 30,
      never,
      std::log(0.2f) + 30,
      std::log(0.3f) + 30,
      never};
  std::map<std::int32_t, int> counts;
  for (const std::int32_t label :
       sample_labels(kernels::cpu_device(), repeated(row), 7, 1, 0)) {
    ++counts[label];
  }
  EXPECT_EQ(counts.size(), 3U);
  for (const auto& [label, p] :
       std::map<std::int32_t, double>{{0, 0.5}, {2, 0.2}, {3, 0.3}}) {
    EXPECT_NEAR(counts[label], p * kRows, 5 * std::sqrt(p * (1 - p) * kRows));
  }
}

TEST(SampleLabels, DependOnThePlaceAlone) {
  const mx::array logits = repeated({0.f, 0.f, 0.f, 0.f});
  kernels::Device& device = kernels::cpu_device();
  const auto all = sample_labels(device, logits, 7, 1, 0);
  const auto part =
      sample_labels(device, device.row_range(logits, 100, 50), 7, 1, 100);
  EXPECT_EQ(part, std::vector(all.begin() + 100, all.begin() + 150));
  EXPECT_NE(sample_labels(device, logits, 8, 1, 0), all);
  EXPECT_NE(sample_labels(device, logits, 7, 2, 0), all);
}

} // namespace
} // namespace optiq::quant
