#include "optiq/base/output_path.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::ScratchFolder;
using test::write_file;

/** A scratch folder with a/b (folders), a/file, and links. */
struct Tree {
  ScratchFolder folder;
  fs::path root = fs::canonical(folder.path());

  Tree() {
    fs::create_directories(root / "a" / "b");
    write_file(root / "a" / "file", "x");
    fs::create_directory_symlink("a/b", root / "to-b");
    fs::create_symlink("to-b", root / "to-to-b");
    fs::create_symlink(root / "absent" / "x", root / "dangling");
    fs::create_symlink("loop", root / "loop");
  }
};

TEST(ResolveOutput, LeadsWhereTheSystemDoes) {
  const Tree tree;
  for (const char* name :
       {"a",
        "a/",
        "a/.",
        "a//b/..",
        "to-b",
        "to-b/..",
        "to-b/../file",
        "to-to-b/.",
        "a/b/../../to-b/../b"}) {
    EXPECT_EQ(resolve_output(tree.root / name), fs::canonical(tree.root / name))
        << name;
  }
  // A link and "..": a/b/.. is a, not the folder that the link lies in.
  EXPECT_EQ(resolve_output(tree.root / "to-b/.."), tree.root / "a");
  EXPECT_EQ(resolve_output("/.."), "/");
}

TEST(ResolveOutput, TheEndMayBeAbsent) {
  const Tree tree;
  EXPECT_EQ(resolve_output(tree.root / "new"), tree.root / "new");
  EXPECT_EQ(resolve_output(tree.root / "new/"), tree.root / "new");
  EXPECT_EQ(resolve_output(tree.root / "to-b/n/m"), tree.root / "a/b/n/m");
  EXPECT_EQ(resolve_output(tree.root / "dangling"), tree.root / "absent/x");
  EXPECT_EQ(resolve_output("no-such"), fs::current_path() / "no-such");
}

TEST(ResolveOutput, RefusesWhatLeadsNowhere) {
  const Tree tree;
  expect_error(
      ErrorKind::InvalidInput, {"empty path"}, [] { resolve_output(""); });
  expect_error(ErrorKind::InvalidInput, {"'..'", "none"}, [&] {
    resolve_output(tree.root / "none" / "..");
  });
  expect_error(ErrorKind::InvalidInput, {"'..'", "absent/x"}, [&] {
    resolve_output(tree.root / "dangling" / "..");
  });
  for (const char* name : {"a/file/", "a/file/.", "a/file/..", "a/file/x"}) {
    expect_error(ErrorKind::NotFound, {"a/file: cannot enter it"}, [&] {
      resolve_output(tree.root / name);
    });
  }
  expect_error(ErrorKind::Io, {"loop", "follow its links"}, [&] {
    resolve_output(tree.root / "loop");
  });
  expect_error(ErrorKind::Io, {"too long"}, [&] {
    resolve_output(tree.root / std::string(300, 'n'));
  });
}

TEST(IsWithin, ComparesWholeNames) {
  EXPECT_TRUE(is_within("/a/b", "/a/b"));
  EXPECT_TRUE(is_within("/a/b/c", "/a/b"));
  EXPECT_TRUE(is_within("/a", "/"));
  EXPECT_FALSE(is_within("/a/bc", "/a/b"));
  EXPECT_FALSE(is_within("/a", "/a/b"));
}

} // namespace
} // namespace optiq
