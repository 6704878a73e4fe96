#include "optiq/cli/output.h"

#include <cstdio>
#include <string>

#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq::cli {
namespace {

/** What `call` prints to stdout where that is a file. */
template <typename Call>
std::string printed(const Call& call) {
  testing::internal::CaptureStdout();
  call();
  return testing::internal::GetCapturedStdout();
}

/** What `call` prints where stdout is a terminal, which writes \r\n for \n. */
template <typename Call>
std::string shown_on_terminal(const Call& call) {
  int terminal = -1;
  const pid_t child = ::forkpty(&terminal, nullptr, nullptr, nullptr);
  if (child == 0) {
    call();
    std::fflush(stdout);
    ::_exit(0);
  }
  std::string text;
  char buffer[256];
  for (ssize_t n = 0; (n = ::read(terminal, buffer, sizeof(buffer))) > 0;) {
    text.append(buffer, static_cast<std::size_t>(n));
  }
  ::close(terminal);
  ::waitpid(child, nullptr, 0);
  return text;
}

TEST(Terminal, ValuesAreEscapedAndOurOwnNewlinesStay) {
  const std::string name = "lm\x1b[2J_head\nfake line";
  EXPECT_EQ(
      printed([&] { print("{:>4} {}\n", 7, name); }),
      "   7 lm\\x1b[2J_head\\nfake line\n");
  EXPECT_EQ(
      printed([&] { print("{} {} {}\n", name.c_str(), "\xe9", 1.5); }),
      "lm\\x1b[2J_head\\nfake line \\xe9 1.5\n");
  EXPECT_EQ(
      printed([] { print_lines(stdout, "a\n\tb\x1b\n"); }), "a\n\tb\\x1b\n");
}

TEST(Terminal, OutputIsRawButOnATerminal) {
  const auto text = [] {
    print_output("a\x1b[31m\n\tb\r\xc2\x9b\xe2\x80\xae");
  };
  EXPECT_EQ(printed(text), "a\x1b[31m\n\tb\r\xc2\x9b\xe2\x80\xae");
  EXPECT_EQ(shown_on_terminal(text), "a\\x1b[31m\r\n\tb\\r\\u009b\\u202e");
}

TEST(Terminal, JsonIsAlwaysJson) {
  EXPECT_EQ(
      printed([] {
        print_json_document({{"model", "/tmp/mod\xe9l\x1b"}}, -1);
      }),
      "{\"model\":\"/tmp/mod\\\\xe9l\\u001b\"}\n");
}

TEST(Terminal, StandardInputHasALimit) {
  const test::ScratchFolder folder;
  test::write_file(folder / "input", std::string(100'000, 'x'));
  ASSERT_NE(std::freopen((folder / "input").c_str(), "r", stdin), nullptr);
  EXPECT_EQ(read_standard_input(100'000).size(), 100'000u);
  std::rewind(stdin);
  test::expect_error(ErrorKind::InvalidInput, {"stdin", "99999 bytes"}, [] {
    read_standard_input(99'999);
  });
}

} // namespace
} // namespace optiq::cli
