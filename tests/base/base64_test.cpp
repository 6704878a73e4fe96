#include "optiq/base/base64.h"

#include <gtest/gtest.h>

namespace optiq {
namespace {

TEST(Base64, VectorsOfRfc4648) {
  for (const auto& [bytes, text] :
       {std::pair<std::string, std::string>{"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {std::string("\x00\xFF\xFE", 3), "AP/+"}}) {
    EXPECT_EQ(encode_base64(bytes), text);
    EXPECT_EQ(decode_base64(text), bytes);
  }
}

TEST(Base64, RefusesWhatItDoesNotWrite) {
  for (const char* text :
       {"Z", "Zg", "Zg=", "Zh==", "Zg===", "=", "====", "Zm9v\n", "Zm-v"}) {
    EXPECT_EQ(decode_base64(text), std::nullopt) << text;
  }
}

} // namespace
} // namespace optiq
