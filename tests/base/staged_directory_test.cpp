#include "optiq/base/staged_directory.h"

#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/wait.h>
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

} // namespace
} // namespace optiq
