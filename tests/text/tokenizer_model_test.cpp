#include <cstdlib>

#include <gtest/gtest.h>

#include "optiq/base/error.h"
#include "optiq/text/tokenizer.h"

namespace optiq::text {
namespace {

TEST(TokenizerModel, ReadsTheFixture) {
  const auto tokenizer = Tokenizer::load(std::getenv("OPTIQ_TEST_MODEL"));
  EXPECT_EQ(tokenizer->vocab_size(), 4096);
  EXPECT_EQ(tokenizer->token_to_id("<|im_end|>"), 4091);
  EXPECT_TRUE(tokenizer->is_special(4091));
  const std::string text =
      "<|im_start|>user\nTom's 3 boxes \u00e9\u00e8 hold 12 apples.<|im_end|>\n";
  const auto ids = tokenizer->encode(text, true);
  EXPECT_EQ(ids.front(), 4090);
  EXPECT_LT(ids.size(), text.size() / 2); // it does merge
  EXPECT_EQ(tokenizer->decode(ids, false), text);
  EXPECT_EQ(tokenizer->decode({4090, ids[1], 4091}, true), "user");
}

TEST(TokenizerModel, ADirectoryWithoutTokenizer) {
  try {
    Tokenizer::load("/nonexistent");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::NotFound);
  }
}

} // namespace
} // namespace optiq::text
