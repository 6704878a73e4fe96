#include "optiq/io/hub/cache.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq::io {
namespace {

namespace fs = std::filesystem;

const std::string kFirst(40, '1');
const std::string kSecond(40, '2');

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

/** Two revisions of a/b that share one blob of three. */
HubCache two_revisions(const fs::path& root) {
  HubCache cache(root);
  write(cache.blob("a/b", "shared"), "12345");
  write(cache.blob("a/b", "first"), "1");
  write(cache.blob("a/b", "second"), "22");
  for (const auto& [commit, own] :
       {std::pair(kFirst, "first"), std::pair(kSecond, "second")}) {
    cache.link("a/b", commit, "config.json", own);
    cache.link("a/b", commit, "sub/weights", "shared");
    cache.link("a/b", commit, "again", "shared");
  }
  cache.write_ref({.repo = "a/b"}, kSecond);
  cache.write_ref({.repo = "a/b", .revision = "refs/pr/1"}, kFirst);
  return cache;
}

TEST(HubCache, LaysOutAsTheOthersDo) {
  const test::ScratchFolder folder;
  const HubCache cache = two_revisions(folder.path());
  const fs::path repo = folder.path() / "models--a--b";
  EXPECT_EQ(
      fs::read_symlink(repo / "snapshots" / kFirst / "sub" / "weights"),
      "../../../blobs/shared");
  std::string commit;
  std::ifstream(repo / "refs" / "refs" / "pr" / "1") >> commit;
  EXPECT_EQ(commit, kFirst);
  EXPECT_EQ(cache.commit_of({.repo = "a/b"}), kSecond);
  EXPECT_EQ(cache.commit_of({.repo = "a/b", .revision = kFirst}), kFirst);
  EXPECT_EQ(cache.commit_of({.repo = "a/b", .revision = "v1"}), std::nullopt);
  EXPECT_EQ(
      cache.lock("a/b", "first"),
      folder.path() / ".locks" / "models--a--b" / "first.lock");
  EXPECT_EQ(repo_of_snapshot(cache.snapshot("a/b", kFirst)), "a/b");
  EXPECT_EQ(
      repo_of_snapshot(cache.snapshot("a/b", kFirst) / "sub" / "weights"),
      "a/b");
  EXPECT_EQ(repo_of_snapshot(repo), std::nullopt);
  EXPECT_EQ(repo_of_snapshot(repo / "snapshots"), std::nullopt);
  EXPECT_EQ(repo_of_snapshot(folder.path() / "absent"), std::nullopt);
}

TEST(HubCache, LinksAgainWhereABlobChanged) {
  const test::ScratchFolder folder;
  const HubCache cache = two_revisions(folder.path());
  cache.link("a/b", kFirst, "config.json", "second");
  const fs::path snapshot = cache.snapshot("a/b", kFirst);
  EXPECT_EQ(fs::read_symlink(snapshot / "config.json"), "../../blobs/second");
  EXPECT_EQ(
      std::distance(fs::directory_iterator(snapshot), fs::directory_iterator()),
      3);
}

TEST(HubCache, CountsEachBlobOnce) {
  const test::ScratchFolder folder;
  const HubCache cache = two_revisions(folder.path());
  write(cache.blob("a/b", "third.incomplete"), "333");
  fs::create_directories(folder.path() / "datasets--a--b" / "snapshots");
  fs::create_directories(folder.path() / "models--not--a--model");
  const auto repos = cache.list();
  ASSERT_EQ(repos.size(), 1);
  EXPECT_EQ(repos[0].repo, "a/b");
  EXPECT_EQ(repos[0].bytes, 5 + 1 + 2 + 3);
  EXPECT_EQ(repos[0].unfinished_bytes, 3);
  ASSERT_EQ(repos[0].revisions.size(), 2);
  EXPECT_EQ(repos[0].revisions[0].commit, kFirst);
  EXPECT_EQ(repos[0].revisions[0].bytes, 6);
  EXPECT_EQ(repos[0].revisions[0].refs, std::vector<std::string>{"refs/pr/1"});
  EXPECT_EQ(repos[0].revisions[1].bytes, 7);
  EXPECT_TRUE(HubCache(folder.path() / "absent").list().empty());
}

TEST(HubCache, ReadsRefsThatEndInANewline) {
  const test::ScratchFolder folder;
  const HubCache cache = two_revisions(folder.path());
  write(cache.repo_folder("a/b") / "refs" / "main", kFirst + "\r\n");
  EXPECT_EQ(cache.commit_of({.repo = "a/b"}), kFirst);
  EXPECT_EQ(
      cache.list()[0].revisions[0].refs,
      (std::vector<std::string>{"main", "refs/pr/1"}));
}

/** As Windows has it: files in the snapshots, no blobs. */
HubCache without_links(const fs::path& root) {
  HubCache cache(root);
  for (const auto& commit : {kFirst, kSecond}) {
    write(cache.snapshot("a/b", commit) / "config.json", "1234");
    write(cache.snapshot("a/b", commit) / "sub" / "weights", "12345");
  }
  write(cache.repo_folder("a/b") / "refs" / "main", kSecond);
  write(cache.repo_folder("a/b") / "refs" / "desktop.ini", "x");
  write(cache.repo_folder("a/b") / ".no_exist" / kFirst / "x.json", "");
  return cache;
}

TEST(HubCache, SizesAndRemovesFilesThatAreNoLinks) {
  const test::ScratchFolder folder;
  const HubCache cache = without_links(folder.path());
  const auto repos = cache.list();
  ASSERT_EQ(repos.size(), 1);
  EXPECT_EQ(repos[0].bytes, 18);
  ASSERT_EQ(repos[0].revisions.size(), 2);
  EXPECT_EQ(repos[0].revisions[0].bytes, 9);
  EXPECT_TRUE(repos[0].revisions[0].refs.empty());
  EXPECT_TRUE(cache.holds_itself("a/b", kFirst, "sub/weights", 5));
  EXPECT_FALSE(cache.holds_itself("a/b", kFirst, "sub/weights", 6));
  EXPECT_FALSE(cache.holds_itself("a/b", kFirst, "absent", 0));
  const auto removed = cache.remove({.repo = "a/b", .revision = kFirst}, false);
  EXPECT_EQ(removed.bytes, 9);
  EXPECT_TRUE(fs::exists(cache.snapshot("a/b", kSecond) / "config.json"));
  // The last revision takes the model along, as with huggingface_hub.
  EXPECT_EQ(cache.remove({.repo = "a/b"}, false).bytes, 9);
  EXPECT_FALSE(cache.has("a/b"));
}

TEST(HubCache, LeavesOutWhatNoRevisionUses) {
  const test::ScratchFolder folder;
  const HubCache cache = two_revisions(folder.path());
  write(cache.blob("a/b", "orphan"), "1234567");
  fs::create_directory_symlink("sub", cache.snapshot("a/b", kFirst) / "folder");
  EXPECT_EQ(cache.list()[0].bytes, 5 + 1 + 2);
  EXPECT_EQ(cache.list()[0].revisions[0].bytes, 6);
}

TEST(HubCache, KnowsModelsWithoutAnOrganisation) {
  const test::ScratchFolder folder;
  const HubCache cache(folder.path());
  write(cache.snapshot("gpt2", kFirst) / "config.json", "{}");
  EXPECT_TRUE(fs::exists(folder.path() / "models--gpt2"));
  ASSERT_EQ(cache.list().size(), 1);
  EXPECT_EQ(cache.list()[0].repo, "gpt2");
  EXPECT_EQ(repo_of_snapshot(cache.snapshot("gpt2", kFirst)), "gpt2");
  cache.remove({.repo = "gpt2"}, true);
  EXPECT_TRUE(cache.list().empty());
}

TEST(HubCache, RemovesOneRevisionAndKeepsWhatAnotherNeeds) {
  const test::ScratchFolder folder;
  const HubCache cache = two_revisions(folder.path());
  const auto removed =
      cache.remove({.repo = "a/b", .revision = "refs/pr/1"}, false);
  EXPECT_EQ(removed.n_revisions, 1);
  EXPECT_EQ(removed.bytes, 1);
  EXPECT_FALSE(fs::exists(cache.snapshot("a/b", kFirst)));
  EXPECT_FALSE(fs::exists(cache.blob("a/b", "first")));
  EXPECT_TRUE(fs::exists(cache.snapshot("a/b", kSecond) / "sub" / "weights"));
  EXPECT_EQ(
      cache.commit_of({.repo = "a/b", .revision = "refs/pr/1"}), std::nullopt);
  EXPECT_EQ(cache.commit_of({.repo = "a/b"}), kSecond);
}

TEST(HubCache, NeverDeletesOutside) {
  const test::ScratchFolder folder;
  const HubCache cache = two_revisions(folder.path() / "hub");
  const fs::path precious = folder.path() / "precious";
  write(precious, "keep me");
  // A snapshot whose link leads out of the repository.
  fs::create_symlink(precious, cache.snapshot("a/b", kFirst) / "evil");
  cache.remove({.repo = "a/b", .revision = kFirst}, false);
  EXPECT_TRUE(fs::exists(precious));
  fs::create_directory_symlink(
      folder.path(), cache.snapshot("a/b", kSecond) / "folder");
  cache.remove({.repo = "a/b"}, true);
  EXPECT_TRUE(fs::exists(precious));
  EXPECT_FALSE(fs::exists(cache.repo_folder("a/b")));
}

TEST(HubCache, RefusesToRemoveWhatIsInUse) {
  const test::ScratchFolder folder;
  const HubCache cache = two_revisions(folder.path());
  {
    const auto lock = FileLock::try_lock(cache.lock("a/b", "first"));
    ASSERT_TRUE(lock);
    EXPECT_FALSE(FileLock::try_lock(cache.lock("a/b", "first")));
    test::expect_error(ErrorKind::Denied, {"a/b", "running"}, [&] {
      cache.remove({.repo = "a/b"}, true);
    });
  }
  EXPECT_TRUE(FileLock::try_lock(cache.lock("a/b", "first")));
  test::expect_error(ErrorKind::NotFound, {"c/d"}, [&] {
    cache.remove({.repo = "c/d"}, true);
  });
  cache.remove({.repo = "a/b"}, true);
  EXPECT_TRUE(cache.list().empty());
}

} // namespace
} // namespace optiq::io
