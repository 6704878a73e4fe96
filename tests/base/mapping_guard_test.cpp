#include "optiq/base/mapping_guard.h"

#include <atomic>
#include <csignal>
#include <memory>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

#include "optiq/base/file.h"
#include "optiq/base/output_file.h"

namespace optiq {
namespace {

namespace fs = std::filesystem;

const std::size_t kPage = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));

/** A mapped file of eight pages of 'x'. */
struct MappedPages {
  explicit MappedPages(const fs::path& file) : path(file) {
    test::write_file(path, std::string(8 * kPage, 'x'));
    mapping = MappedFile::open(path);
  }
  char at(std::size_t page) const {
    const auto* bytes =
        reinterpret_cast<const volatile char*>(mapping->bytes().data());
    return bytes[page * kPage];
  }

  fs::path path;
  std::shared_ptr<const MappedFile> mapping;
};

TEST(MappingGuard, PagesThatAreGoneReadAsZerosAndAreReported) {
  guard_mappings();
  guard_mappings(); // hands on to what was before, not to itself
  const test::ScratchFolder folder;
  MappedPages shrunk(folder / "shrunk");
  MappedPages other(folder / "other");
  check_mappings();
  fs::resize_file(shrunk.path, kPage);
  EXPECT_EQ(shrunk.at(0), 'x');
  check_mappings(); // nobody has read what is gone
  EXPECT_EQ(shrunk.at(3), '\0');
  EXPECT_EQ(shrunk.at(7), '\0');
  for (int i = 0; i < 2; ++i) { // as long as it lives
    test::expect_error(
        ErrorKind::Io, {"/shrunk", "became shorter"}, [] { check_mappings(); });
  }
  EXPECT_EQ(other.at(7), 'x');
  shrunk.mapping.reset();
  check_mappings();
}

TEST(MappingGuard, AMappingThatDiedIsReportedOnce) {
  guard_mappings();
  const test::ScratchFolder folder;
  {
    const MappedPages shrunk(folder / "shrunk");
    fs::resize_file(shrunk.path, 0);
    EXPECT_EQ(shrunk.at(0), '\0');
  }
  test::expect_error(ErrorKind::Io, {"/shrunk"}, [] { check_mappings(); });
  check_mappings();
}

TEST(MappingGuard, NothingReadFromItIsWritten) {
  guard_mappings();
  const test::ScratchFolder folder;
  {
    const MappedPages shrunk(folder / "shrunk");
    fs::resize_file(shrunk.path, kPage);
    // The system reads the bytes: an error of its own, no signal.
    test::expect_error(ErrorKind::Io, {"/shrunk", "became shorter"}, [&] {
      OutputFile copy(folder / "copy", 8 * kPage);
      copy.write(shrunk.mapping->bytes());
    });
    EXPECT_FALSE(fs::exists(folder / "copy"));
    check_mappings();
    EXPECT_EQ(shrunk.at(2), '\0');
    test::expect_error(ErrorKind::Io, {"/shrunk"}, [&] {
      OutputFile result(folder / "result", 1);
      result.write("0");
      result.finish();
    });
    EXPECT_FALSE(fs::exists(folder / "result"));
  }
  write_file_atomically(folder / "later", "1");
}

TEST(MappingGuard, ThreadsMayMeetTheEndTogether) {
  guard_mappings();
  const test::ScratchFolder folder;
  std::vector<std::unique_ptr<MappedPages>> files;
  for (int i = 0; i < 20; ++i) {
    files.push_back(std::make_unique<MappedPages>(folder / std::to_string(i)));
    fs::resize_file(files.back()->path, kPage);
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 4; ++rank) {
    threads.emplace_back([&] {
      for (const auto& file : files) {
        for (std::size_t page = 0; page < 8; ++page) {
          wrong += file->at(page) != (page == 0 ? 'x' : '\0');
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong.load(), 0);
  test::expect_error(
      ErrorKind::Io, {folder.path().string()}, [] { check_mappings(); });
}

/** A fault in a mapping that is none of ours. */
void touch_foreign_page(const fs::path& file) {
  test::write_file(file, "x");
  const int fd = ::open(file.c_str(), O_RDONLY);
  const auto* bytes = static_cast<const volatile char*>(
      ::mmap(nullptr, 2 * kPage, PROT_READ, MAP_PRIVATE, fd, 0));
  const char gone = bytes[kPage];
  ::_exit(gone);
}

TEST(MappingGuard, OtherFaultsGoToTheHandlerBefore) {
  const test::ScratchFolder folder;
  const auto with_handler = [](auto&& fault) {
    std::signal(SIGBUS, [](int) { ::_exit(42); });
    guard_mappings();
    fault();
  };
  EXPECT_EXIT(
      with_handler([&] { touch_foreign_page(folder / "foreign"); }),
      testing::ExitedWithCode(42),
      "");
  EXPECT_EXIT(
      with_handler([] { std::raise(SIGBUS); }),
      testing::ExitedWithCode(42),
      "");
  const auto without = [](auto&& fault) {
    std::signal(SIGBUS, SIG_DFL);
    guard_mappings();
    fault();
  };
  EXPECT_EXIT(
      without([&] { touch_foreign_page(folder / "foreign"); }),
      testing::KilledBySignal(SIGBUS),
      "");
  EXPECT_EXIT(
      without([] { std::raise(SIGBUS); }), testing::KilledBySignal(SIGBUS), "");
}

TEST(MappingGuard, TheLibraryAloneSetsNoHandler) {
  const test::ScratchFolder folder;
  const auto unguarded = [&] {
    std::signal(SIGBUS, SIG_DFL);
    const MappedPages shrunk(folder / "shrunk");
    fs::resize_file(shrunk.path, 0);
    ::_exit(shrunk.at(0));
  };
  EXPECT_EXIT(unguarded(), testing::KilledBySignal(SIGBUS), "");
}

} // namespace
} // namespace optiq
