#include "optiq/base/scratch_file.h"

#include <filesystem>
#include <memory>
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

TEST(ScratchFile, IsMappedMemoryToo) {
  const test::ScratchFolder folder;
  auto file = std::make_shared<ScratchFile>(folder.path());
  file->append(bytes_of(1, 3));
  const auto memory = ScratchFile::map_more(file, 100'000);
  EXPECT_EQ(memory[0], std::byte{0});
  memory[99'999] = std::byte{7};
  const std::uint64_t behind = file->append(bytes_of(9, 1));
  std::vector<std::byte> back(1);
  file->read(behind - 1, back);
  EXPECT_EQ(back[0], std::byte{7});
  file.reset(); // the memory keeps it
  EXPECT_EQ(memory[99'999], std::byte{7});
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
