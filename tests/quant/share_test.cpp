#include "optiq/quant/share.h"

#include <cstdlib>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

#include "optiq/quant/sensitivity_journal.h"

namespace optiq::quant {
namespace {

TEST(Share, AllSharesTogetherHaveEachChunkOnce) {
  for (const std::size_t n : {0, 1, 5, 24}) {
    for (const int count : {1, 2, 3, 7, 30}) {
      std::size_t at = 0;
      for (int i = 1; i <= count; ++i) {
        const ChunkRange range = Share{i, count}.chunks(n);
        EXPECT_EQ(range.first, at);
        EXPECT_LE(range.end - range.first, n / count + 1);
        at = range.end;
      }
      EXPECT_EQ(at, n) << count;
    }
  }
}

TEST(Share, IsRead) {
  const Share share = parse_share("2/3");
  EXPECT_EQ(share.index, 2);
  EXPECT_EQ(share.count, 3);
  EXPECT_EQ(share.name(), "2 of 3");
  for (const char* bad :
       {"", "2", "/", "0/3", "4/3", "-1/3", "1/0", "1/x", "1/3 ", "1/99999"}) {
    test::expect_error(ErrorKind::InvalidInput, {"--shard", bad, "I/N"}, [&] {
      parse_share(bad);
    });
  }
}

TEST(ShareJournal, TheJournalHasWhatTheSharesBesideItHold) {
  test::ScratchFolder folder;
  ::setenv("OPTIQ_CACHE_DIR", folder.path().c_str(), 1);
  const std::vector<double> kl = {0.25, 0.5};
  open_share_journal("key", {1, 3})->record("m", 4, 0, kl);
  open_share_journal("key", {3, 3})->record("m", 4, 4, kl);
  open_share_journal("key2", {2, 3})->record("m", 4, 2, kl);
  const auto path = sensitivity_journal_path("key", {3, 3});
  // One that is being written may end anywhere.
  test::write_file(path, test::read_file(path) + R"({"module": "m)");
  std::vector<std::string> notices;
  for (const auto& journal :
       {find_sensitivity_journal("key"),
        open_sensitivity_journal("key", notices)}) {
    EXPECT_TRUE(journal->has("m", 4, 0, 2));
    EXPECT_FALSE(journal->has("m", 4, 2, 1));
    EXPECT_TRUE(journal->has("m", 4, 4, 2));
    EXPECT_EQ(journal->at("m", 4, 5), 0.5);
  }
  EXPECT_TRUE(notices.empty());
  test::write_file(path, "{}\n");
  test::expect_error(ErrorKind::Corrupt, {"3-of-3", "Delete the file"}, [] {
    find_sensitivity_journal("key");
  });
  ::unsetenv("OPTIQ_CACHE_DIR");
  ::setenv("HOME", "", 1);
  ::unsetenv("XDG_CACHE_HOME");
  test::expect_error(ErrorKind::Denied, {"OPTIQ_CACHE_DIR"}, [] {
    open_share_journal("key", {1, 2});
  });
}

} // namespace
} // namespace optiq::quant
