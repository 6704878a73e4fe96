#include <filesystem>

#include <fcntl.h>
#include <gtest/gtest.h>

#include "support/scratch_folder.h"

#include "optiq/base/folder_listing_impl.h"
#include "optiq/base/posix_impl.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;
using test::names_in;
using test::read_file;
using test::ScratchFolder;
using test::write_file;
using Names = std::vector<std::string>;

/** A listed folder "old" with a, sub/b and sub/deep/c. */
struct Listed {
  ScratchFolder folder;
  Descriptor parent{::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY)};
  FolderListing listing;

  Listed() {
    fs::create_directories(folder / "old/sub/deep");
    for (const char* name : {"a", "sub/b", "sub/deep/c"}) {
      write_file(folder / "old" / name, name);
    }
    listing = list_folder(
        folder / "old", {"notes", {"a", "sub/b", "sub/deep/c"}, {}});
  }

  bool remove() {
    return remove_listed(parent.get(), "old", listing);
  }
};

TEST(ListFolder, AFolderComesBeforeWhatLiesInIt) {
  const Listed listed;
  Names paths;
  for (const FolderEntry& entry : listed.listing) {
    paths.push_back(entry.path);
  }
  EXPECT_EQ(paths, (Names{"", "a", "sub", "sub/b", "sub/deep", "sub/deep/c"}));
}

TEST(RemoveListed, RemovesAllThatWasListed) {
  Listed listed;
  EXPECT_TRUE(listed.remove());
  EXPECT_EQ(names_in(listed.folder.path()), Names{});
}

TEST(RemoveListed, WhatCameLaterStays) {
  Listed listed;
  write_file(listed.folder / "old/sub/mine", "1");
  EXPECT_FALSE(listed.remove());
  EXPECT_EQ(names_in(listed.folder / "old"), Names{"sub"});
  EXPECT_EQ(names_in(listed.folder / "old/sub"), Names{"mine"});
}

TEST(RemoveListed, DoesNotFollowALinkThatCameLater) {
  Listed listed;
  fs::create_directory(listed.folder / "precious");
  write_file(listed.folder / "precious/c", "1");
  fs::remove_all(listed.folder / "old/sub/deep");
  fs::create_directory_symlink(
      "../../precious", listed.folder / "old/sub/deep");
  EXPECT_FALSE(listed.remove());
  EXPECT_EQ(read_file(listed.folder / "precious/c"), "1");
}

TEST(IsMountPoint, TellsTheRootAndMountsFromFolders) {
  const ScratchFolder folder;
  write_file(folder / "file", "x");
  EXPECT_TRUE(is_mount_point("/"));
  EXPECT_FALSE(is_mount_point(folder.path()));
  EXPECT_FALSE(is_mount_point(folder / "file"));
  EXPECT_FALSE(is_mount_point(folder / "absent"));
#if defined(__linux__)
  EXPECT_TRUE(is_mount_point("/proc"));
#endif
}

} // namespace
} // namespace optiq
