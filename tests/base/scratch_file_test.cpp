#include "optiq/base/scratch_file.h"

#include <filesystem>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq {
namespace {

std::vector<std::byte> bytes_of(int first, std::size_t n) {
  std::vector<std::byte> bytes(n);
  for (std::size_t i = 0; i < n; ++i) {
    bytes[i] = static_cast<std::byte>(first + i);
  }
  return bytes;
}

TEST(ScratchFile, GivesBackWhatWasAppended) {
  const test::ScratchFolder folder;
  ScratchFile file(folder.path() / "new" / "folder");
  const auto first = bytes_of(1, 3);
  const auto second = bytes_of(7, 1000);
  EXPECT_EQ(file.append(first), 0u);
  EXPECT_EQ(file.append(second), 3u);
  std::vector<std::byte> back(1000);
  file.read(3, back);
  EXPECT_EQ(back, second);
  back.resize(2);
  file.read(1, back);
  EXPECT_EQ(back, std::vector(first.begin() + 1, first.end()));
}

TEST(ScratchFile, HasNoName) {
  const test::ScratchFolder folder;
  ScratchFile file(folder.path());
  file.append(bytes_of(0, 10));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ScratchFile, RefusesToReadBehindItsEnd) {
  const test::ScratchFolder folder;
  ScratchFile file(folder.path());
  file.append(bytes_of(0, 10));
  std::vector<std::byte> back(4);
  test::expect_error(
      ErrorKind::Io, {folder.path().string()}, [&] { file.read(8, back); });
}

} // namespace
} // namespace optiq
