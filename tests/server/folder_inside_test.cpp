#include "optiq/server/folder_inside.h"

#include <fstream>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq::server {
namespace {

namespace fs = std::filesystem;

/** root/{a/f, team/b, file, ...}, outside/{a/f}, rootlike/a */
class FolderInsideTest : public ::testing::Test {
 protected:
  FolderInsideTest() : top_(fs::canonical(scratch_ / ".")) {
    for (const char* folder :
         {"root/a", "root/team/b", "outside/a", "rootlike/a"}) {
      fs::create_directories(top_ / folder);
    }
    for (const char* file : {"root/file", "root/a/f", "outside/a/f"}) {
      std::ofstream(top_ / file) << "x";
    }
  }

  fs::path inside(const std::string& path) const {
    return folder_inside(top_ / "root", path);
  }
  void expect_denied(const std::string& path) const {
    test::expect_error(
        ErrorKind::Denied,
        {"path \"" + path + "\"", "outside of --adapters-root"},
        [&] { inside(path); });
  }

  test::ScratchFolder scratch_;
  fs::path top_;
};

TEST_F(FolderInsideTest, FindsFoldersOfTheRoot) {
  EXPECT_EQ(inside("a"), top_ / "root/a");
  EXPECT_EQ(inside("team/b"), top_ / "root/team/b");
  EXPECT_EQ(inside("team/../a/."), top_ / "root/a");
  EXPECT_EQ(inside((top_ / "root/a").string()), top_ / "root/a");
  fs::create_directory_symlink(top_ / "root/a", top_ / "root/link");
  EXPECT_EQ(inside("link"), top_ / "root/a");
}

TEST_F(FolderInsideTest, RefusesWhatLeadsOut) {
  expect_denied("..");
  expect_denied("../outside/a");
  expect_denied("../rootlike/a");
  expect_denied("../nothing");
  expect_denied("a/../../outside/a");
  expect_denied("/etc");
  expect_denied((top_ / "outside/a").string());
  fs::create_directory_symlink(top_ / "outside/a", top_ / "root/link");
  expect_denied("link");
  expect_denied("link/.");
  fs::create_directory_symlink(top_ / "outside", top_ / "root/team/up");
  expect_denied("team/up/a");
}

TEST_F(FolderInsideTest, RefusesAFolderOneOfWhoseFilesLiesElsewhere) {
  fs::create_symlink(top_ / "root/a/f", top_ / "root/team/b/own");
  EXPECT_EQ(inside("team/b"), top_ / "root/team/b"); // as in a hub's cache
  fs::create_symlink("../../../outside/a/f", top_ / "root/team/b/theirs");
  expect_denied("team/b");
  fs::remove(top_ / "root/team/b/theirs");
  fs::create_symlink(top_ / "nowhere", top_ / "root/team/b/dangling");
  expect_denied("team/b");
}

TEST_F(FolderInsideTest, SaysThatThereIsNoFolder) {
  for (const std::string path : {"b", "file", "a/f", "file/x"}) {
    test::expect_error(
        ErrorKind::NotFound, {path, "no such folder"}, [&] { inside(path); });
  }
}

} // namespace
} // namespace optiq::server
