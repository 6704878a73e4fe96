#include "optiq/cli/log_writer.h"

#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace optiq::cli {
namespace {

using Lines = std::vector<std::string>;

TEST(LogWriter, WritesLinesInOrderBeforeItEnds) {
  Lines lines;
  {
    LogWriter log([&](const std::string& line) { lines.push_back(line); });
    for (int i = 0; i < 100; ++i) {
      log.push(std::to_string(i));
    }
  }
  ASSERT_EQ(lines.size(), 100u);
  EXPECT_EQ(lines.front(), "0");
  EXPECT_EQ(lines.back(), "99");
}

TEST(LogWriter, DropsWhatAReaderThatHangsWouldPileUp) {
  Lines lines;
  std::promise<void> hangs;
  std::promise<void> reads;
  {
    LogWriter log(
        [&, first = true](const std::string& line) mutable {
          lines.push_back(line);
          if (std::exchange(first, false)) {
            hangs.set_value();
            reads.get_future().wait();
          }
        },
        3);
    log.push("first");
    hangs.get_future().wait();
    for (int i = 0; i < 10; ++i) {
      log.push(std::to_string(i)); // returns at once
    }
    reads.set_value();
  }
  EXPECT_EQ(
      lines,
      (Lines{"first", "0", "1", "2", "7 lines of the log were dropped"}));
}

/** What hangs for good is left behind: its state is its own. */
TEST(LogWriter, EndsBesideAReaderThatNeverReads) {
  const auto never = std::make_shared<std::promise<void>>();
  const auto started = std::make_shared<std::promise<void>>();
  {
    LogWriter log([never, started](const std::string&) {
      started->set_value();
      never->get_future().wait();
    });
    log.push("line");
    started->get_future().wait();
  }
  never->set_value();
}

} // namespace
} // namespace optiq::cli
