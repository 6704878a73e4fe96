#include <gtest/gtest.h>

#include "support/child_memory.h"
#include "support/expect_error.h"

#include "optiq/text/tokenizer_json_impl.h"

namespace optiq::text {
namespace {

std::string repeated(const std::string& item, std::size_t n) {
  std::string text = item;
  for (std::size_t i = 1; i < n; ++i) {
    text += "," + item;
  }
  return text;
}

std::string members(std::size_t n) {
  std::string text = "\"0\":0";
  for (std::size_t i = 1; i < n; ++i) {
    text += ",\"" + std::to_string(i) + "\":0";
  }
  return text;
}

TEST(TokenizerJson, AFileOfCountlessValuesIsRefused) {
  const std::pair<std::string, const char*> cases[] = {
      {"[" + repeated("[]", 1'100'000) + "]", "more than 1048576 values"},
      {"{" + members(4097) + "}", "more than 4096 members of one object"},
      {R"({"model":{"merges":[)" + repeated(R"("a b")", (2u << 20) + 1) + "]}}",
       "more than 2097152 merges"},
      {R"({"model":{"merges":[[)" + repeated(R"("")", 1'000'000) + "]]}}",
       "an array of more than 2 strings"}};
  for (const auto& [text, sentence] : cases) {
    test::expect_error(
        ErrorKind::Corrupt, {"tokenizer.json", sentence}, [&, t = &text] {
          read_tokenizer_json(*t, "tokenizer.json");
        });
  }
  read_tokenizer_json("{" + members(4096) + "}", "tokenizer.json");
}

TEST(TokenizerJson, CountlessValuesTakeLittleMemory) {
  if (!test::kHasOwnMemory) {
    GTEST_SKIP() << "a sanitizer's memory would be counted";
  }
  const std::string text = "[" + repeated("[]", 10'000'000) + "]";
  const std::uint64_t bytes = test::peak_memory_of([&] {
    try {
      read_tokenizer_json(text, "tokenizer.json");
    } catch (const Error&) { // that is what it may take
    }
  });
  EXPECT_LT(bytes, 128u << 20); // of 30 MB
}

} // namespace
} // namespace optiq::text
