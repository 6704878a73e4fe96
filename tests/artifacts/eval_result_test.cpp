#include "optiq/artifacts/eval_result.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "support/expect_error.h"

#include "optiq/base/error.h"

namespace optiq::artifacts {
namespace {

EvalResult with(decltype(EvalResult::scores) scores) {
  return {
      .model = "out/m",
      .reference = "ref",
      .data = "d.jsonl",
      .compute = "exact",
      .device = "mlx",
      .reference_device = "cpu",
      .simd = "AVX2",
      .kv = "turbo 3",
      .limit = 7,
      .scores = std::move(scores)};
}

// Values without a short decimal form, so that a rounding writer shows.
const std::vector<EvalResult>& examples() {
  static const std::vector<EvalResult> results{
      with(KlScores{
          1.0 / 3,
          1e-7 / 3,
          2.0 / 3,
          0.1,
          1e-9 / 7,
          0.7,
          0.99,
          0.01,
          9,
          2,
          {1.0 / 3, 1.0}}),
      with(PerplexityScores{10.0 / 3, 0.1 / 3, 1.0 / 7, 11, 3}),
      with(ExactMatchScores{2.0 / 3, 1.0 / 9, 3, 1}),
      with(NeedleScores{
          2.0 / 3,
          1.0 / 9,
          {64, 128},
          {0, 1.0 / 3, 1},
          4,
          8,
          {{4, 3, 0}, {1, 2, 4}}})};
  return results;
}

TEST(EvalResult, SurvivesWritingAndReading) {
  for (const EvalResult& result : examples()) {
    const Json json = to_json(result);
    const EvalResult back =
        eval_result_from_json(parse_json(json.dump(), "memory"), "memory");
    EXPECT_EQ(to_json(back), json);
    EXPECT_EQ(back.scores.index(), result.scores.index());
    EXPECT_EQ(back.limit, 7u);
  }
}

TEST(EvalResult, HasTheKeysThatScriptsRead) {
  const std::vector<std::vector<const char*>> keys{
      {"mean_kl",
       "mean_row_kl",
       "median_kl",
       "p99_kl",
       "top1_agreement",
       "tokens",
       "stderr"},
      {"ppl", "stderr"},
      {"accuracy", "stderr", "count"},
      {"accuracy", "stderr", "lengths", "depths", "right"}};
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const Json json = to_json(examples()[i]);
    for (const char* key : keys[i]) {
      EXPECT_TRUE(json.contains(key)) << key;
    }
  }
  EXPECT_EQ(to_json(examples()[2])["task"], "exact-match");
  EXPECT_EQ(to_json(examples()[2])["count"], 3);
}

TEST(EvalResult, RefusesATableThatDoesNotFitItsSides) {
  Json json = to_json(examples()[3]);
  json["right"][1].erase(0);
  test::expect_error(ErrorKind::Corrupt, {"file.json", "'right'"}, [&] {
    eval_result_from_json(json, "file.json");
  });
}

TEST(EvalResult, RefusesAnUnknownTaskAndAMissingKey) {
  Json json = to_json(examples()[0]);
  json["task"] = "dance";
  try {
    eval_result_from_json(json, "file.json");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Corrupt);
    EXPECT_NE(std::string(e.what()).find("dance"), std::string::npos);
  }
  json = to_json(examples()[0]);
  json.erase("p99_kl");
  try {
    eval_result_from_json(json, "file.json");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Corrupt);
    EXPECT_NE(std::string(e.what()).find("p99_kl"), std::string::npos);
  }
}

TEST(ReadEvalResults, TakesTheEvalFilesInOrderOfTheirNames) {
  const auto folder =
      std::filesystem::temp_directory_path() / "optiq_eval_result_test";
  std::filesystem::remove_all(folder);
  EXPECT_TRUE(read_eval_results(folder).empty());
  std::filesystem::create_directories(folder / "optiq");
  const auto write = [&](const char* name, const EvalResult& result) {
    std::ofstream(folder / "optiq" / name) << to_json(result).dump();
  };
  write("eval_b.json", examples()[1]);
  write("eval_a.json", examples()[2]);
  write("metadata.json", examples()[0]); // another name: not a result
  const auto results = read_eval_results(folder);
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(task_of(results[0]), "exact-match");
  EXPECT_EQ(task_of(results[1]), "ppl");
  std::filesystem::remove_all(folder);
}

} // namespace
} // namespace optiq::artifacts
