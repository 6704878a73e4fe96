#include "optiq/io/gguf/file.h"

#include <cmath>

#include <gtest/gtest.h>

#include "io/gguf/cases.h"
#include "support/child_memory.h"
#include "support/expect_error.h"
#include "support/scratch_folder.h"

#include "optiq/io/array.h"
#include "optiq/io/gguf/dequantize.h"

namespace optiq::io {
namespace {

using test::expect_error;
using test::ScratchFolder;

class BrokenGguf : public testing::TestWithParam<test::BrokenGguf> {};

TEST_P(BrokenGguf, IsRefusedAndNamesTheCulprit) {
  const ScratchFolder folder;
  const auto path = folder / "broken.gguf";
  test::write_file(path, GetParam().bytes);
  expect_error(GetParam().kind, {"broken.gguf", GetParam().culprit}, [&] {
    GgufFile::open(path);
  });
}

INSTANTIATE_TEST_SUITE_P(
    Cases,
    BrokenGguf,
    testing::ValuesIn(test::broken_gguf_files()),
    [](const auto& info) { return info.param.name; });

/** A file in a folder of its own. */
struct Written {
  explicit Written(const std::string& bytes) {
    test::write_file(folder / "model.gguf", bytes);
  }
  GgufFile open() const {
    return GgufFile::open(folder / "model.gguf");
  }
  ScratchFolder folder;
};

TEST(Gguf, EveryTruncationIsRefused) {
  const std::string good = test::changed_gguf([](test::GgufParts& p) {
    p.values.push_back(test::gguf_texts("texts", {"a", "bc"}));
  });
  EXPECT_EQ(Written(good).open().tensors().size(), 1u);
  const Written written("");
  for (std::size_t n = 0; n < good.size(); ++n) {
    test::write_file(written.folder / "model.gguf", good.substr(0, n));
    EXPECT_THROW(written.open(), Error) << n << " bytes";
  }
}

TEST(Gguf, ReadsVersions2And3AndAnyAlignment) {
  for (const std::uint32_t version : {2u, 3u}) {
    for (const std::size_t alignment : {1u, 8u, 64u, 256u}) {
      const auto align = static_cast<std::uint32_t>(alignment);
      const Written written(test::changed_gguf([&](test::GgufParts& p) {
        p.version = version;
        p.alignment = alignment;
        p.values = {test::gguf_u32("general.alignment", align)};
        p.tensors = {
            test::gguf_tensor("t", {1}, 0, 0),
            test::gguf_tensor(
                "s", {1}, 0, std::max<std::size_t>(alignment, 4))};
        p.data = test::raw(1.5f);
        p.data.resize(std::max<std::size_t>(alignment, 4), '\0');
        p.data += test::raw(2.5f);
      }));
      const GgufFile file = written.open();
      ASSERT_EQ(file.tensors().size(), 2u);
      EXPECT_EQ(floats(dequantize(file, file.tensors()[0]))[0], 1.5f);
      EXPECT_EQ(floats(dequantize(file, file.tensors()[1]))[0], 2.5f);
    }
  }
}

TEST(Gguf, AHeaderTakesAtMostTwiceItsSize) {
  if (!test::kHasOwnMemory) {
    GTEST_SKIP() << "a sanitizer's memory would be counted";
  }
  const std::string long_name(60'000, 'n');
  const auto tensor_named = [](const std::string& name) {
    return test::gguf_string(name) + test::u32(1) + test::u64(1) +
        test::u32(0) + test::u64(0);
  };
  const auto fill = [&](std::size_t n, const auto& part_of) {
    std::vector<std::string> parts(n);
    for (std::size_t i = 0; i < n; ++i) {
      parts[i] = part_of(std::to_string(i));
    }
    return parts;
  };
  test::GgufParts tiny;
  tiny.values = fill(2'000'000, [](const std::string& i) {
    return test::gguf_value(i, 0, "x");
  });
  test::GgufParts keys;
  keys.values = fill(1000, [&](const std::string& i) {
    return test::gguf_u32(i + long_name, 1);
  });
  test::GgufParts tensors;
  tensors.tensors = fill(
      1000, [&](const std::string& i) { return tensor_named(i + long_name); });
  test::GgufParts small_tensors;
  small_tensors.tensors = fill(130'000, tensor_named);
  test::GgufParts texts;
  texts.values = {test::gguf_array(
      "texts", 8, 4 << 20, std::string(std::size_t{8} * (4 << 20), '\0'))};
  test::GgufParts long_text;
  long_text.values = {test::gguf_text("text", std::string(100 << 20, 'x'))};
  const std::pair<const char*, test::GgufParts*> cases[] = {
      {"tiny values", &tiny},
      {"long keys", &keys},
      {"long names", &tensors},
      {"small tensors", &small_tensors},
      {"empty texts", &texts},
      {"a long text", &long_text}};
  const test::ScratchFolder folder;
  const auto path = folder / "model.gguf";
  for (const auto& [name, parts] : cases) {
    const std::string bytes = parts->bytes();
    test::write_file(path, bytes);
    const std::uint64_t taken = test::peak_memory_of([&] {
      try {
        const GgufFile file = GgufFile::open(path);
        file.texts("texts");
      } catch (const Error&) { // that is what it may take
      }
    });
    EXPECT_LT(taken, 2 * bytes.size() + (64u << 20)) << name;
  }
}

TEST(Gguf, MetadataIsTyped) {
  const Written written(test::changed_gguf([](test::GgufParts& p) {
    p.values = {
        test::gguf_text("text", "caf\xc3\xa9"),
        test::gguf_value("true", 7, "\1"),
        test::gguf_value("u8", 0, "\xff"),
        test::gguf_value("u16", 2, test::raw<std::uint16_t>(65535)),
        test::gguf_value("u64", 10, test::u64(1ull << 40)),
        test::gguf_value("minus", 5, test::raw<std::int32_t>(-1)),
        test::gguf_value("f32", 6, test::raw(0.5f)),
        test::gguf_value("f64", 12, test::raw(0.25)),
        test::gguf_texts("texts", {"a", "", "bc"}),
        test::gguf_array("ints", 5, 2, test::u32(3) + test::u32(~0u)),
        test::gguf_array("floats", 6, 1, test::raw(-2.f)),
        test::gguf_value("latin1", 8, test::gguf_string("\xe9"))};
  }));
  const GgufFile file = written.open();
  EXPECT_EQ(file.text("text"), "caf\xc3\xa9");
  EXPECT_EQ(file.boolean("true"), true);
  EXPECT_EQ(file.integer("u8"), 255u);
  EXPECT_EQ(file.integer("u16"), 65535u);
  EXPECT_EQ(file.integer("u64"), 1ull << 40);
  EXPECT_EQ(file.number("f32"), 0.5);
  EXPECT_EQ(file.number("f64"), 0.25);
  EXPECT_EQ(
      file.texts("texts"), (std::vector<std::string_view>{"a", "", "bc"}));
  EXPECT_EQ(file.integers("ints"), (std::vector<std::int64_t>{3, -1}));
  EXPECT_EQ(file.numbers("floats"), std::vector<float>{-2.f});
  EXPECT_EQ(file.text("absent"), std::nullopt);
  EXPECT_EQ(file.keys("text"), (std::vector<std::string>{"text", "texts"}));
  const auto corrupt = [&](const char* key, const auto& read) {
    expect_error(ErrorKind::Corrupt, {"model.gguf", key}, read);
  };
  corrupt("u8", [&] { file.text("u8"); });
  corrupt("text", [&] { file.integer("text"); });
  corrupt("minus", [&] { file.integer("minus"); });
  corrupt("ints", [&] { file.integer("ints"); });
  corrupt("u8", [&] { file.boolean("u8"); });
  corrupt("u64", [&] { file.number("u64"); });
  corrupt("texts", [&] { file.text("texts"); });
  corrupt("text", [&] { file.texts("text"); });
  corrupt("floats", [&] { file.integers("floats"); });
  corrupt("ints", [&] { file.numbers("ints"); });
  corrupt("latin1", [&] { file.text("latin1"); });
}

// --- values
// --------------------------------------------------------------------

std::string half(float value) {
  return test::raw(mx::float16_t(value));
}

/** One block by hand, and the values that it stands for. */
struct Block {
  const char* name;
  std::uint32_t type;
  std::string bytes;
  std::function<double(int i)> value;
  int elements = 32;
};

std::string bytes_by(int n, const std::function<int(int)>& value) {
  std::string bytes;
  for (int i = 0; i < n; ++i) {
    bytes += static_cast<char>(value(i));
  }
  return bytes;
}

/** Codes i % 16 of a block of 32 as nibbles: i low, i + 16 high. */
std::string counting_nibbles() {
  return bytes_by(16, [](int i) { return i | i << 4; });
}

/** Scales 1..8 and minima 9..16 of a K block in their twelve bytes; those of
 * groups 4 to 7 get 32 more, so that the high bits are used. */
int k_scale(int group) {
  return group + 1 + (group >= 4 ? 32 : 0);
}
int k_minimum(int group) {
  return group + 9 + (group >= 4 ? 32 : 0);
}
std::string k_scales() {
  return bytes_by(12, [](int i) {
    const int group = i % 4;
    if (i < 4) {
      return k_scale(group) | k_scale(group + 4) >> 4 << 6;
    }
    if (i < 8) {
      return k_minimum(group) | k_minimum(group + 4) >> 4 << 6;
    }
    return (k_scale(group + 4) & 15) | (k_minimum(group + 4) & 15) << 4;
  });
}

/** 32 codes i % 16 of each group of four bits through IQ4's table. */
double iq4_value(int i) {
  constexpr int kValues[] = {
      -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  return kValues[i % 16];
}

/** Codes of two bits that count up from one run of 32 to the next. */
std::string counting_pairs() {
  return bytes_by(64, [](int) { return 0b11100100; });
}

/** Blocks without groups of 32 that are affine in their codes. */
std::vector<Block> irregular_blocks() {
  return {
      {"Q2_K",
       10,
       bytes_by(16, [](int i) { return i | (15 - i) << 4; }) +
           counting_pairs() + half(0.5f) + half(0.25f),
       [](int i) {
         return 0.5 * (i / 16) * (i / 32 % 4) - 0.25 * (15 - i / 16);
       },
       256},
      {"Q3_K",
       11,
       // The high bit is set in odd runs of 32; scales 24 to 39.
       bytes_by(32, [](int) { return 0b10101010; }) + counting_pairs() +
           bytes_by(
               12,
               [](int i) {
                 if (i < 8) {
                   return ((i + 24) & 15) | (i + 32 & 15) << 4;
                 }
                 return (i + 16) >> 4 | (i + 20) >> 4 << 2 |
                     (i + 24) >> 4 << 4 | (i + 28) >> 4 << 6;
               }) +
           half(0.5f),
       [](int i) {
         return 0.5 * (i / 16 - 8) * ((i / 32 % 4 | i / 32 % 2 << 2) - 4);
       },
       256},
      {"IQ4_NL",
       20,
       half(0.5f) + counting_nibbles(),
       [](int i) { return 0.5 * iq4_value(i); }},
      {"IQ4_XS",
       23,
       // Scales 28 to 35: high bits 1 in the first four groups, then 2.
       half(0.5f) + std::string("\x55\xaa", 2) +
           bytes_by(
               4,
               [](int i) {
                 return (2 * i + 12 & 15) | (2 * i + 13 & 15) << 4;
               }) +
           bytes_by(128, [](int i) { return i % 16 | i % 16 << 4; }),
       [](int i) { return 0.5 * (i / 32 - 4) * iq4_value(i); },
       256},
      {"MXFP4",
       39,
       "\x81" + counting_nibbles(), // 2^(129 - 127)
       [](int i) {
         constexpr double kValues[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
         return (i % 16 < 8 ? 4 : -4) * kValues[i % 8];
       }},
  };
}

std::vector<Block> blocks() {
  const std::string k_head = half(0.5f) + half(0.25f) + k_scales();
  const std::string k_nibbles = bytes_by(128, [](int i) {
    return (i % 16) | (15 - i % 16) << 4; // groups alternate up and down
  });
  const auto k_nibble = [](int i) {
    return i / 32 % 2 == 0 ? i % 16 : 15 - i % 16;
  };
  return {
      {"F32", 0, test::raw(-1.25f), [](int) { return -1.25; }, 1},
      {"F16", 1, half(-1.25f), [](int) { return -1.25; }, 1},
      {"BF16", 30, std::string("\xa0\xbf", 2), [](int) { return -1.25; }, 1},
      {"Q4_0",
       2,
       half(0.5f) + counting_nibbles(),
       [](int i) { return 0.5 * (i % 16 - 8); }},
      {"Q4_1",
       3,
       half(0.5f) + half(-3.f) + counting_nibbles(),
       [](int i) { return 0.5 * (i % 16) - 3; }},
      {"Q5_0",
       6,
       half(0.5f) + test::u32(0xffff0000) + counting_nibbles(),
       [](int i) { return 0.5 * (i - 16); }},
      {"Q5_1",
       7,
       half(0.5f) + half(-3.f) + test::u32(0xffff0000) + counting_nibbles(),
       [](int i) { return 0.5 * i - 3; }},
      {"Q8_0",
       8,
       half(-0.5f) + bytes_by(32, [](int i) { return 8 * i - 128; }),
       [](int i) { return -0.5 * (8 * i - 128); }},
      {"Q4_K",
       12,
       k_head + k_nibbles,
       [=](int i) {
         return 0.5 * k_scale(i / 32) * k_nibble(i) - 0.25 * k_minimum(i / 32);
       },
       256},
      {"Q5_K",
       13,
       // Bit g of byte i: set for odd i in every group.
       k_head + bytes_by(32, [](int i) { return i % 2 * 255; }) + k_nibbles,
       [=](int i) {
         return 0.5 * k_scale(i / 32) * (k_nibble(i) + i % 2 * 16) -
             0.25 * k_minimum(i / 32);
       },
       256},
      {"Q6_K",
       14,
       bytes_by(128, [](int i) { return i % 16 | (15 - i % 16) << 4; }) +
           bytes_by(64, [](int) { return 0b11100100; }) +
           bytes_by(16, [](int i) { return i - 8; }) + half(0.5f),
       [](int i) {
         const int at = i % 128;
         const int low = at < 64 ? at % 16 : 15 - at % 16;
         return 0.5 * (i / 16 - 8) * ((low | at / 32 << 4) - 32);
       },
       256},
  };
}

class GgufBlock : public testing::TestWithParam<Block> {};

TEST_P(GgufBlock, StandsForTheseValues) {
  const Block& block = GetParam();
  const auto n = static_cast<std::uint64_t>(block.elements);
  const Written written(test::changed_gguf([&](test::GgufParts& p) {
    p.tensors = {test::gguf_tensor("t", {2 * n, 3}, block.type, 0)};
    p.data.clear();
    for (int i = 0; i < 6; ++i) {
      p.data += block.bytes;
    }
  }));
  const GgufFile file = written.open();
  const GgufTensor& tensor = file.tensors()[0];
  EXPECT_STREQ(name_of(tensor.type), block.name);
  const mx::array values = dequantize(file, tensor);
  ASSERT_EQ(values.shape(), (mx::Shape{3, static_cast<int>(2 * n)}));
  for (std::size_t i = 0; i < values.size(); ++i) {
    // Every factor is a short binary fraction: no rounding anywhere.
    const int at = static_cast<int>(i) % block.elements;
    ASSERT_EQ(floats(values)[i], block.value(at)) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Types,
    GgufBlock,
    testing::ValuesIn(blocks()),
    [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(
    IrregularTypes,
    GgufBlock,
    testing::ValuesIn(irregular_blocks()),
    [](const auto& info) { return info.param.name; });

/** Rows 0..7 of F32, each row its number. */
std::string numbered_rows() {
  return test::changed_gguf([](test::GgufParts& p) {
    p.tensors = {test::gguf_tensor("t", {1, 8}, 0, 0)};
    p.data.clear();
    for (int row = 0; row < 8; ++row) {
      p.data += test::raw(static_cast<float>(row));
    }
  });
}

TEST(Gguf, InterleavedHeadsComeApart) {
  const Written written(numbered_rows());
  const GgufFile file = written.open();
  // Two heads of four rows: 0 2 | 1 3 and 4 6 | 5 7.
  const std::vector<float> expected{0, 2, 1, 3, 4, 6, 5, 7};
  for (const mx::array& loaded :
       {dequantize(file, file.tensors()[0], {4}),
        load_plain(file, file.tensors()[0], {4})}) {
    const auto values = floats(loaded);
    EXPECT_EQ(std::vector<float>(values.begin(), values.end()), expected);
  }
}

TEST(Gguf, WeightsThatFloat16CannotHoldAreRefused) {
  // -128 * 1000 is beyond float16.
  const Written written(test::changed_gguf([](test::GgufParts& p) {
    p.tensors = {test::gguf_tensor("t", {32, 1}, 8, 0)};
    p.data = half(1000.f) + std::string(32, '\1');
  }));
  const GgufFile file = written.open();
  EXPECT_EQ(floats(dequantize(file, file.tensors()[0]))[0], 1000.f);
  expect_error(ErrorKind::Unsupported, {"model.gguf", "'t'", "row 0"}, [&] {
    split_affine(file, file.tensors()[0]);
  });
}

} // namespace
} // namespace optiq::io
