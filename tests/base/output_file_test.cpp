#include "optiq/base/output_file.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/dying_child.h"
#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::names_in;
using test::read_file;
using test::run_and_die;
using test::ScratchFolder;
using test::write_file;
using Names = std::vector<std::string>;

TEST(OutputFile, AnUnfinishedFileIsRemoved) {
  const ScratchFolder folder;
  {
    OutputFile file(folder / "out", 3);
    file.write("abc");
    EXPECT_TRUE(fs::exists(folder / "out"));
  }
  EXPECT_FALSE(fs::exists(folder / "out"));
  OutputFile file(folder / "out", 3);
  file.write("abc");
  file.finish();
  EXPECT_EQ(read_file(folder / "out"), "abc");
  expect_error(
      ErrorKind::Io, {"out"}, [&] { OutputFile again(folder / "out", 3); });
  EXPECT_EQ(read_file(folder / "out"), "abc");
}

TEST(WriteFileAtomically, ReplacesTheContentAndLeavesNothingElse) {
  const ScratchFolder folder;
  write_file_atomically(folder / "a.json", "1");
  write_file_atomically(folder / "a.json", "");
  write_file_atomically(folder / "a.json", "22");
  EXPECT_EQ(read_file(folder / "a.json"), "22");
  EXPECT_EQ(names_in(folder.path()), Names{"a.json"});
  expect_error(ErrorKind::NotFound, {"absent"}, [&] {
    write_file_atomically(folder / "absent" / "a.json", "1");
  });
}

TEST(WriteFileAtomically, AFullDiskKeepsTheOldContent) {
  const ScratchFolder folder;
  write_file(folder / "a.json", "old");
  run_and_die([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit { 100, 100 };
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file_atomically(folder / "a.json", std::string(1000, 'x'));
      ::_exit(1);
    } catch (const Error& error) {
      const bool names_need =
          std::string(error.what()).find("1000 bytes") != std::string::npos;
      if (error.kind() != ErrorKind::Exhausted || !names_need) {
        ::_exit(2);
      }
    }
  });
  EXPECT_EQ(read_file(folder / "a.json"), "old");
  EXPECT_EQ(names_in(folder.path()), Names{"a.json"});
}

TEST(WriteFileAtomically, RemovesWhatAKilledWriterLeft) {
  const ScratchFolder folder;
  const pid_t dead = run_and_die([] {});
  const auto leftover = [](pid_t pid) {
    return ".a.json.tmp-" + std::to_string(pid) + "-0";
  };
  write_file(folder / leftover(dead), "half");
  write_file(folder / leftover(::getppid()), "somebody's");
  write_file(folder / ".a.json.tmp-x", "no process id");
  write_file_atomically(folder / "a.json", "1");
  Names expected{".a.json.tmp-x", leftover(::getppid()), "a.json"};
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(names_in(folder.path()), expected);
}

} // namespace
} // namespace optiq
