#include "optiq/artifacts/size.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace optiq::artifacts {
namespace {

TEST(ParseSize, ReadsUnits) {
  const std::pair<const char*, std::uint64_t> cases[] = {
      {"0", 0},
      {"123456", 123456},
      {"18446744073709551615", ~0ull},
      {"7B", 7},
      {"600MB", 600'000'000},
      {"600 MB", 600'000'000},
      {"600mb", 600'000'000},
      {"1kB", 1000},
      {"1KiB", 1024},
      {"1.5GiB", 1'610'612'736},
      {"0.000001GB", 1000},
      {"2.999999MiB", 3'145'726}, // 3145726.95 rounded down: never over
      {"1TB", 1'000'000'000'000},
      {"16777215TiB", 16777215ull << 40}};
  for (const auto& [text, bytes] : cases) {
    EXPECT_EQ(parse_size(text), bytes) << text;
  }
}

TEST(ParseSize, RefusesEverythingElse) {
  for (const char* text :
       {"",
        " ",
        "MB",
        "-1MB",
        "+1",
        " 1",
        "1 ",
        "1  MB",
        "1M",
        "1XB",
        "1MBB",
        ".5GB",
        "1.GB",
        "1.5.5GB",
        "1e9",
        "0x10",
        "nan",
        "inf",
        "1,5GB",
        "1.0000001GB",
        "18446744073709551616",
        "16777216TiB",
        "18446744073709551615.9B1",
        "99999999999999999999GB"}) {
    test::expect_error(
        ErrorKind::InvalidInput, {"'" + std::string(text) + "'", "600MB"}, [&] {
          parse_size(text);
        });
  }
}

TEST(FormatSize, HasOneDecimalAndNeverFourDigits) {
  const std::pair<std::uint64_t, const char*> cases[] = {
      {0, "0 B"},
      {999, "999 B"},
      {1000, "1.0 kB"},
      {18'570'296, "18.6 MB"},
      {999'949, "999.9 kB"},
      {999'950, "1.0 MB"},
      {5'368'709'120, "5.4 GB"},
      {~0ull, "18.4 EB"}};
  for (const auto& [bytes, text] : cases) {
    EXPECT_EQ(format_size(bytes), text) << bytes;
  }
}

TEST(QuantizedBytes, CountsCodesScalesAndBiases) {
  // Per row of 64 weights: 64 * bits / 8 code bytes and 2 + 2 bytes a group.
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const int group : {32, 64, 128}) {
      const std::uint64_t in = 256;
      const std::uint64_t row = in * bits / 8 + in / group * 4;
      EXPECT_EQ(quantized_bytes(1, in, bits, group), row);
      EXPECT_EQ(quantized_bytes(10, in, bits, group), 10 * row);
      EXPECT_EQ(quantized_bytes(0, in, bits, group), 0u);
    }
  }
}

TEST(FileBpw, DividesBitsByParameters) {
  EXPECT_EQ(file_bpw(100, 200), 4.0);
  EXPECT_EQ(file_bpw(100, 0), 0.0);
}

} // namespace
} // namespace optiq::artifacts
