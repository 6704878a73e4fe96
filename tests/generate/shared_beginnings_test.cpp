#include "optiq/generate/shared_beginnings.h"

#include <algorithm>
#include <random>

#include <gtest/gtest.h>

namespace optiq::generate {
namespace {

using Lists = std::vector<std::vector<std::int32_t>>;

std::vector<std::size_t> shared(const Lists& prompts) {
  std::vector<std::span<const std::int32_t>> views(
      prompts.begin(), prompts.end());
  return shared_beginnings(views);
}

TEST(SharedBeginnings, CountsTokensInCommon) {
  using Sizes = std::vector<std::size_t>;
  EXPECT_EQ(shared({}), Sizes{});
  EXPECT_EQ(shared({{1, 2, 3}}), Sizes{0});
  EXPECT_EQ(shared({{1, 2, 3}, {4}, {1, 2}, {1, 5}}), (Sizes{2, 0, 2, 1}));
  EXPECT_EQ(shared({{7, 7}, {7, 7}}), (Sizes{2, 2}));
}

TEST(SharedBeginnings, EqualsAllPairs) {
  std::mt19937 random(3);
  Lists prompts(60);
  for (auto& prompt : prompts) {
    prompt.resize(1 + random() % 12);
    for (auto& token : prompt) {
      token = static_cast<std::int32_t>(random() % 2);
    }
  }
  const auto found = shared(prompts);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    std::size_t most = 0;
    for (std::size_t j = 0; j < prompts.size(); ++j) {
      std::size_t n = 0;
      while (i != j && n < std::min(prompts[i].size(), prompts[j].size()) &&
             prompts[i][n] == prompts[j][n]) {
        ++n;
      }
      most = std::max(most, n);
    }
    EXPECT_EQ(found[i], most) << i;
  }
}

} // namespace
} // namespace optiq::generate
