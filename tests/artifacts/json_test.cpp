#include "optiq/artifacts/json.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <gtest/gtest.h>

#include "support/child_memory.h"
#include "support/expect_error.h"
#include "support/scratch_folder.h"

namespace optiq::artifacts {
namespace {

using test::expect_error;

TEST(ParseJsonMembers, HandsOverOneAtATime) {
  std::string seen;
  parse_json_members(
      R"({"b":{"x":[1,{"y":2}],"z":{}},"a":3,"c":[],"":null})",
      "t",
      kMemberJson,
      [&](const std::string& name, Json&& value) {
        seen += name + "=" + value.dump() + ";";
      });
  EXPECT_EQ(seen, R"(b={"x":[1,{"y":2}],"z":{}};a=3;c=[];=null;)");
  const auto ignore = [](const std::string&, Json&&) {};
  parse_json_members("{}", "t", kMemberJson, ignore);
  for (const char* text : {"[]", "1", "null", "\"{}\""}) {
    expect_error(ErrorKind::Corrupt, {"the place", "an object"}, [&] {
      parse_json_members(text, "the place", kMemberJson, ignore);
    });
  }
  for (const char* text :
       {R"({"b":{"twice":1,"twice":2}})", R"({"b":[{"twice":1,"twice":2}]})"}) {
    expect_error(ErrorKind::Corrupt, {"twice", "once"}, [&] {
      parse_json_members(text, "t", kMemberJson, ignore);
    });
  }
  // 65,536 values of a member: the list itself and its items.
  std::string items = "0";
  for (int i = 1; i < 65'535; ++i) {
    items += ",0";
  }
  parse_json_members(
      "{\"a\":[" + items + "],\"b\":[0]}", "t", kMemberJson, ignore);
  expect_error(ErrorKind::Corrupt, {"'b'", "65536"}, [&] {
    parse_json_members(
        "{\"a\":[" + items + "],\"b\":[" + items + ",0]}",
        "t",
        kMemberJson,
        ignore);
  });
}

TEST(ParseJson, KeepsTheOrderOfKeysAndTheKindsOfNumbers) {
  const Json json = parse_json(
      R"({"z":1,"a":[-2,1.5,1e3,true,null,"\u00e9"],"m":{"y":{},"b":[]}})",
      "t");
  EXPECT_EQ(
      json.dump(),
      "{\"z\":1,\"a\":[-2,1.5,1000.0,true,null,\"\xc3\xa9\"],"
      "\"m\":{\"y\":{},\"b\":[]}}");
  EXPECT_EQ(parse_json(" 7 ", "t"), 7);
}

TEST(ParseJson, NamesPlaceAndPositionOfAnError) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "byte 1"},
      {"{\"a\":}", "byte 6"},
      {"[1,]", "byte 4"},
      {"[1 2]", "byte 4"},
      {"{\"a\" 1}", "byte 6"},
      {"nul", "byte 4"},
      {"1e999", "byte 5"},
      {"[NaN]", "byte 2"},
      {"\"\xff\"", "byte 2"},
      {"{}x", "byte 3"},
      {"// c\n1", "byte 1"}};
  for (const auto& [text, position] : cases) {
    expect_error(ErrorKind::Corrupt, {"the place", position}, [&, t = text] {
      parse_json(t, "the place");
    });
  }
  expect_error(ErrorKind::Corrupt, {"t", "byte 2", "zero byte"}, [] {
    parse_json(std::string_view("{}\0{", 4), "t");
  });
}

TEST(ParseJson, MessagesAreShortAndPrintable) {
  for (const std::string& text :
       {"\"" + std::string(1'000'000, 'x'),
        "[" + std::string(1'000'000, '1') + "x]",
        std::string("[\"\xff\"]")}) {
    try {
      parse_json(text, "t");
      FAIL() << "expected an error";
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_LT(message.size(), 300u);
      EXPECT_EQ(message.find("json.exception"), std::string::npos);
      EXPECT_TRUE(std::all_of(message.begin(), message.end(), [](char c) {
        return c >= ' ' && c <= '~';
      })) << message;
    }
  }
}

TEST(ParseJson, Allows200Levels) {
  const auto nested = [](int n) {
    return std::string(n, '[') + std::string(n, ']');
  };
  EXPECT_TRUE(parse_json(nested(200), "t").is_array());
  expect_error(ErrorKind::Corrupt, {"200 levels"}, [&] {
    parse_json(nested(201), "t");
  });
  expect_error(ErrorKind::Corrupt, {"200 levels"}, [] {
    parse_json(std::string(5'000'000, '['), "t");
  });
}

/** A list of n times the item. */
std::string list_of(const std::string& item, std::size_t n) {
  std::string text = "[" + item;
  for (std::size_t i = 1; i < n; ++i) {
    text += "," + item;
  }
  return text + "]";
}

TEST(ParseJson, CountsValuesAndBytes) {
  const JsonLimits limits{.max_bytes = 100, .max_values = 5};
  parse_json("[1,{\"a\":2},[]]", "t", limits); // with the outermost list
  expect_error(ErrorKind::Corrupt, {"the place", "5 values"}, [&] {
    parse_json("[1,{\"a\":2},[],0]", "the place", limits);
  });
  parse_json("\"" + std::string(98, 'x') + "\"", "t", limits);
  expect_error(ErrorKind::Corrupt, {"the place", "101 bytes", "100"}, [&] {
    parse_json("\"" + std::string(99, 'x') + "\"", "the place", limits);
  });
  const auto ignore = [](const std::string&, Json&&) {};
  // Of a member, keys and strings count.
  const std::string fifty(50, 'y');
  const std::string member = "{\"" + fifty + "\":\"" + fifty;
  parse_json_members(
      "{\"a\":\"" + fifty + "\",\"b\":\"" + fifty + "\"}", "t", limits, ignore);
  expect_error(ErrorKind::Corrupt, {"'a'", "100 bytes"}, [&] {
    parse_json_members("{\"a\":" + member + "\"}}", "t", limits, ignore);
  });
}

TEST(ParseJson, NoTextTakesMoreMemoryThanItsLimitsSay) {
  if (!test::kHasOwnMemory) {
    GTEST_SKIP() << "a sanitizer's memory would be counted";
  }
  std::string keys = "{";
  for (int i = 0; i < 300'000; ++i) {
    keys += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":{}";
  }
  for (const std::string& text :
       {list_of("[]", 5'000'000),
        list_of("{}", 5'000'000),
        list_of("0", 8'000'000),
        list_of("\"\"", 5'000'000),
        list_of("{\"a\":[{}]}", 1'000'000),
        keys + "}",
        list_of("\"" + std::string(30, 'x') + "\"", 500'000)}) {
    const std::uint64_t bytes = test::peak_memory_of([&] {
      try {
        parse_json(text, "t");
      } catch (const Error&) { // that is what it may take
      }
    });
    EXPECT_LT(bytes, kConfigJson.max_values * 256 + 2 * kConfigJson.max_bytes)
        << text.substr(0, 20);
  }
}

TEST(ParseJson, DuplicateKeysKeepTheLastOrAreRefused) {
  const char* text = R"({"a":1,"b":{"a":2,"a":[3]},"a":4,"c":5})";
  EXPECT_EQ(parse_json(text, "t").dump(), R"({"a":4,"b":{"a":[3]},"c":5})");
  expect_error(ErrorKind::Corrupt, {"'a'", "twice"}, [&] {
    parse_json(text, "t", kConfigJson, DuplicateKeys::Refuse);
  });
  // The same key in two objects is no duplicate.
  parse_json(
      R"({"a":{"a":1},"b":[{"a":1},{"a":2}]})",
      "t",
      kConfigJson,
      DuplicateKeys::Refuse);
}

TEST(ParseJson, ALargeObjectTakesLinearTime) {
  // A vocabulary: with a search of all earlier keys for each one this is
  // 2e10 comparisons, minutes; in linear time it is far under a second.
  std::string text = "{";
  for (int i = 0; i < 200'000; ++i) {
    text += (i ? ",\"" : "\"") + std::to_string(i) + "\":" + std::to_string(i);
  }
  const auto start = std::chrono::steady_clock::now();
  const Json json = parse_json(text + "}", "t");
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - start;
  EXPECT_EQ(json.size(), 200'000u);
  EXPECT_EQ(json.back(), 199'999);
  EXPECT_LT(seconds.count(), 20);
}

TEST(Required, ConvertsWhatFits) {
  const Json json = parse_json(
      R"({"i":-3,"big":18446744073709551615,"d":1.5,"one":1,"b":true,)"
      R"("s":"x","v":[1,2],"vv":[[1],[]],"vs":["a"],"n":null})",
      "t");
  EXPECT_EQ(required<int>(json, "i", "t"), -3);
  EXPECT_EQ(required<std::uint64_t>(json, "big", "t"), ~0ull);
  EXPECT_EQ(required<double>(json, "d", "t"), 1.5);
  EXPECT_EQ(required<double>(json, "one", "t"), 1.0);
  EXPECT_EQ(required<float>(json, "d", "t"), 1.5f);
  EXPECT_TRUE(required<bool>(json, "b", "t"));
  EXPECT_EQ(required<std::string>(json, "s", "t"), "x");
  EXPECT_EQ(
      required<std::vector<int>>(json, "v", "t"), (std::vector<int>{1, 2}));
  EXPECT_EQ(
      required<std::vector<std::vector<int>>>(json, "vv", "t"),
      (std::vector<std::vector<int>>{{1}, {}}));
  EXPECT_EQ(
      required<std::vector<std::string>>(json, "vs", "t"),
      std::vector<std::string>{"a"});
  EXPECT_EQ(optional_or(json, "absent", "t", 7), 7);
  EXPECT_EQ(optional_or(json, "n", "t", 7), 7);
  EXPECT_EQ(optional_or(json, "i", "t", 7), -3);
}

TEST(Required, RefusesOtherTypesAndRangesNamingAllOfIt) {
  const auto refuse = [](const char* value, const char* shown, auto zero) {
    using T = decltype(zero);
    const Json json = parse_json("{\"k\":" + std::string(value) + "}", "t");
    expect_error(ErrorKind::Corrupt, {"config.json", "'k'", shown}, [&] {
      required<T>(json, "k", "config.json");
    });
    if (!json.at("k").is_null()) {
      expect_error(ErrorKind::Corrupt, {"config.json", "'k'", shown}, [&] {
        optional_or<T>(json, "k", "config.json", zero);
      });
    }
  };
  refuse("1e30", "1e+30", 0);
  refuse("2147483648", "2147483648", 0);
  refuse("-2147483649", "-2147483649", 0);
  refuse("1.0", "an integer from -2147483648 to 2147483647", 0);
  refuse("true", "true", 0);
  refuse("\"1\"", "\"1\"", 0);
  refuse("[1]", "a list", 0);
  refuse("null", "null", 0);
  refuse("-1", "an integer from 0 to 18446744073709551615", std::uint64_t{0});
  refuse("18446744073709551616", "1.8446744073709552e+19", std::uint64_t{0});
  refuse("9223372036854775808", "9223372036854775808", std::int64_t{0});
  refuse("1", "true or false", false);
  refuse("\"1.5\"", "a number", 0.0);
  refuse("{}", "an object", 0.0);
  refuse("1", "a string", std::string());
  refuse("1", "a list", std::vector<int>());
  refuse("[1,\"2\"]", "a list, each item an integer", std::vector<int>());
  refuse("[1,3000000000]", "a list", std::vector<int>());
}

TEST(Required, AMissingKeyIsNamed) {
  for (const Json& json : {Json::object(), Json::array(), Json(7)}) {
    expect_error(ErrorKind::Corrupt, {"'hidden_size'", "missing", "t"}, [&] {
      required<int>(json, "hidden_size", "t");
    });
    expect_error(ErrorKind::Corrupt, {"'text_config'", "missing"}, [&] {
      required_object(json, "text_config", "t");
    });
  }
  expect_error(ErrorKind::Corrupt, {"'a'", "a list", "an object"}, [] {
    required_object({{"a", Json::array()}}, "a", "t");
  });
}

TEST(DumpJson, NumbersThatJsonLacksComeBack) {
  Json json = {{"a", {HUGE_VAL, -HUGE_VAL, 1.5}}, {"b", {{"c", std::nan("")}}}};
  const std::string text = dump_json(json, 0);
  Json back = parse_json(text, "t");
  EXPECT_EQ(back.at("a")[0].at("__float__"), "Infinity");
  decode_tagged_floats(back, "t");
  EXPECT_EQ(back.at("a"), json.at("a"));
  EXPECT_TRUE(std::isnan(back.at("b").at("c").get<double>()));
  EXPECT_EQ(text.back(), '\n');
}

TEST(DumpJson, FloatsRoundTripAndBadUtf8IsEscaped) {
  for (const double value :
       {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, 6.36e-05, -0.0}) {
    const Json back = parse_json(dump_json(value, -1), "t");
    EXPECT_EQ(back.get<double>(), value);
  }
  EXPECT_EQ(dump_json("a\xff", -1), "\"a\\\\xff\"\n");
  const Json names = {{"mod\xe9l", {"/tmp/mod\xe9l"}}};
  EXPECT_EQ(
      parse_json(dump_json(names, 2), "t").dump(),
      R"({"mod\\xe9l":["/tmp/mod\\xe9l"]})");
}

TEST(ReadJsonFile, NamesTheFile) {
  const test::ScratchFolder folder;
  test::write_file(folder / "bad.json", "{");
  expect_error(ErrorKind::Corrupt, {"bad.json"}, [&] {
    read_json_file(folder / "bad.json");
  });
  expect_error(ErrorKind::NotFound, {"absent.json"}, [&] {
    read_json_file(folder / "absent.json");
  });
}

} // namespace
} // namespace optiq::artifacts
