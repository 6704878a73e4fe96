#include "optiq/base/staged_directory.h"

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

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

FolderKind notes() {
  return {
      .name = "a folder of notes",
      .files = {"a", "half", "new*", "old", "sub/b", "sub/deep/c"},
      .required = {}};
}

StagedOptions keep() {
  return {.kind = notes()};
}

StagedOptions replace() {
  return {.kind = notes(), .replace = true};
}

TEST(StagedDirectory, AppearsOnlyWhenPublished) {
  const ScratchFolder folder;
  const fs::path target = folder.path() / "deep" / "er" / "out";
  {
    StagedDirectory staged(target, keep());
    write_file(staged.path() / "a", "1");
    fs::create_directory(staged.path() / "sub");
    write_file(staged.path() / "sub" / "b", "2");
    EXPECT_FALSE(fs::exists(target));
    EXPECT_EQ(staged.path().parent_path(), fs::canonical(target.parent_path()));
    staged.publish();
    EXPECT_EQ(read_file(target / "sub" / "b"), "2");
  }
  EXPECT_EQ(names_in(target.parent_path()), Names{"out"});
  EXPECT_EQ(names_in(target), (Names{"a", "sub"}));
}

TEST(StagedDirectory, UnpublishedIsRemoved) {
  const ScratchFolder folder;
  {
    StagedDirectory staged(folder / "out/", keep()); // a trailing slash too
    write_file(staged.path() / "a", "1");
  }
  EXPECT_EQ(names_in(folder.path()), Names{});
}

TEST(StagedDirectory, AnExistingTargetIsKeptWithoutReplace) {
  const ScratchFolder folder;
  fs::create_directory(folder / "out");
  expect_error(ErrorKind::InvalidInput, {"out", "--overwrite"}, [&] {
    StagedDirectory staged(folder / "out", keep());
  });
  fs::remove(folder / "out");
  StagedDirectory staged(folder / "out", keep());
  fs::create_directory(folder / "out"); // made by somebody meanwhile
  expect_error(ErrorKind::InvalidInput, {"out"}, [&] { staged.publish(); });
  EXPECT_TRUE(fs::is_empty(folder / "out"));
}

TEST(StagedDirectory, ReplaceKeepsTheOldUntilSuccess) {
  const ScratchFolder folder;
  fs::create_directory(folder / "out");
  write_file(folder / "out" / "old", "1");
  {
    StagedDirectory staged(folder / "out", replace());
    write_file(staged.path() / "new", "2");
  }
  EXPECT_EQ(names_in(folder / "out"), Names{"old"}); // not published
  ASSERT_EQ(::chmod((folder / "out").c_str(), 0750), 0);
  {
    StagedDirectory staged(folder / "out", replace());
    write_file(staged.path() / "new", "2");
    EXPECT_EQ(names_in(folder / "out"), Names{"old"});
    staged.publish();
  }
  EXPECT_EQ(names_in(folder / "out"), Names{"new"});
  EXPECT_EQ(names_in(folder.path()), Names{"out"});
  EXPECT_EQ(fs::status(folder / "out").permissions(), fs::perms{0750});
}

TEST(StagedDirectory, ALinkLeadsToTheFolderThatIsReplaced) {
  const ScratchFolder folder;
  fs::create_directory(folder / "real");
  write_file(folder / "real" / "a", "1");
  fs::create_directory_symlink("real", folder / "link");
  fs::create_directory_symlink("absent", folder / "dangling");
  for (const char* name : {"link", "dangling"}) {
    StagedDirectory staged(folder / name, replace());
    write_file(staged.path() / "new", "2");
    staged.publish();
    EXPECT_TRUE(fs::is_symlink(folder / name));
    EXPECT_EQ(names_in(folder / name), Names{"new"});
  }
  EXPECT_EQ(
      names_in(folder.path()), (Names{"absent", "dangling", "link", "real"}));
}

TEST(StagedDirectory, WhatFailsLeavesNoParents) {
  const ScratchFolder folder;
  fs::create_directory(folder / "there");
  { StagedDirectory staged(folder.path() / "there/deep/er/out", keep()); }
  EXPECT_EQ(names_in(folder / "there"), Names{});
}

TEST(StagedDirectory, AFolderWithAForeignEntryIsKept) {
  const ScratchFolder folder;
  const fs::path out = folder / "out";
  fs::create_directories(out / "sub/deep");
  for (const char* known : {"a", "new1", "sub/b", "sub/deep/c"}) {
    write_file(out / known, known);
  }
  const auto refuse = [&](const std::string& first) {
    expect_error(ErrorKind::InvalidInput, {"'" + first + "'", "notes"}, [&] {
      StagedDirectory staged(out, replace());
    });
    EXPECT_EQ(names_in(folder.path()), Names{"out"});
  };
  for (const char* foreign : {"b", "sub/c", "sub/deep/.c", ".git", "zz"}) {
    write_file(out / foreign, "mine");
    refuse(foreign);
    fs::remove(out / foreign);
  }
  for (const char* foreign : {"half", "sub/deep/deeper"}) { // folders
    fs::create_directory(out / foreign);
    refuse(foreign);
    fs::remove(out / foreign);
  }
  ASSERT_EQ(::mkfifo((out / "old").c_str(), 0600), 0);
  refuse("old");
  fs::remove(out / "old");
  fs::create_directory_symlink(folder.path(), out / "sub/deep/link");
  refuse("sub/deep/link");
  fs::remove(out / "sub/deep/link");
  fs::create_symlink("/etc", out / "old"); // as a file: itself, not its goal
  StagedDirectory staged(out, replace());
  staged.publish();
  EXPECT_EQ(names_in(out), Names{});
  EXPECT_EQ(names_in(folder.path()), Names{"out"});
  EXPECT_TRUE(fs::exists("/etc"));
}

TEST(StagedDirectory, AFolderWithoutWhatItsKindRequiresIsKept) {
  const ScratchFolder folder;
  fs::create_directory(folder / "out");
  write_file(folder / "out/a", "1");
  StagedOptions options = replace();
  options.kind.required = {"new*"};
  expect_error(ErrorKind::InvalidInput, {"no new*", "notes"}, [&] {
    StagedDirectory staged(folder / "out", options);
  });
  write_file(folder / "out/new7", "1");
  StagedDirectory staged(folder / "out", options);
}

TEST(StagedDirectory, AFileIsNoFolder) {
  const ScratchFolder folder;
  write_file(folder / "out", "mine");
  expect_error(ErrorKind::InvalidInput, {"out", "a file"}, [&] {
    StagedDirectory staged(folder / "out", replace());
  });
  EXPECT_EQ(read_file(folder / "out"), "mine");
}

TEST(StagedDirectory, TheSourceIsKept) {
  const ScratchFolder folder;
  fs::create_directories(folder / "in/source/sub");
  fs::create_directory(folder / "weights");
  write_file(folder / "weights/a", "1");
  fs::create_symlink("../../weights/a", folder / "in/source/a");
  fs::create_directory_symlink("in/source/sub", folder / "link");
  StagedOptions options = replace();
  options.source = folder / "in/source";
  for (const char* name :
       {"in/source",
        "in/source/.",
        "link/..",
        "link/../../source/",
        "in",
        "link",
        "in/source/new",
        "link/new",
        "weights",
        "link/../../.."}) {
    expect_error(ErrorKind::InvalidInput, {"source"}, [&] {
      StagedDirectory staged(folder / name, options);
    });
  }
  EXPECT_EQ(names_in(folder.path()), (Names{"in", "link", "weights"}));
  EXPECT_EQ(names_in(folder / "in/source"), (Names{"a", "sub"}));
  options.place_in_source = folder / "in/source/sub/kv";
  StagedDirectory staged(folder / "link/kv", options);
  staged.publish();
  EXPECT_TRUE(fs::is_directory(folder / "in/source/sub/kv"));
}

TEST(StagedDirectory, HomeRootAndWorkingFolderAreKept) {
  const ScratchFolder folder;
  fs::create_directories(folder / "home/sub");
  const char* set = std::getenv("HOME");
  const std::string home = set != nullptr ? set : "";
  ::setenv("HOME", (folder / "home/sub").c_str(), 1);
  for (const char* name : {"home", "home/sub", "home/sub/."}) {
    expect_error(ErrorKind::InvalidInput, {"home folder"}, [&] {
      StagedDirectory staged(folder / name, replace());
    });
  }
  ::setenv("HOME", home.c_str(), 1);
  expect_error(ErrorKind::InvalidInput, {"working folder"}, [] {
    StagedDirectory staged(".", replace());
  });
  expect_error(ErrorKind::InvalidInput, {"/: is the root"}, [] {
    StagedDirectory staged("/", replace());
  });
}

TEST(StagedDirectory, ATargetThatChangedIsKept) {
  const std::vector<std::function<void(const fs::path&)>> changes = {
      [](const fs::path& out) { write_file(out / "new", "1"); },
      [](const fs::path& out) { write_file(out / "mine", "1"); },
      [](const fs::path& out) { fs::remove(out / "a"); },
      [](const fs::path& out) { write_file(out / "sub/b", "longer"); },
      [](const fs::path& out) {
        fs::rename(out, out.string() + "-moved");
        fs::create_directories(out / "sub");
        write_file(out / "a", "1");
        write_file(out / "sub/b", "2");
      },
      [](const fs::path& out) {
        fs::rename(out, out.string() + "-moved");
        write_file(out, "a file");
      }};
  for (const auto& change : changes) {
    const ScratchFolder folder;
    const fs::path out = folder / "out";
    fs::create_directories(out / "sub");
    write_file(out / "a", "1");
    write_file(out / "sub/b", "2");
    StagedDirectory staged(out, replace());
    write_file(staged.path() / "new", "3");
    change(out);
    const Names before = names_in(folder.path());
    const bool is_folder = fs::is_directory(out);
    const Names inside = is_folder ? names_in(out) : Names{};
    expect_error(ErrorKind::InvalidInput, {"out"}, [&] { staged.publish(); });
    EXPECT_EQ(names_in(folder.path()), before);
    EXPECT_EQ(fs::is_directory(out), is_folder);
    EXPECT_EQ(is_folder ? names_in(out) : Names{}, inside);
  }
}

TEST(StagedDirectory, ATargetThatIsGoneIsWritten) {
  const ScratchFolder folder;
  fs::create_directory(folder / "out");
  StagedDirectory staged(folder / "out", replace());
  fs::remove(folder / "out");
  staged.publish();
  EXPECT_EQ(names_in(folder.path()), Names{"out"});
}

TEST(StagedDirectory, LeftoversOfAKilledProcessAreRemoved) {
  const ScratchFolder folder;
  run_and_die([&] {
    auto* staged = new StagedDirectory(folder / "out", keep());
    write_file(staged->path() / "half", "1");
  });
  EXPECT_EQ(names_in(folder.path()).size(), 1u);
  StagedDirectory staged(folder / "out", keep());
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
    StagedDirectory staged(folder / "out", keep());
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
    StagedDirectory mine(folder / "out", keep());
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
  StagedDirectory live(folder / "out", keep());
  const fs::path foreign =
      folder / (".out.staging-" + std::to_string(dead) + "-0");
  fs::rename(live.path(), foreign); // the lock goes with the folder
  { StagedDirectory second(folder / "out", keep()); }
  EXPECT_TRUE(fs::exists(foreign));
}

TEST(StagedDirectory, AKillDuringReplacementIsUndoneOrCompleted) {
  const ScratchFolder folder;
  const pid_t dead = run_and_die([] {});
  const std::string aside = ".out.replaced-" + std::to_string(dead) + "-0";
  // Killed between the two renames: the old one comes back.
  fs::create_directory(folder / aside);
  write_file(folder / aside / "old", "1");
  { StagedDirectory staged(folder / "out", replace()); }
  EXPECT_EQ(names_in(folder.path()), Names{"out"});
  EXPECT_EQ(names_in(folder / "out"), Names{"old"});
  // Killed after them: the old one goes.
  fs::create_directory(folder / aside);
  { StagedDirectory staged(folder / "out", replace()); }
  EXPECT_EQ(names_in(folder.path()), Names{"out"});
  EXPECT_EQ(names_in(folder / "out"), Names{"old"});
}

TEST(StagedDirectory, LeftoversWithAForeignEntryStay) {
  const ScratchFolder folder;
  const std::string dead = std::to_string(run_and_die([] {}));
  for (const std::string prefix : {".out.replaced-", ".out.staging-"}) {
    const std::string name = prefix + dead + "-0";
    fs::create_directories(folder / name / "sub");
    write_file(folder / name / "a", "ours");
    write_file(folder / name / "sub/mine", "1");
    fs::create_directories(folder / "out");
    { StagedDirectory staged(folder / "out", replace()); }
    EXPECT_EQ(names_in(folder.path()), (Names{name, "out"}));
    EXPECT_EQ(names_in(folder / name), (Names{"a", "sub"}));
    fs::remove_all(folder / name);
  }
}

#if defined(__linux__)
/** From now on renameat2 is a call that this kernel does not have. */
void forbid_renameat2() {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_renameat2, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const struct sock_fprog program = {std::size(code), code};
  ASSERT_EQ(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
  ASSERT_EQ(::syscall(SYS_renameat2, 0, "", 0, "", 0), -1);
  ASSERT_EQ(errno, ENOSYS);
}

TEST(StagedDirectory, ReplacesAlsoWithoutExchange) {
  const ScratchFolder folder;
  fs::create_directories(folder / "out/sub");
  write_file(folder / "out/sub/b", "1");
  run_and_die([&] {
    forbid_renameat2();
    for (const char* name : {"out", "second", "second"}) {
      StagedDirectory staged(folder / name, replace());
      write_file(staged.path() / "new", "2");
      staged.publish();
    }
    StagedDirectory late(folder / "third", replace());
    fs::create_directory(folder / "third"); // somebody's
    expect_error(ErrorKind::InvalidInput, {"third"}, [&] { late.publish(); });
    if (::testing::Test::HasFailure()) {
      ::_exit(1);
    }
  });
  EXPECT_EQ(names_in(folder / "out"), Names{"new"});
  EXPECT_EQ(names_in(folder / "second"), Names{"new"});
  EXPECT_EQ(names_in(folder / "third"), Names{});
}
#endif

TEST(StagedDirectory, AParentThatIsAFileIsNamed) {
  const ScratchFolder folder;
  write_file(folder / "file", "x");
  expect_error(ErrorKind::NotFound, {"file"}, [&] {
    StagedDirectory staged(folder / "file" / "out", keep());
  });
}

} // namespace
} // namespace optiq
