#include "optiq/artifacts/training_log.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace optiq::artifacts {
namespace {

std::vector<TrainingStep> three_steps() {
  return {
      {.step = 1, .loss = 1.0 / 3, .gradient_norm = 2, .tokens = 7},
      {.step = 2, .loss = 0.25, .seconds = 0.5, .valid_loss = 0.75},
      {.step = 3, .loss = 0.125, .learning_rate = 1e-4, .valid_loss = 0.75}};
}

TEST(TrainingLog, ReadsWhatItWrites) {
  const std::string text = training_log_text(three_steps());
  const auto log = parse_training_log(text, "log");
  ASSERT_EQ(log.size(), 3U);
  EXPECT_EQ(log[0].loss, 1.0 / 3); // every bit
  EXPECT_EQ(log[0].tokens, 7U);
  EXPECT_FALSE(log[0].valid_loss);
  EXPECT_EQ(log[1].valid_loss, 0.75);
  EXPECT_EQ(training_log_text(log), text);
  EXPECT_TRUE(read_training_log("no/such/file").empty());
}

TEST(TrainingLog, TheFirstOfEqualsIsBest) {
  auto log = three_steps();
  EXPECT_EQ(best_step(log)->step, 2);
  log[2].valid_loss = 0.5;
  EXPECT_EQ(best_step(log)->step, 3);
  log.resize(1);
  EXPECT_EQ(best_step(log), nullptr);
}

TEST(TrainingLog, BrokenLinesAreNamed) {
  const std::string good = training_log_text(three_steps());
  const auto refuse = [](const std::string& text,
                         std::initializer_list<std::string> parts) {
    test::expect_error(
        ErrorKind::Corrupt, parts, [&] { parse_training_log(text, "log"); });
  };
  refuse(good + "{", {"log, line 4"});
  refuse(good + "3", {"log, line 4", "expected an object"});
  refuse(good + good, {"line 4", "found step 1"});
  refuse(R"({"step": 1, "loss": "low"})", {"line 1", "loss"});
}

} // namespace
} // namespace optiq::artifacts
