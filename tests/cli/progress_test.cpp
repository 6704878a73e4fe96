#include "optiq/cli/progress.h"

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "support/expect_error.h"

namespace optiq::cli {
namespace {

/** What a printer writes for the events. */
std::string printed(
    ProgressMode mode,
    const std::vector<ProgressEvent>& events) {
  std::FILE* file = std::tmpfile();
  {
    ProgressPrinter printer(mode, file);
    for (const ProgressEvent& event : events) {
      printer.show(event);
    }
  }
  std::string text(static_cast<std::size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  EXPECT_EQ(std::fread(text.data(), 1, text.size(), file), text.size());
  std::fclose(file);
  return text;
}

TEST(ProgressPrinter, PlainLinesInAPipe) {
  const std::vector<ProgressEvent> events = {
      {"write", 0, 8, "a"}, {"write", 1, 8, "b"}, {"write", 8, 8, "c"}};
  // The second event comes too soon after the first to be worth a line.
  EXPECT_EQ(
      printed(ProgressMode::Auto, events),
      "write: 0.0%, a\nwrite: 100.0%, c\n");
  EXPECT_EQ(
      printed(ProgressMode::Plain, events),
      printed(ProgressMode::Auto, events));
  EXPECT_EQ(printed(ProgressMode::None, events), "");
}

TEST(ProgressPrinter, AStageStartsItsOwnLine) {
  EXPECT_EQ(
      printed(ProgressMode::Plain, {{"a", 0, 2, ""}, {"b", 1, 4, ""}}),
      "a: 0.0%\nb: 25.0%\n");
}

TEST(ProgressPrinter, TheBarRedrawsItsLineAndEndsIt) {
  const std::string text = printed(
      ProgressMode::Bar, {{"write", 0, 2, "long detail"}, {"write", 2, 2, ""}});
  EXPECT_EQ(text.front(), '\r');
  EXPECT_EQ(text.back(), '\n');
  const std::size_t second = text.find('\r', 1);
  ASSERT_NE(second, std::string::npos);
  EXPECT_NE(text.find("[........................]   0.0%"), std::string::npos);
  EXPECT_NE(
      text.find("[########################] 100.0%", second),
      std::string::npos);
  // The shorter line covers the longer one.
  EXPECT_EQ(text.size() - 1 - second, second);
}

TEST(ProgressPrinter, JsonIsOneObjectALine) {
  const std::string text =
      printed(ProgressMode::Json, {{"measure", 3, 12, "x \"y\""}});
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json.at("event"), "progress");
  EXPECT_EQ(json.at("stage"), "measure");
  EXPECT_EQ(json.at("done"), 3);
  EXPECT_EQ(json.at("total"), 12);
  EXPECT_EQ(json.at("detail"), "x \"y\"");
  EXPECT_TRUE(json.at("eta").is_null());
}

TEST(ParseProgressMode, KnowsItsNames) {
  EXPECT_EQ(parse_progress_mode("json"), ProgressMode::Json);
  test::expect_error(
      ErrorKind::InvalidInput, {"loud"}, [] { parse_progress_mode("loud"); });
}

TEST(FormatDuration, CountsWholeSecondsUp) {
  EXPECT_EQ(format_duration(0), "0:00");
  EXPECT_EQ(format_duration(59.2), "1:00");
  EXPECT_EQ(format_duration(3753), "1:02:33");
}

} // namespace
} // namespace optiq::cli
