#include "optiq/quant/sensitivity_journal.h"

#include <array>
#include <cstdlib>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq::quant {
namespace {

TEST(SensitivityJournal, KeepsDoublesExactly) {
  test::ScratchFolder folder;
  const auto path = folder / "made";
  const std::array<double, 3> values = {0.1, 1.0 / 3, 4.9406564584124654e-324};
  {
    SensitivityJournal journal(path / "j.jsonl", "key");
    journal.record("a.b", 4, 2, values);
    EXPECT_TRUE(journal.has("a.b", 4, 2, 3));
  }
  const SensitivityJournal journal(path / "j.jsonl", "key");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(journal.at("a.b", 4, 2 + i), values[i]);
  }
  EXPECT_FALSE(journal.has("a.b", 4, 1, 3));
  EXPECT_FALSE(journal.has("a.b", 4, 3, 3));
  EXPECT_FALSE(journal.has("a.b", 8, 2, 1));
  EXPECT_FALSE(journal.has("a", 4, 2, 1));
}

TEST(SensitivityJournal, ALineCutAtAnyByteIsForgottenAndReplaced) {
  test::ScratchFolder folder;
  const auto path = folder / "j.jsonl";
  const std::array<double, 2> first = {0.25, 0.5};
  const std::array<double, 1> second = {0.75};
  {
    SensitivityJournal journal(path, "key");
    journal.record("m", 4, 0, first);
    journal.record("m", 8, 0, second);
  }
  const std::string text = test::read_file(path);
  const std::size_t header = text.find('\n') + 1;
  const std::size_t line = text.find('\n', header) + 1;
  for (std::size_t cut = 0; cut < text.size(); ++cut) {
    test::write_file(path, text.substr(0, cut));
    {
      SensitivityJournal journal(path, "key");
      EXPECT_EQ(journal.has("m", 4, 0, 2), cut >= line) << cut;
      EXPECT_FALSE(journal.has("m", 8, 0, 1)) << cut;
      if (cut < line) {
        journal.record("m", 4, 0, first);
      }
      journal.record("m", 8, 0, second);
    }
    EXPECT_EQ(test::read_file(path), text) << cut;
  }
}

TEST(SensitivityJournal, RefusesAnotherKeyAndASecondWriter) {
  test::ScratchFolder folder;
  const auto path = folder / "j.jsonl";
  {
    const SensitivityJournal journal(path, "key");
    test::expect_error(ErrorKind::Io, {"another process"}, [&] {
      const SensitivityJournal second(path, "key");
    });
  }
  test::expect_error(ErrorKind::Corrupt, {"Delete the file"}, [&] {
    const SensitivityJournal journal(path, "other");
  });
}

TEST(SensitivityJournalPath, FollowsTheEnvironment) {
  const auto set = [](const char* name, const char* value) {
    value == nullptr ? ::unsetenv(name) : ::setenv(name, value, 1);
  };
  set("OPTIQ_CACHE_DIR", "/c");
  set("XDG_CACHE_HOME", "/x");
  set("HOME", "/h");
  EXPECT_EQ(sensitivity_journal_path("k"), "/c/sensitivity/k.jsonl");
  set("OPTIQ_CACHE_DIR", nullptr);
  EXPECT_EQ(sensitivity_journal_path("k"), "/x/optiq/sensitivity/k.jsonl");
  set("XDG_CACHE_HOME", "");
  EXPECT_EQ(
      sensitivity_journal_path("k"), "/h/.cache/optiq/sensitivity/k.jsonl");
  set("HOME", nullptr);
  EXPECT_EQ(sensitivity_journal_path("k"), "");
}

} // namespace
} // namespace optiq::quant
