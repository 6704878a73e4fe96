#include "optiq/kernels/logit_blocks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "optiq/kernels/machine.h"

namespace optiq::kernels {
namespace {

using Row = std::vector<float>;

/** Normal logits, among them NaN and -inf. */
Row make_row(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.f, 6.f);
  Row row(n);
  for (float& x : row) {
    x = normal(random);
    x = random() % 13 == 0 ? std::nanf("") : x;
    x = random() % 17 == 0 ? -INFINITY : x;
  }
  return row;
}

/** All that the passes make of a row. */
struct Results {
  std::vector<float> maxima;
  std::vector<double> masses;
  std::vector<double> depths;
  std::vector<float> weights;
  std::vector<std::int32_t> found;

  bool operator==(const Results&) const = default;
};

Results run(const Row& row, float scale, float threshold) {
  std::vector<const float*> blocks;
  for (std::size_t i = 0; i < row.size(); i += kLogitBlock) {
    blocks.push_back(row.data() + i);
  }
  const LogitBlocks view{blocks, row.size()};
  Results r;
  r.maxima.resize(blocks.size());
  r.masses.resize(blocks.size());
  r.depths.resize(blocks.size());
  r.weights.resize(row.size());
  block_maxima(view, r.maxima);
  block_masses(view, r.maxima, scale, r.masses);
  block_depths(view, r.maxima, scale, r.depths);
  const float largest = *std::max_element(r.maxima.begin(), r.maxima.end());
  if (std::isfinite(largest)) {
    exp_logits(row, largest, scale, r.weights);
  }
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    std::array<std::int32_t, kFoundRoom> ids;
    std::array<float, kFoundRoom> values;
    const auto first = static_cast<std::int32_t>(b * kLogitBlock);
    const std::size_t n =
        find_at_least({blocks[b], view.size(b)}, threshold, first, ids, values);
    for (std::size_t i = 0; i < n; ++i) {
      EXPECT_EQ(values[i], row[static_cast<std::size_t>(ids[i])]);
      r.found.push_back(ids[i]);
    }
  }
  return r;
}

void expect_right(const Row& row, float scale, float threshold) {
  const Results r = run(row, scale, threshold);
  std::vector<std::int32_t> found;
  for (std::size_t b = 0; b < r.maxima.size(); ++b) {
    float maximum = -INFINITY;
    double mass = 0;
    double depth = 0;
    const std::size_t end = std::min(row.size(), (b + 1) * kLogitBlock);
    for (std::size_t i = b * kLogitBlock; i < end; ++i) {
      maximum = row[i] > maximum ? row[i] : maximum;
      if (row[i] >= threshold) {
        found.push_back(static_cast<std::int32_t>(i));
      }
    }
    for (std::size_t i = b * kLogitBlock; i < end; ++i) {
      const double d = (double{maximum} - row[i]) * scale;
      if (std::isfinite(maximum) && std::isfinite(row[i])) {
        mass += std::exp(-d);
        depth += d * std::exp(-d);
      }
    }
    EXPECT_EQ(r.maxima[b], maximum);
    // A term at depth d is right to (2 + d) 2^-23, which is largest against
    // the maximum's 1 near d = 1; 16 terms at most go into a sum of floats.
    EXPECT_NEAR(r.masses[b], mass, mass * (3 + 16) * 0x1p-23);
    EXPECT_NEAR(r.depths[b], depth, (depth + mass) * (5 + 16) * 0x1p-23);
  }
  EXPECT_EQ(r.found, found);
  const float largest = *std::max_element(r.maxima.begin(), r.maxima.end());
  for (std::size_t i = 0; std::isfinite(largest) && i < row.size(); ++i) {
    if (!std::isfinite(row[i])) {
      EXPECT_EQ(r.weights[i], 0.f);
      continue;
    }
    const double d = (double{largest} - row[i]) * scale;
    const double weight = std::exp(-d);
    EXPECT_NEAR(r.weights[i], weight, weight * (2 + d) * 0x1p-23 + 0x1p-126);
  }
}

TEST(LogitBlocks, EqualTheDefinitions) {
  unsigned seed = 0;
  for (const std::size_t n :
       {1u, 3u, 15u, 16u, 17u, 255u, 256u, 257u, 511u, 512u, 4099u}) {
    for (const float scale : {.3f, 1.f, 4.f}) {
      expect_right(make_row(n, ++seed), scale, 2.f);
    }
  }
  expect_right(Row(300, std::nanf("")), 1.f, 0.f);
  expect_right(Row(300, -INFINITY), 1.f, 0.f);
  expect_right(Row(300, 5.f), 1.f, 5.f);
}

TEST(LogitBlocks, AreTheSameOnEveryTarget) {
  std::vector<Row> rows;
  for (const std::size_t n : {1u, 100u, 257u, 70'001u}) {
    rows.push_back(make_row(n, static_cast<unsigned>(n)));
  }
  std::vector<Results> first;
  for (const std::string& target : simd_targets()) {
    force_simd_target(target);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const Results results = run(rows[i], 1.f / .6f, 1.f);
      if (first.size() == i) {
        first.push_back(results);
      }
      EXPECT_TRUE(results == first[i]) << target;
    }
  }
  force_simd_target("");
}

TEST(LogitBlocks, ExpOfTheLargestIsOne) {
  for (const float scale : {1e-30f, 1.f, 3e38f}) {
    std::array<float, 2> weights;
    exp_logits(std::array{7.f, -7e30f}, 7.f, scale, weights);
    EXPECT_EQ(weights[0], 1.f);
    EXPECT_LE(weights[1], 1.f);
  }
}

} // namespace
} // namespace optiq::kernels
