#include "optiq/io/safetensors.h"

#include <cstring>
#include <set>

#include <gtest/gtest.h>

#include "io/safetensors_cases.h"
#include "support/child_memory.h"
#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq::io {
namespace {

using test::expect_error;
using test::ScratchFolder;

std::vector<test::BrokenFile> all_broken_files() {
  std::vector<test::BrokenFile> files = test::broken_frames();
  for (test::BrokenFile& file : test::broken_tensors()) {
    files.push_back(std::move(file));
  }
  return files;
}

class BrokenSafetensors : public testing::TestWithParam<test::BrokenFile> {};

TEST_P(BrokenSafetensors, IsRefusedAndNamesTheCulprit) {
  const ScratchFolder folder;
  const auto path = folder / "broken.safetensors";
  test::write_file(path, GetParam().bytes);
  expect_error(
      GetParam().kind, {"broken.safetensors", GetParam().culprit}, [&] {
        SafetensorsFile::open(path);
      });
}

INSTANTIATE_TEST_SUITE_P(
    Cases,
    BrokenSafetensors,
    testing::ValuesIn(all_broken_files()),
    [](const auto& info) { return info.param.name; });

class OddSafetensors : public testing::TestWithParam<test::OddFile> {};

TEST_P(OddSafetensors, IsReadWithTheBytesOfTheFile) {
  const ScratchFolder folder;
  const auto path = folder / "odd.safetensors";
  test::write_file(path, GetParam().bytes);
  const SafetensorsFile file = SafetensorsFile::open(path);
  for (const TensorInfo& tensor : file.tensors()) {
    const mx::array array = file.load(tensor);
    ASSERT_EQ(array.shape(), tensor.shape);
    ASSERT_EQ(array.dtype(), tensor.dtype);
    ASSERT_EQ(array.nbytes(), tensor.nbytes);
    ASSERT_LE(tensor.offset + tensor.nbytes, GetParam().bytes.size());
    if (tensor.nbytes > 0) {
      EXPECT_EQ(
          std::memcmp(
              array.data<char>(),
              GetParam().bytes.data() + tensor.offset,
              tensor.nbytes),
          0)
          << tensor.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases,
    OddSafetensors,
    testing::ValuesIn(test::odd_files()),
    [](const auto& info) { return info.param.name; });

class UnreadableSafetensors
    : public testing::TestWithParam<test::UnreadableFile> {};

TEST_P(UnreadableSafetensors, AreListedAndRefusedOnceNeeded) {
  const ScratchFolder folder;
  const auto path = folder / "file.safetensors";
  test::write_file(path, GetParam().bytes);
  const SafetensorsFile file = SafetensorsFile::open(path);
  ASSERT_EQ(file.tensors().size(), 1);
  const TensorInfo& tensor = file.tensors()[0];
  EXPECT_EQ(tensor.unreadable, GetParam().name);
  EXPECT_EQ(tensor.shape, mx::Shape{8});
  expect_error(
      ErrorKind::Unsupported,
      {"file.safetensors", "'t'", GetParam().name, "BF16"},
      [&] { file.load(tensor); });
}

INSTANTIATE_TEST_SUITE_P(
    Cases,
    UnreadableSafetensors,
    testing::ValuesIn(test::unreadable_files()),
    [](const auto& info) { return info.param.name; });

TEST(Safetensors, AnOddNumberOfHalfBytesIsRefused) {
  const ScratchFolder folder;
  const auto path = folder / "odd.safetensors";
  test::write_file(path, test::one_tensor("\"F4\"", "[3]", "[0,1]", 1));
  expect_error(ErrorKind::Corrupt, {"'t'", "whole bytes"}, [&] {
    SafetensorsFile::open(path);
  });
}

TEST(Safetensors, TruncatedAnywhereIsRefused) {
  const ScratchFolder folder;
  const auto path = folder / "short.safetensors";
  const std::string whole = test::one_tensor("\"F32\"", "[3]", "[0,12]", 12);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    test::write_file(path, whole.substr(0, n));
    expect_error(ErrorKind::Corrupt, {"short.safetensors"}, [&] {
      SafetensorsFile::open(path);
    });
  }
}

TEST(Safetensors, AnyChangedByteIsReadOrRefused) {
  // Every value of every byte of a small file: no crash, no other exception,
  // and what is accepted stays inside the file.
  const ScratchFolder folder;
  const auto path = folder / "changed.safetensors";
  const std::string good = test::file_bytes(
      "{" + test::entry("a", "\"F32\"", "[2]", "[0,8]") + "," +
          test::entry("b", "\"U8\"", "[3]", "[8,11]") + "}",
      11);
  const std::size_t n_header = good.size() - 11;
  int n_accepted = 0;
  for (std::size_t at = 0; at < n_header; ++at) {
    for (const int value : {0, 1, 9, 32, 34, 45, 48, 57, 91, 123, 127, 255}) {
      std::string bytes = good;
      bytes[at] = static_cast<char>(value);
      test::write_file(path, bytes);
      try {
        const SafetensorsFile file = SafetensorsFile::open(path);
        for (const TensorInfo& tensor : file.tensors()) {
          ASSERT_LE(tensor.offset + tensor.nbytes, bytes.size());
        }
        ++n_accepted;
      } catch (const Error& error) {
        ASSERT_TRUE(
            error.kind() == ErrorKind::Corrupt ||
            error.kind() == ErrorKind::Unsupported)
            << error.what();
      }
    }
  }
  EXPECT_GT(n_accepted, 0); // a changed name is still a right file
}

TEST(Safetensors, TensorsComeInTheOrderOfTheData) {
  const ScratchFolder folder;
  const auto path = folder / "order.safetensors";
  test::write_file(
      path,
      test::file_bytes(
          "{" + test::entry("z", "\"U8\"", "[1]", "[2,3]") + "," +
              test::entry("m", "\"U8\"", "[1]", "[0,1]") + "," +
              test::entry("a", "\"U8\"", "[1]", "[1,2]") + "}",
          3));
  const SafetensorsFile file = SafetensorsFile::open(path);
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.tensors()[0].name, "m");
  EXPECT_EQ(file.tensors()[1].name, "a");
  EXPECT_EQ(file.tensors()[2].name, "z");
}

TEST(Safetensors, LargeAlignedTensorsAreViewsAndOthersCopies) {
  const ScratchFolder folder;
  const auto path = folder / "aligned.safetensors";
  for (const int n : {2, 4095, 4096, 5000}) {
    for (int padding = 0; padding < 4; ++padding) {
      const std::string header = "{" +
          test::entry("t",
                      "\"F32\"",
                      fmt::format("[{}]", n),
                      fmt::format("[0,{}]", 4 * n)) +
          "}" + std::string(padding, ' ');
      test::write_file(path, test::file_bytes(header, 4 * n));
      const SafetensorsFile file = SafetensorsFile::open(path);
      const TensorInfo& tensor = file.tensors()[0];
      const mx::array first = file.load(tensor);
      const mx::array second = file.load(tensor);
      const bool is_view = first.data<char>() == second.data<char>();
      EXPECT_EQ(is_view, tensor.offset % 4 == 0 && n >= 4096)
          << n << " at " << tensor.offset;
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first.data<char>()) % 4, 0u);
      const std::string data(first.data<char>(), first.nbytes());
      EXPECT_EQ(data, std::string(4 * n, '\x3f'));
      file.drop(tensor); // what is read again comes from the file again
      EXPECT_EQ(data, std::string(second.data<char>(), second.nbytes()));
    }
  }
}

TEST(Safetensors, AnArrayOutlivesItsFile) {
  const ScratchFolder folder;
  const auto path = folder / "gone.safetensors";
  test::write_file(path, test::one_tensor("\"U8\"", "[4]", "[0,4]", 4));
  const mx::array array = [&] {
    const SafetensorsFile file = SafetensorsFile::open(path);
    return file.load(file.tensors()[0]);
  }();
  std::filesystem::remove(path);
  EXPECT_EQ(array.data<std::uint8_t>()[3], 0x3f);
}

TEST(Safetensors, ManyTensorsOpenInLinearTime) {
  // 100 000 names: a reader that searches earlier names needs minutes.
  const ScratchFolder folder;
  const auto path = folder / "many.safetensors";
  std::string header = "{";
  constexpr int kCount = 100'000;
  for (int i = 0; i < kCount; ++i) {
    header += (i ? "," : "") +
        test::entry("t" + std::to_string(i), "\"U8\"", "[0]", "[0,0]");
  }
  test::write_file(path, test::file_bytes(header + "}", 0));
  EXPECT_EQ(SafetensorsFile::open(path).tensors().size(), kCount + 0u);
}

TEST(Safetensors, AHeaderTakesLittleMoreMemoryThanItself) {
  if (!test::kHasOwnMemory) {
    GTEST_SKIP() << "a sanitizer's memory would be counted";
  }
  const auto header_of = [](std::size_t n, const auto& entry_of) {
    std::string header = "{";
    for (std::size_t i = 0; i < n; ++i) {
      header += (i == 0 ? "" : ",") + entry_of(std::to_string(i));
    }
    return header + "}";
  };
  const std::string long_name(60'000, 'n');
  const std::string ones = "[1" + test::repeat(",1", 60'000) + "]";
  const std::pair<const char*, std::string> cases[] = {
      {"long names",
       header_of(
           1600,
           [&](const std::string& i) {
             return test::entry(i + long_name, "\"F32\"", "[0]", "[0,0]");
           })},
      {"tiny entries",
       header_of(
           100'000,
           [](const std::string& i) {
             return test::entry(
                 i,
                 "\"U8\"",
                 "[]",
                 "[" + i + "," + std::to_string(std::stoi(i) + 1) + "]");
           })},
      {"long shapes",
       header_of(
           100,
           [&](const std::string& i) {
             return test::entry(i, "\"F32\"", ones, "[0,4]");
           })},
      {"metadata",
       "{\"__metadata__\":" +
           header_of(
               60'000,
               [](const std::string& i) {
                 return "\"" + i + "\":\"" + std::string(200, 'm') + "\"";
               }) +
           "}"},
      {"lists", "{\"t\":[" + test::repeat("[],", 20'000'000) + "0]}"},
  };
  const test::ScratchFolder folder;
  const auto path = folder / "model.safetensors";
  for (const auto& [name, header] : cases) {
    const std::string bytes = test::file_bytes(header, 0);
    test::write_file(path, bytes);
    const std::uint64_t taken = test::peak_memory_of([&] {
      try {
        SafetensorsFile::open(path);
      } catch (const Error&) { // that is what it may take
      }
    });
    EXPECT_LT(taken, 2 * bytes.size() + (64u << 20)) << name;
  }
}

TEST(Safetensors, MetadataIsRead) {
  const ScratchFolder folder;
  const auto path = folder / "metadata.safetensors";
  test::write_file(
      path,
      test::file_bytes(
          "{\"__metadata__\":{\"format\":\"mlx\",\"a\":\"\"}}", 0));
  const std::map<std::string, std::string> expected = {
      {"a", ""}, {"format", "mlx"}};
  EXPECT_EQ(SafetensorsFile::open(path).metadata(), expected);
}

TEST(Safetensors, AbsentFilesAndFoldersAreNamed) {
  const ScratchFolder folder;
  expect_error(ErrorKind::NotFound, {"absent.safetensors"}, [&] {
    SafetensorsFile::open(folder / "absent.safetensors");
  });
  expect_error(ErrorKind::Io, {"a directory"}, [&] {
    SafetensorsFile::open(folder.path());
  });
}

} // namespace
} // namespace optiq::io
