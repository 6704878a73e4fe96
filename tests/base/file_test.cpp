#include "optiq/base/file.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::read_file;
using test::ScratchFolder;
using test::write_file;

/** Runs `body` in a child that then dies without any cleanup, as by kill -9;
 * returns its process id after its death. */
template <typename Body>
pid_t run_and_die(Body&& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status)); // it came to the end of body
  return child;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

using Names = std::vector<std::string>;

TEST(MappedFile, ShowsTheBytesOfTheFile) {
  const ScratchFolder folder;
  write_file(folder / "empty", "");
  EXPECT_EQ(MappedFile::open(folder / "empty")->bytes().size(), 0u);
  const std::string content(100'000, 'x');
  write_file(folder / "full", content);
  const auto file = MappedFile::open(folder / "full");
  const auto text = [&] {
    return std::string(
        reinterpret_cast<const char*>(file->bytes().data()),
        file->bytes().size());
  };
  EXPECT_EQ(text(), content);
  file->drop_pages(1, 99'999);
  EXPECT_EQ(text(), content); // read again from the file
}

TEST(InputFile, ReadsAndMapsPieces) {
  const ScratchFolder folder;
  std::string text(100'000, ' ');
  for (std::size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<char>(i * 31 >> 3);
  }
  test::write_file(folder / "f", text);
  const auto file = InputFile::open(folder / "f");
  EXPECT_EQ(file->size(), text.size());
  for (const std::size_t offset : {0u, 1u, 4095u, 4096u, 4097u, 99'999u}) {
    for (const std::size_t n : {0u, 1u, 4096u, 10'000u}) {
      if (offset + n > text.size()) {
        continue;
      }
      const auto piece = file->map(offset, n);
      const auto bytes = piece->bytes();
      const auto* begin = reinterpret_cast<const char*>(bytes.data());
      EXPECT_EQ(std::string(begin, bytes.size()), text.substr(offset, n));
      piece->drop_pages(0, n);
      piece->drop_pages(1, n);
      EXPECT_EQ(std::string(begin, bytes.size()), text.substr(offset, n));
      std::string read(n, '\0');
      file->read(offset, std::as_writable_bytes(std::span(read)));
      EXPECT_EQ(read, text.substr(offset, n));
    }
  }
  std::filesystem::resize_file(folder / "f", 50);
  std::string read(10, '\0');
  test::expect_error(ErrorKind::Io, {"f", "50", "100000"}, [&] {
    file->read(45, std::as_writable_bytes(std::span(read)));
  });
}

TEST(MappedFile, NamesWhatItCannotOpen) {
  const ScratchFolder folder;
  expect_error(ErrorKind::NotFound, {"absent"}, [&] {
    MappedFile::open(folder / "absent");
  });
  expect_error(
      ErrorKind::Io, {"a directory"}, [&] { MappedFile::open(folder.path()); });
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  expect_error(ErrorKind::Io, {"fifo", "special file"}, [&] {
    MappedFile::open(folder / "fifo"); // must not wait for a writer
  });
}

TEST(ReadTextFile, RefusesMoreThanAllowed) {
  const ScratchFolder folder;
  write_file(folder / "five", std::string("a\0b\nc", 5));
  EXPECT_EQ(read_text_file(folder / "five", 5), std::string("a\0b\nc", 5));
  expect_error(ErrorKind::InvalidInput, {"five", "5 bytes", "at most 4"}, [&] {
    read_text_file(folder / "five", 4);
  });
  expect_error(ErrorKind::NotFound, {"absent"}, [&] {
    read_text_file(folder / "absent", 4);
  });
}

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

TEST(StagedDirectory, AppearsOnlyWhenPublished) {
  const ScratchFolder folder;
  const fs::path target = folder.path() / "deep" / "er" / "out";
  {
    StagedDirectory staged(target, false);
    write_file(staged.path() / "a", "1");
    fs::create_directory(staged.path() / "sub");
    write_file(staged.path() / "sub" / "b", "2");
    EXPECT_FALSE(fs::exists(target));
    EXPECT_EQ(staged.path().parent_path(), fs::absolute(target.parent_path()));
    staged.publish();
    EXPECT_EQ(read_file(target / "sub" / "b"), "2");
  }
  EXPECT_EQ(names_in(target.parent_path()), Names{"out"});
  EXPECT_EQ(names_in(target), (Names{"a", "sub"}));
}

TEST(StagedDirectory, UnpublishedIsRemoved) {
  const ScratchFolder folder;
  {
    StagedDirectory staged(folder / "out/", false); // a trailing slash too
    write_file(staged.path() / "a", "1");
  }
  EXPECT_EQ(names_in(folder.path()), Names{});
}

TEST(StagedDirectory, AnExistingTargetIsKeptWithoutReplace) {
  const ScratchFolder folder;
  fs::create_directory(folder / "out");
  expect_error(ErrorKind::InvalidInput, {"out", "--overwrite"}, [&] {
    StagedDirectory staged(folder / "out", false);
  });
  fs::remove(folder / "out");
  StagedDirectory staged(folder / "out", false);
  fs::create_directory(folder / "out"); // made by somebody meanwhile
  expect_error(ErrorKind::InvalidInput, {"out"}, [&] { staged.publish(); });
  EXPECT_TRUE(fs::is_empty(folder / "out"));
}

TEST(StagedDirectory, ReplaceKeepsTheOldUntilSuccess) {
  const ScratchFolder folder;
  fs::create_directory(folder / "out");
  write_file(folder / "out" / "old", "1");
  {
    StagedDirectory staged(folder / "out", true);
    write_file(staged.path() / "new", "2");
  }
  EXPECT_EQ(names_in(folder / "out"), Names{"old"}); // not published
  {
    StagedDirectory staged(folder / "out", true);
    write_file(staged.path() / "new", "2");
    EXPECT_EQ(names_in(folder / "out"), Names{"old"});
    staged.publish();
  }
  EXPECT_EQ(names_in(folder / "out"), Names{"new"});
  EXPECT_EQ(names_in(folder.path()), Names{"out"});
}

TEST(StagedDirectory, ReplacingALinkKeepsWhatItPointsTo) {
  const ScratchFolder folder;
  fs::create_directory(folder / "precious");
  write_file(folder / "precious" / "a", "1");
  fs::create_directory_symlink("precious", folder / "out");
  StagedDirectory staged(folder / "out", true);
  staged.publish();
  EXPECT_EQ(names_in(folder / "precious"), Names{"a"});
  EXPECT_FALSE(fs::is_symlink(folder / "out"));
}

TEST(StagedDirectory, LeftoversOfAKilledProcessAreRemoved) {
  const ScratchFolder folder;
  run_and_die([&] {
    auto* staged = new StagedDirectory(folder / "out", false);
    write_file(staged->path() / "half", "1");
  });
  EXPECT_EQ(names_in(folder.path()).size(), 1u);
  StagedDirectory staged(folder / "out", false);
  staged.publish();
  EXPECT_EQ(names_in(folder.path()), Names{"out"});
  EXPECT_EQ(names_in(folder / "out"), Names{});
}

TEST(StagedDirectory, ThoseOfALiveProcessAndOfOtherTargetsStay) {
  const ScratchFolder folder;
  int to_parent[2];
  int to_child[2];
  ASSERT_EQ(::pipe(to_parent), 0);
  ASSERT_EQ(::pipe(to_child), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    StagedDirectory staged(folder / "out", false);
    char byte = 0;
    bool is_right = ::write(to_parent[1], &byte, 1) == 1;
    is_right = ::read(to_child[0], &byte, 1) == 1 && is_right;
    ::_exit(is_right && fs::exists(staged.path()) ? 0 : 1);
  }
  char byte = 0;
  ASSERT_EQ(::read(to_parent[0], &byte, 1), 1);
  const pid_t dead = run_and_die([] {});
  const std::string other = ".out2.staging-" + std::to_string(dead) + "-0";
  fs::create_directory(folder / other);
  {
    StagedDirectory mine(folder / "out", false);
    EXPECT_EQ(names_in(folder.path()).size(), 3u);
  }
  EXPECT_TRUE(fs::exists(folder / other));
  ASSERT_EQ(::write(to_child[1], &byte, 1), 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(StagedDirectory, ALockedFolderOfAnInvisibleProcessStays) {
  // A process id that is not here may live in another container: the lock says.
  const ScratchFolder folder;
  const pid_t dead = run_and_die([] {});
  StagedDirectory live(folder / "out", false);
  const fs::path foreign =
      folder / (".out.staging-" + std::to_string(dead) + "-0");
  fs::rename(live.path(), foreign); // the lock goes with the folder
  { StagedDirectory second(folder / "out", false); }
  EXPECT_TRUE(fs::exists(foreign));
}

TEST(StagedDirectory, AKillDuringReplacementIsUndoneOrCompleted) {
  const ScratchFolder folder;
  const pid_t dead = run_and_die([] {});
  const std::string aside = ".out.replaced-" + std::to_string(dead) + "-0";
  // Killed between the two renames: the old one comes back.
  fs::create_directory(folder / aside);
  write_file(folder / aside / "old", "1");
  { StagedDirectory staged(folder / "out", true); }
  EXPECT_EQ(names_in(folder.path()), Names{"out"});
  EXPECT_EQ(names_in(folder / "out"), Names{"old"});
  // Killed after them: the old one goes.
  fs::create_directory(folder / aside);
  { StagedDirectory staged(folder / "out", true); }
  EXPECT_EQ(names_in(folder.path()), Names{"out"});
  EXPECT_EQ(names_in(folder / "out"), Names{"old"});
}

TEST(StagedDirectory, AParentThatIsAFileIsNamed) {
  const ScratchFolder folder;
  write_file(folder / "file", "x");
  expect_error(ErrorKind::NotFound, {"file"}, [&] {
    StagedDirectory staged(folder / "file" / "out", false);
  });
}

TEST(FreeDiskBytes, AsksTheNearestParent) {
  const ScratchFolder folder;
  EXPECT_GT(free_disk_bytes(folder.path()), 0u);
  EXPECT_GT(free_disk_bytes(folder / "not/yet/there"), 0u);
}

} // namespace
} // namespace optiq
