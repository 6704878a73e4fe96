#include "optiq/server/schema.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/refused_field.h"

namespace optiq::server {
namespace {

using artifacts::Json;

/** What `check` says of a member x of a body: nothing if it is taken. */
std::string message_of(const Json& value, const Schema& schema) {
  try {
    check({{"x", value}}, object({{"x", schema, "", true}}), "test");
    return "";
  } catch (const RequestError& error) {
    EXPECT_EQ(error.api_error().status, 400);
    return error.api_error().param + "|" + error.api_error().code + "|" +
        error.what();
  }
}

struct Case {
  const char* name;
  Schema schema;
  std::vector<Json> taken;
  std::vector<Json> refused;
  const char* expected;
};

const std::vector<Case> kCases{
    {"boolean", boolean(), {true, false}, {0, 1, "true"}, "true or false"},
    {"integer",
     integer(1, 10),
     {1, 10, 3.0},
     {0, 11, 1.5, "1", true, 1e300, -1},
     "an integer from 1 to 10"},
    {"wide integer",
     integer(-0x1p63, 0x1p63),
     {std::numeric_limits<std::int64_t>::min(),
      std::numeric_limits<std::int64_t>::max()},
     {std::numeric_limits<std::uint64_t>::max(), 0x1p63},
     "from -9223372036854775808 to 9223372036854775807"},
    {"number", number(0, 2), {0, 2, 0.5}, {-0.001, 2.001, "1"}, "from 0 to 2"},
    {"number above",
     number_above(0, 1),
     {1e-9, 1},
     {0, 1.1, 1e-300},
     "above 0 and at most 1"},
    {"number below",
     number_below(0, 1),
     {0, 0.999},
     {1, -1, 1 - 1e-12},
     "of at least 0 and below 1"},
    {"string",
     string(1, 3),
     {"a", "abc"},
     {"", "abcd", 1, Json::array()},
     "a string of 1 to 3 bytes"},
    {"values", one_of({"a", 1}), {"a", 1}, {"b", 2, true}, "\"a\" or 1"},
    {"unsupported",
     unsupported_but({Json::array()}),
     {Json::array()},
     {Json::array({1}), "x"},
     "not supported yet"},
    {"list",
     list(integer(0, 9), 1, 2),
     {Json::array({1}), Json::array({1, 2})},
     {Json::array(), Json::array({1, 2, 3}), Json::array({10}), 1},
     ""},
    {"map",
     map(number(-1, 1), 1),
     {Json::object(), Json{{"k", 1}}},
     {Json{{"k", 2}}, Json{{"k", 1}, {"l", 1}}, Json::array()},
     ""},
    {"either",
     either({string(0, 2), list(string(0, 2), 0, 1)}),
     {"a", Json::array({"a"})},
     {"abc", Json::array({"abc"}), 1},
     ""},
};

TEST(Schema, TakesItsRangeAndRefusesWhatIsBeyond) {
  for (const Case& c : kCases) {
    for (const Json& value : c.taken) {
      EXPECT_EQ(message_of(value, c.schema), "") << c.name << " " << value;
    }
    for (const Json& value : c.refused) {
      const std::string message = message_of(value, c.schema);
      EXPECT_NE(message, "") << c.name << " " << value;
      EXPECT_NE(message.find(c.expected), std::string::npos) << message;
    }
  }
}

TEST(Schema, NamesThePlaceOfWhatItRefuses) {
  const Schema deep = list(object({{"y", list(integer(0, 1), 0, 9)}}), 0, 9);
  const Json value =
      Json::array({{{"y", Json::array({0, 1})}}, {{"y", Json::array({1, 7})}}});
  EXPECT_EQ(
      message_of(value, deep),
      "x[1].y[1]|invalid_value|[test] x[1].y[1]: found 7, expected an integer "
      "from 0 to 1");
  EXPECT_EQ(
      message_of("abc", either({boolean(), string(0, 2)})),
      "x|invalid_value|[test] x: found a string of 3 bytes, expected a string "
      "of at most 2 bytes");
}

TEST(Schema, TellsMissingFromWrong) {
  testing::expect_refused(
      "x", "missing_required_parameter", "found nothing", [] {
        check(Json::object(), object({{"x", any(), "", true}}), "test");
      });
  testing::expect_refused("x", "missing_required_parameter", "nothing", [] {
    check({{"x", nullptr}}, object({{"x", boolean(), "", true}}), "test");
  });
  check({{"x", nullptr}}, object({{"x", boolean()}}), "test");
  check({{"other", 1}}, object({{"x", boolean()}}), "test");
}

TEST(Schema, BecomesJsonSchema) {
  EXPECT_EQ(
      json_schema(object(
          {{"a", integer(1, 9), "Text.", true},
           {"b", number_above(0, 1), ""},
           {"c", one_of({"x"}), ""},
           {"d", list(string(1, 4), 0, 2), ""}})),
      Json::parse(R"({
        "type": "object",
        "properties": {
          "a": {"type": "integer", "minimum": 1, "maximum": 9,
                "description": "Text."},
          "b": {"type": ["number", "null"], "exclusiveMinimum": 0.0,
                "maximum": 1.0},
          "c": {"enum": ["x", null]},
          "d": {"type": ["array", "null"],
                "items": {"type": "string", "minLength": 1, "maxLength": 4},
                "maxItems": 2}},
        "required": ["a"]})"));
}

} // namespace
} // namespace optiq::server
