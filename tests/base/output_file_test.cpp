#include "optiq/base/output_file.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
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

mode_t mode_of(const fs::path& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0);
  return status.st_mode & 07777;
}

TEST(WriteNamedFile, FollowsLinksToTheFile) {
  const ScratchFolder folder;
  fs::create_directory(folder / "far");
  write_file(folder / "far/real", "old");
  fs::create_symlink("far/real", folder / "link");
  fs::create_symlink("link", folder / "link2");
  fs::create_symlink("far/new", folder / "dangling");
  write_named_file(folder / "link2", "1");
  write_named_file(folder / "dangling", "2");
  EXPECT_EQ(read_file(folder / "far/real"), "1");
  EXPECT_EQ(read_file(folder / "far/new"), "2");
  for (const char* link : {"link", "link2", "dangling"}) {
    EXPECT_TRUE(fs::is_symlink(folder / link)) << link;
  }
  EXPECT_EQ(names_in(folder / "far"), (Names{"new", "real"}));
}

TEST(WriteNamedFile, KeepsModeAndOwner) {
  const ScratchFolder folder;
  const fs::path file = folder / "page.html";
  write_file(file, "old");
  const bool is_root = ::geteuid() == 0;
  if (is_root) {
    ASSERT_EQ(::chown(file.c_str(), 65534, 65534), 0);
  }
  for (const mode_t mode : {0600, 0640, 0777, 0222}) {
    ASSERT_EQ(::chmod(file.c_str(), mode), 0);
    write_named_file(file, "new");
    EXPECT_EQ(mode_of(file), mode);
    struct stat status {};
    ::stat(file.c_str(), &status);
    EXPECT_EQ(status.st_uid, is_root ? 65534u : ::geteuid());
  }
  ::chmod(file.c_str(), 0600);
  EXPECT_EQ(read_file(file), "new");
}

TEST(WriteNamedFile, WritesThroughPipesAndDevices) {
  const ScratchFolder folder;
  const fs::path fifo = folder / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  fs::create_symlink("fifo", folder / "link");
  const std::string content(200'000, 'x'); // more than a pipe holds
  std::string arrived;
  std::thread reader([&] { arrived = read_file(fifo); });
  write_named_file(folder / "link", content);
  reader.join();
  EXPECT_EQ(arrived, content);
  EXPECT_TRUE(fs::is_fifo(fifo));
  struct stat before {};
  struct stat after {};
  ASSERT_EQ(::stat("/dev/null", &before), 0);
  write_named_file("/dev/null", content);
  ASSERT_EQ(::stat("/dev/null", &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  expect_error(ErrorKind::Exhausted, {"/dev/full", "1 bytes"}, [] {
    write_named_file("/dev/full", "x");
  });
  EXPECT_EQ(names_in(folder.path()), (Names{"fifo", "link"}));
}

TEST(WriteNamedFile, AnOpenDescriptorIsWrittenWhereItIs) {
  const ScratchFolder folder;
  const int fd = ::open((folder / "log").c_str(), O_WRONLY | O_CREAT, 0600);
  ASSERT_EQ(::write(fd, "first ", 6), 6);
  const std::string name = "/dev/fd/" + std::to_string(fd);
  fs::create_symlink(name, folder / "link");
  write_named_file(name, "second ");
  write_named_file(folder / "link", "third");
  ::close(fd);
  EXPECT_EQ(read_file(folder / "log"), "first second third");
  EXPECT_EQ(names_in(folder.path()), (Names{"link", "log"}));
  expect_error(ErrorKind::Io, {name}, [&] { write_named_file(name, "x"); });
}

TEST(WriteNamedFile, RefusesWhatIsNoFile) {
  const ScratchFolder folder;
  fs::create_directory(folder / "sub");
  write_file(folder / "file", "x");
  for (const char* name : {"sub", "sub/", "sub/.", "new/", "new/."}) {
    expect_error(ErrorKind::InvalidInput, {name, "folder"}, [&] {
      write_named_file(folder / name, "y");
    });
  }
  expect_error(
      ErrorKind::InvalidInput, {"empty"}, [] { write_named_file("", "y"); });
  expect_error(ErrorKind::NotFound, {"file: cannot enter it"}, [&] {
    write_named_file(folder / "file/", "y");
  });
  expect_error(ErrorKind::NotFound, {"absent"}, [&] {
    write_named_file(folder / "absent" / "a", "y");
  });
  EXPECT_EQ(names_in(folder.path()), (Names{"file", "sub"}));
  EXPECT_EQ(read_file(folder / "file"), "x");
}

} // namespace
} // namespace optiq
