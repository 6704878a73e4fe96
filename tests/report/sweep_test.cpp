#include "optiq/report/sweep.h"

#include <gtest/gtest.h>

namespace optiq::report {
namespace {

artifacts::EvalResult result_of(
    const std::string& data,
    decltype(artifacts::EvalResult::scores) s) {
  return {.model = "m", .data = data, .scores = std::move(s)};
}

artifacts::Sweep small_sweep() {
  artifacts::Sweep sweep;
  sweep.base_model = "a <model>";
  sweep.base_bytes = 16'000'000;
  sweep.data = {"text.txt", "questions.jsonl"};
  for (const char* series : {"optiq", "uniform"}) {
    for (const int bits : {3, 4}) {
      artifacts::SweepPoint point{
          .series = series,
          .label = std::to_string(bits),
          .bytes = static_cast<std::uint64_t>(bits) * 1'000'000,
          .file_bpw = double(bits),
          .results = {}};
      for (const std::string& data : sweep.data) {
        point.results.push_back(
            result_of(data, artifacts::KlScores{.mean_kl = 1e-3 * bits}));
        point.results.push_back(
            result_of(data, artifacts::PerplexityScores{.ppl = 10.5}));
      }
      point.results.push_back(result_of(
          "questions.jsonl", artifacts::ExactMatchScores{.accuracy = 0.9}));
      sweep.points.push_back(point);
    }
  }
  sweep.notices = {"uniform has no 2"};
  return sweep;
}

std::size_t count_of(const std::string& text, const std::string& what) {
  std::size_t count = 0;
  for (auto at = text.find(what); at != std::string::npos;
       at = text.find(what, at + what.size())) {
    ++count;
  }
  return count;
}

TEST(RenderSweep, APlotForEveryFigureThatThereIs) {
  const std::string page = render_sweep(small_sweep());
  EXPECT_EQ(count_of(page, "class=\"curves\""), 5u); // accuracy on one of two
  EXPECT_EQ(count_of(page, "<circle"), 5u * 4);
  EXPECT_EQ(count_of(page, "class=\"trend"), 5u * 2);
  EXPECT_EQ(count_of(page, "<table>"), 2u);
  EXPECT_EQ(count_of(page, "3000000 bytes</title>"), 5u * 2);
  EXPECT_EQ(count_of(page, "uniform has no 2"), 1u);
  EXPECT_EQ(count_of(page, "a &lt;model&gt;"), 2u);
  EXPECT_EQ(count_of(page, "<script"), 0u);
  EXPECT_EQ(count_of(page, "nan"), 0u);
  EXPECT_EQ(count_of(page, "inf"), 0u);
}

TEST(RenderSweep, OneModelIsAPointWithoutACurve) {
  artifacts::Sweep sweep = small_sweep();
  sweep.points.resize(1);
  const std::string page = render_sweep(sweep);
  EXPECT_EQ(count_of(page, "<circle"), 5u); // one a plot
  EXPECT_EQ(count_of(page, "class=\"trend"), 0u);
  EXPECT_EQ(count_of(page, "nan"), 0u);
}

TEST(SweepToJson, HasEveryModelWithItsResults) {
  const artifacts::Json json = artifacts::to_json(small_sweep());
  EXPECT_EQ(json.at("schema_version"), 1);
  EXPECT_EQ(json.at("points").size(), 4u);
  const artifacts::Json& point = json.at("points")[0];
  EXPECT_EQ(point.at("series"), "optiq");
  EXPECT_EQ(point.at("bytes"), 3'000'000);
  EXPECT_EQ(point.at("results")[0].at("task"), "kl");
  EXPECT_EQ(point.at("results")[0].at("mean_kl"), 3e-3);
  EXPECT_EQ(point.at("results").size(), 5u);
}

} // namespace
} // namespace optiq::report
