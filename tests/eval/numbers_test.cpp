#include "optiq/eval/numbers.h"

#include <gtest/gtest.h>

namespace optiq::eval {
namespace {

struct Case {
  const char* text;
  const char* number; // nullptr: none
};

void expect(const std::optional<std::string>& found, const Case& c) {
  if (c.number == nullptr) {
    EXPECT_FALSE(found.has_value()) << c.text << " gave " << found.value_or("");
  } else {
    EXPECT_EQ(found.value_or("nothing"), c.number) << c.text;
  }
}

TEST(LastNumber, Forms) {
  const Case cases[] = {
      {"", nullptr},
      {"no digits", nullptr},
      {"36", "36"},
      {"49 - 13 = 36\n#### 36", "36"},
      {"The answer is 36.", "36"},
      {"36.0", "36"},
      {"36.50", "36.5"},
      {"0.5", "0.5"},
      {"it is .5", "0.5"},
      {"v.5", "5"}, // the dot belongs to a word
      {"1...5", "5"}, // an ellipsis
      {"007", "7"},
      {"0", "0"},
      {"-0.00", "0"},
      {"000", "0"},
      {"1,234", "1234"},
      {"1,234,567.80", "1234567.8"},
      {"1,2", "2"}, // a list
      {"1,2345", "2345"}, // not groups of three
      {"1234,567", "567"}, // four digits do not start groups
      {"0,123", "123"}, // nor does a zero
      {"12,345,67", "67"},
      {"1,234,", "1234"},
      {"12.", "12"},
      {"3.14.15", "15"},
      {"12345678901234567890123", "12345678901234567890123"},
      {"\\boxed{42}", "42"},
      {"**42**", "42"},
      {"x2", "2"},
      {"3/4", "4"},
  };
  for (const Case& c : cases) {
    expect(last_number(c.text), c);
  }
}

TEST(LastNumber, Signs) {
  const Case cases[] = {
      {"-5", "-5"},
      {"= -5", "-5"},
      {"\xE2\x88\x92"
       "5", // U+2212
       "-5"},
      {"(-5)", "-5"},
      {"10-3", "3"}, // a difference
      {"x-3", "3"},
      {"(1 + 2)-3", "3"},
      {"10 - 3", "3"},
      {"10\xE2\x88\x92"
       "3",
       "3"},
      {"$5", "5"},
      {"$1,200.00", "1200"},
      {"-$5", "-5"},
      {"$-5", "-5"},
      {"10-$5", "5"},
      {"\xE2\x82\xAC"
       "7", // euro
       "7"},
      {"-\xC2\xA3"
       "7", // pound
       "-7"},
      {"\xC3\xA9-3", "3"}, // after a letter outside ASCII
      {"--5", "-5"},
      {"50%", "50"},
  };
  for (const Case& c : cases) {
    expect(last_number(c.text), c);
  }
}

TEST(ParseNumber, IsTheWholeText) {
  const Case cases[] = {
      {"36", "36"},
      {" 36.0\n", "36"},
      {"-1,234.5", "-1234.5"},
      {"$-5", "-5"},
      {"-$5", "-5"},
      {"50%", "50"},
      {".25", "0.25"},
      {"", nullptr},
      {"-", nullptr},
      {"$", nullptr},
      {"thirty", nullptr},
      {"36 apples", nullptr},
      {"x = 36", nullptr},
      {"1 2", nullptr},
      {"3/4", nullptr},
      {"1e3", nullptr},
      {"nan", nullptr},
  };
  for (const Case& c : cases) {
    expect(parse_number(c.text), c);
  }
}

TEST(Numbers, EqualValuesAreEqualText) {
  for (const char* same : {"36", "36.0", "036", "$36", "36.", "+36"}) {
    EXPECT_EQ(last_number(same), parse_number("36")) << same;
  }
  EXPECT_NE(last_number("36.1"), parse_number("36"));
  EXPECT_NE(last_number("-36"), parse_number("36"));
}

} // namespace
} // namespace optiq::eval
