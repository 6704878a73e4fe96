#include "optiq/cli/event_stream.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "optiq/base/error.h"

namespace optiq::cli {
namespace {

/** The events of a stream that comes in pieces of this size. */
std::vector<std::string> events_of(std::string_view text, std::size_t size) {
  EventStream stream;
  std::vector<std::string> events;
  for (std::size_t i = 0; i < text.size(); i += size) {
    stream.push(text.substr(i, size), [&](std::string_view data) {
      events.emplace_back(data);
    });
  }
  return events;
}

TEST(EventStream, TakesEventsHoweverTheyCome) {
  const std::string text =
      ": hello\n\ndata: one\n\nevent: x\ndata:two\ndata:  lines\r\n\r\n"
      "data\rid: 7\r\rdata: never ended\n";
  const std::vector<std::string> expected{"one", "two\n lines", ""};
  for (const std::size_t size : {1u, 2u, 7u, 1000u}) {
    EXPECT_EQ(events_of(text, size), expected) << size;
  }
}

TEST(EventStream, RefusesAnEndlessEvent) {
  EventStream stream;
  const std::string piece(1 << 20, 'x');
  const auto ignore = [](std::string_view) {};
  EXPECT_THROW(
      {
        for (int i = 0; i < 17; ++i) {
          stream.push(piece, ignore);
        }
      },
      Error);
}

} // namespace
} // namespace optiq::cli
