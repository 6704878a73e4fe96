#include "optiq/base/file.h"

#include <filesystem>
#include <string>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::ScratchFolder;
using test::write_file;

TEST(MappedFile, ShowsTheBytesOfTheFile) {
  const ScratchFolder folder;
  write_file(folder / "empty", "");
  EXPECT_EQ(MappedFile::open(folder / "empty")->bytes().size(), 0u);
  const std::string content(100'000, 'x');
  write_file(folder / "full", content);
  const auto file = MappedFile::open(folder / "full");
  const auto text = [&] {
    return std::string(
        reinterpret_cast<const char*>(file->bytes().data()),
        file->bytes().size());
  };
  EXPECT_EQ(text(), content);
  file->drop_pages(1, 99'999);
  EXPECT_EQ(text(), content); // read again from the file
}

TEST(InputFile, ReadsAndMapsPieces) {
  const ScratchFolder folder;
  std::string text(100'000, ' ');
  for (std::size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<char>(i * 31 >> 3);
  }
  test::write_file(folder / "f", text);
  const auto file = InputFile::open(folder / "f");
  EXPECT_EQ(file->size(), text.size());
  for (const std::size_t offset : {0u, 1u, 4095u, 4096u, 4097u, 99'999u}) {
    for (const std::size_t n : {0u, 1u, 4096u, 10'000u}) {
      if (offset + n > text.size()) {
        continue;
      }
      const auto piece = file->map(offset, n);
      const auto bytes = piece->bytes();
      const auto* begin = reinterpret_cast<const char*>(bytes.data());
      EXPECT_EQ(std::string(begin, bytes.size()), text.substr(offset, n));
      piece->drop_pages(0, n);
      piece->drop_pages(1, n);
      EXPECT_EQ(std::string(begin, bytes.size()), text.substr(offset, n));
      std::string read(n, '\0');
      file->read(offset, std::as_writable_bytes(std::span(read)));
      EXPECT_EQ(read, text.substr(offset, n));
    }
  }
  std::filesystem::resize_file(folder / "f", 50);
  std::string read(10, '\0');
  test::expect_error(ErrorKind::Io, {"f", "50", "100000"}, [&] {
    file->read(45, std::as_writable_bytes(std::span(read)));
  });
}

TEST(MappedFile, NamesWhatItCannotOpen) {
  const ScratchFolder folder;
  expect_error(ErrorKind::NotFound, {"absent"}, [&] {
    MappedFile::open(folder / "absent");
  });
  expect_error(
      ErrorKind::Io, {"a directory"}, [&] { MappedFile::open(folder.path()); });
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  expect_error(ErrorKind::Io, {"fifo", "special file"}, [&] {
    MappedFile::open(folder / "fifo"); // must not wait for a writer
  });
}

TEST(ReadTextFile, RefusesMoreThanAllowed) {
  const ScratchFolder folder;
  write_file(folder / "five", std::string("a\0b\nc", 5));
  EXPECT_EQ(read_text_file(folder / "five", 5), std::string("a\0b\nc", 5));
  expect_error(ErrorKind::InvalidInput, {"five", "5 bytes", "at most 4"}, [&] {
    read_text_file(folder / "five", 4);
  });
  expect_error(ErrorKind::NotFound, {"absent"}, [&] {
    read_text_file(folder / "absent", 4);
  });
}

TEST(FreeDiskBytes, AsksTheNearestParent) {
  const ScratchFolder folder;
  EXPECT_GT(free_disk_bytes(folder.path()), 0u);
  EXPECT_GT(free_disk_bytes(folder / "not/yet/there"), 0u);
}

} // namespace
} // namespace optiq
