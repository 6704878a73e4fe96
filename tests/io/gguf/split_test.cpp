#include "optiq/io/gguf/split.h"

#include <gtest/gtest.h>

#include "io/gguf/cases.h"
#include "support/expect_error.h"
#include "support/scratch_folder.h"

#include "optiq/io/array.h"
#include "optiq/io/gguf/dequantize.h"

namespace optiq::io {
namespace {

using test::expect_error;
using test::ScratchFolder;

TEST(GgufPart, NamesSayWhichPartOfHowMany) {
  const auto part = parse_gguf_part("a/b-of-c-00002-of-00012.gguf");
  ASSERT_TRUE(part);
  EXPECT_EQ(part->stem, "a/b-of-c");
  EXPECT_EQ(part->number, 2);
  EXPECT_EQ(part->count, 12);
  EXPECT_EQ(gguf_part_path(*part, 11), "a/b-of-c-00011-of-00012.gguf");
  EXPECT_TRUE(is_later_gguf_part("m-00002-of-00002.gguf"));
  EXPECT_FALSE(is_later_gguf_part("m-00001-of-00002.gguf"));
  for (const char* whole :
       {"m.gguf",
        "m-00000-of-00002.gguf",
        "m-00003-of-00002.gguf",
        "m-0001-of-0002.gguf",
        "m-00001-of-00002.bin",
        "m00001-of-00002.gguf",
        "-00001-of00002.gguf",
        ""}) {
    EXPECT_FALSE(parse_gguf_part(whole)) << whole;
  }
}

/** Part `number` of a model whose tensors are one number each: t<number>. */
std::string part_bytes(int number, int count, int n_tensors = 1) {
  return test::changed_gguf([&](test::GgufParts& p) {
    const auto u16 = [](int value) {
      return test::raw(static_cast<std::uint16_t>(value));
    };
    p.values = {
        test::gguf_value("split.no", 2, u16(number - 1)),
        test::gguf_value("split.count", 2, u16(count)),
        test::gguf_value(
            "split.tensors.count", 5, test::u32(n_tensors * count))};
    if (number == 1) {
      p.values.push_back(test::gguf_text("general.name", "whole"));
    }
    p.tensors = {test::gguf_tensor("t" + std::to_string(number), {1}, 0, 0)};
    p.data = test::raw(static_cast<float>(number));
  });
}

/** Three parts in a folder. */
struct SplitModel {
  SplitModel() {
    for (int number = 1; number <= 3; ++number) {
      write(number, part_bytes(number, 3));
    }
  }
  std::filesystem::path path(int number) const {
    return gguf_part_path({(folder / "m").string(), 1, 3}, number);
  }
  void write(int number, const std::string& bytes) const {
    test::write_file(path(number), bytes);
  }
  ScratchFolder folder;
};

TEST(GgufSplit, AnyPartOpensAll) {
  const SplitModel model;
  for (int named = 1; named <= 3; ++named) {
    const GgufFile file = GgufFile::open(model.path(named));
    EXPECT_EQ(file.path(), model.path(1));
    EXPECT_EQ(file.text("general.name"), "whole");
    ASSERT_EQ(file.tensors().size(), 3u);
    std::uint64_t bytes = 0;
    for (int number = 1; number <= 3; ++number) {
      const GgufTensor& tensor = file.tensors()[number - 1];
      EXPECT_EQ(tensor.name, "t" + std::to_string(number));
      EXPECT_EQ(
          floats(dequantize(file, tensor))[0], static_cast<float>(number));
      bytes += std::filesystem::file_size(model.path(number));
    }
    EXPECT_EQ(file.file_bytes(), bytes);
  }
}

TEST(GgufSplit, WhatDoesNotFitTogetherIsRefused) {
  const SplitModel model;
  const auto refused = [&](ErrorKind kind,
                           std::initializer_list<std::string> words) {
    expect_error(kind, words, [&] { GgufFile::open(model.path(1)); });
  };
  model.write(2, part_bytes(3, 3));
  refused(ErrorKind::Corrupt, {"00002-of-00003", "part 3 of 3"});
  model.write(2, part_bytes(2, 4));
  refused(ErrorKind::Corrupt, {"00002-of-00003", "part 2 of 4"});
  model.write(2, test::changed_gguf([](test::GgufParts&) {}));
  refused(ErrorKind::Corrupt, {"00002-of-00003", "part 1 of 1"});
  model.write(1, part_bytes(1, 3, 2));
  model.write(2, part_bytes(2, 3));
  refused(ErrorKind::Corrupt, {"found 3 tensors", "expected 6"});
  model.write(1, part_bytes(1, 3));
  std::string twice = part_bytes(3, 3);
  twice.replace(twice.find("t3"), 2, "t1");
  model.write(3, twice);
  refused(ErrorKind::Corrupt, {"00003-of-00003", "'t1'"});
  std::filesystem::remove(model.path(3));
  refused(ErrorKind::NotFound, {"part 3 of 3", "m-00003-of-00003.gguf"});
}

TEST(GgufSplit, APartUnderAnotherNameSaysWhatItIs) {
  const ScratchFolder folder;
  test::write_file(folder / "renamed.gguf", part_bytes(1, 3));
  expect_error(
      ErrorKind::NotFound, {"renamed.gguf", "-00001-of-00003.gguf"}, [&] {
        GgufFile::open(folder / "renamed.gguf");
      });
}

} // namespace
} // namespace optiq::io
