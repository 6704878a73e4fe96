#include <gtest/gtest.h>

#include "charsmap_for_tests.h"

#include "optiq/base/error.h"
#include "optiq/text/charsmap_impl.h"

namespace optiq::text {
namespace {

std::string message_of(const std::string& bytes) {
  try {
    CharsMap::parse(bytes, "m");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Corrupt);
    return error.what();
  }
  return "accepted";
}

TEST(CharsMap, FindsTheLongestAndTheShortestRule) {
  const CharsMap map = CharsMap::parse(two_rules().bytes(kTwoRulesTexts), "m");
  EXPECT_EQ(map.longest_rule("abc")->content, "long");
  EXPECT_EQ(map.longest_rule("abc")->bytes, 2u);
  EXPECT_EQ(map.shortest_rule("abc")->content, "X");
  EXPECT_EQ(map.longest_rule("ac")->bytes, 1u);
  EXPECT_FALSE(map.longest_rule("b"));
  EXPECT_FALSE(map.longest_rule(""));
  EXPECT_FALSE(map.longest_rule(std::string_view("\0a", 2)));
}

TEST(CharsMap, PrecompiledReplacesWholeClusters) {
  const CharsMap map = CharsMap::parse(two_rules().bytes(kTwoRulesTexts), "m");
  EXPECT_EQ(apply_charsmap(map, "abcab"), "XbcXb"); // character by character
  EXPECT_EQ(apply_charsmap(map, "a\u0301b"), "Xb"); // the mark is lost
  // Six bytes are too many: the marks stay.
  EXPECT_EQ(apply_charsmap(map, "a\u0301\u0301\u0301"), "X\u0301\u0301\u0301");
}

TEST(CharsMap, RefusesBrokenMaps) {
  const std::string whole = two_rules().bytes(kTwoRulesTexts);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_NE(message_of(whole.substr(0, size)), "accepted") << size;
  }
  CharsMapArray far = two_rules();
  far.set_value(300, 1000);
  EXPECT_NE(
      message_of(far.bytes(kTwoRulesTexts)).find("has no text"),
      std::string::npos);
  CharsMapArray outside = two_rules();
  outside.set(128 ^ 'b', 'b', 1 << 20, true);
  EXPECT_NE(
      message_of(outside.bytes(kTwoRulesTexts)).find("has no text"),
      std::string::npos);
  CharsMapArray inside = two_rules();
  const std::string_view accent = "\0\u00e9x\0"; // 3: inside the letter
  inside.set_value(300, 2);
  EXPECT_NE(
      message_of(inside.bytes({accent.data(), 5})).find("has no text"),
      std::string::npos);
  EXPECT_NE(
      message_of(two_rules().bytes("abc")).find("ends in a NUL"),
      std::string::npos);
  EXPECT_NE(
      message_of(two_rules().bytes({"\xff\0", 2})).find("UTF-8"),
      std::string::npos);
  EXPECT_NE(
      message_of(std::string("\xff\xff\xff\x7f", 4)).find("double array"),
      std::string::npos);
}

TEST(CharsMap, ACycleOrALongJumpEndsTheSearch) {
  CharsMapArray cycle(512);
  cycle.set(0, '\0', 256, false);
  cycle.set(256 ^ 'a', 'a', 256, false); // its own parent
  const CharsMap map = CharsMap::parse(cycle.bytes(kTwoRulesTexts), "m");
  EXPECT_FALSE(map.longest_rule(std::string(100, 'a')));
  CharsMapArray jump(512);
  jump.set(0, '\0', 1 << 20, false);
  EXPECT_FALSE(
      CharsMap::parse(jump.bytes(kTwoRulesTexts), "m").longest_rule("a"));
}

TEST(CharsMap, ARuleInsideACharacterIsNone) {
  CharsMapArray array(512);
  array.set(0, '\0', 256, false);
  array.set(256 ^ 0xC3, '\xC3', 128, true); // half of an e with an accent
  array.set_value(128, 1);
  const CharsMap map = CharsMap::parse(array.bytes(kTwoRulesTexts), "m");
  EXPECT_FALSE(map.longest_rule("\u00e9"));
}

} // namespace
} // namespace optiq::text
