#include "optiq/text/chat_template.h"

#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/slowdown.h"

#include "optiq/base/error.h"

namespace optiq::text {
namespace {

using artifacts::Json;

std::string render(
    const std::string& source,
    const Json& variables = Json::object(),
    const RenderBudget& budget = {}) {
  return ChatTemplate::parse(source, "t.jinja").render(variables, budget);
}

/** The Error that rendering ends with; InvalidInput "" when there is none. */
Error error_of(
    const std::string& source,
    const Json& variables = Json::object(),
    const RenderBudget& budget = {}) {
  try {
    render(source, variables, budget);
  } catch (const Error& error) {
    return error;
  }
  return {ErrorKind::InvalidInput, ""};
}

std::string repeat(const std::string& text, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) {
    out += text;
  }
  return out;
}

struct Case {
  const char* source;
  const char* expected;
};

TEST(ChatTemplate, RendersExpressionsAsPythonPrintsThem) {
  const Json data = {
      {"n", 7}, {"x", 2.5}, {"s", "añ😀b"}, {"d", {{"b", 1}, {"a", nullptr}}}};
  const Case cases[] = {
      {"{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 7 }} {{ 2 ** 10 }}", "-4 2 1.0 1024"},
      {"{{ 1e16 }} {{ 0.1 + 0.2 }} {{ 1e-7 }}",
       "1e+16 0.30000000000000004 1e-07"},
      {"{{ [none, true, 'a\"', \"it's\", (1,)] }}",
       "[None, True, 'a\"', \"it's\", (1,)]"},
      {"{{ d }} {{ d | tojson }}",
       "{'b': 1, 'a': None} {\"b\": 1, \"a\": null}"},
      {"{{ s[::-1] }} {{ s[1:3] }} {{ s[-1] }} {{ s | length }}",
       "b😀ña ñ😀 b 4"},
      {"{{ not nope | default(true) }}", "False"},
      {"{{ 1 < 2 < 3 }} {{ 'a' ~ 1 * 2 }}", "True a2"},
      {"[{{ nope }}{{ 'x' if false }}]", "[]"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(render(c.source, data), c.expected) << c.source;
  }
}

TEST(ChatTemplate, ScopesNamesAsJinja2Does) {
  const Case cases[] = {
      {"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}",
       "1"},
      {"{% set n = namespace(x=1) %}{% for i in [1] %}{% set n.x = 2 %}"
       "{% endfor %}{{ n.x }}",
       "2"},
      {"{% for i in [1] %}[{{ x }}]{% endfor %}{% set x = 1 %}", "[]"},
      {"{% if true %}{% set y = 3 %}{% endif %}{{ y }}", "3"},
      {"{% macro m(a, b=a) %}{{ a }}{{ b }}{{ x }}{% endmacro %}{{ m(1) }}",
       "11data"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(render(c.source, {{"x", "data"}}), c.expected) << c.source;
  }
}

TEST(ChatTemplate, ControlsWhiteSpace) {
  const Case cases[] = {
      {"a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"},
      {"a\n  {%+ if true +%}\n b{% endif %}", "a\n  \n b"},
      {"a  {{- 1 -}}  b", "a1b"},
      {"{% raw %}{{ x }}{% endraw %}{# no #}", "{{ x }}"},
      {"a\r\nb\r", "a\nb"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(render(c.source), c.expected) << c.source;
  }
}

TEST(ChatTemplate, NamesTemplateAndLineInErrors) {
  const std::string message = error_of("a\n{{ x.y.z }}").what();
  EXPECT_NE(message.find("t.jinja:2"), std::string::npos) << message;
  EXPECT_NE(message.find("'x' is undefined"), std::string::npos) << message;
  const std::string syntax = error_of("\n\n{% if %}").what();
  EXPECT_NE(syntax.find("t.jinja:3"), std::string::npos) << syntax;
}

TEST(ChatTemplate, GivesErrorsTheirKind) {
  const std::pair<const char*, ErrorKind> cases[] = {
      {"{% if x %}", ErrorKind::Corrupt},
      {"{{ 'a }}", ErrorKind::Corrupt},
      {"{% include 'x' %}", ErrorKind::Unsupported},
      {"{{ 1 | no_such_filter }}", ErrorKind::Unsupported},
      {"{{ raise_exception('no') }}", ErrorKind::InvalidInput},
      {"{{ 1 + 'a' }}", ErrorKind::InvalidInput},
      {"{{ [1].append(2) }}", ErrorKind::InvalidInput},
      {"{{ 2 ** 1000000000 }}", ErrorKind::Exhausted},
      {"{{ 10 ** 5000 }}", ErrorKind::InvalidInput},
      {"{{ 1 | random }}", ErrorKind::Unsupported},
      {"{% extends 'x' %}", ErrorKind::Unsupported},
  };
  for (const auto& [source, kind] : cases) {
    const Error error = error_of(source);
    EXPECT_EQ(error.kind(), kind) << source << ": " << error.what();
    EXPECT_STRNE(error.what(), "") << source;
  }
}

TEST(ChatTemplate, StopsHostileTemplatesSoon) {
  const std::string loops = repeat("{% for a in range(99999) %}", 4) + "x" +
      repeat("{% endfor %}", 4);
  const std::string doubling =
      "{% set n = namespace(l=['x' * 1000]) %}{% for i in range(200) %}"
      "{% set n.l = [n.l, n.l] %}{% endfor %}";
  const std::string sources[] = {
      "{{ 'x' * 10 ** 9 }}",
      "{{ [0] * 10 ** 12 }}",
      "{{ range(10 ** 9) | length }}",
      "{{ (('x' * 10000) * 10000) * 10000 }}",
      "{{ ('x' * 4000).replace('', 'x' * 4000).replace('', 'x' * 4000) }}",
      "{{ ([('x' * 100000)] * 100000) | join }}",
      "{{ [['x' * 100000] * 1000] * 1000 }}",
      "{{ ([['x' * 100000] * 1000] * 1000) | tojson }}",
      "{{ 'x'.center(10 ** 10) }}",
      "{{ '%1000000000d' % 1 }}",
      "{{ '{:1000000000}'.format(1) }}",
      "{{ ('a\n' * 100000) | indent(10 ** 6) }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m(x) %}{{ m([x]) }}{% endmacro %}{{ m(1) }}",
      "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{% set n = namespace(x=0) %}{% set n.x = n %}{{ n }}",
      doubling + "{{ n.l }}",
      doubling + "{% set m = n.l %}" + doubling + "{{ n.l == m }}",
      doubling + "{{ n.l | tojson }}",
      ("{% set n = namespace(s='x') %}{% for i in range(99) %}"
       "{% set n.s = n.s ~ n.s %}{% endfor %}"),
      "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
      ("{% set n = namespace(x=1) %}{% for i in range(1000) %}"
       "{% set n.x = [n.x] %}{% endfor %}"),
      loops,
      ("{% set s = 'é' * 100000 %}{% for i in range(99999) %}{{ s[i] }}"
       "{% endfor %}"),
      repeat(
          "{% for i in range(90000) %}{% set n = namespace(a=i) %}{% endfor %}",
          3),
  };
  for (const std::string& source : sources) {
    const auto start = std::chrono::steady_clock::now();
    const Error error = error_of(source);
    const auto took = std::chrono::steady_clock::now() - start;
    EXPECT_EQ(error.kind(), ErrorKind::Exhausted)
        << source.substr(0, 100) << ": " << error.what();
    // The default wall budget is one second; the rest is one step's slack.
    EXPECT_LT(took, std::chrono::seconds(5)) << source.substr(0, 100);
  }
}

TEST(ChatTemplate, RefusesWhatIsNestedTooDeep) {
  const int n = 50'000;
  const std::string sources[] = {
      "{{ " + repeat("(", n) + "1" + repeat(")", n) + " }}",
      "{{ " + repeat("[", n) + repeat("]", n) + " }}",
      "{{ " + repeat("-", n) + "1 }}",
      "{{ " + repeat("not ", n) + "1 }}",
      "{{ 1" + repeat(" + 1", n) + " }}",
      "{{ 1" + repeat(" | abs", n / 2) + " }}",
      "{{ a" + repeat(".a", n) + " }}",
      "{{ a" + repeat("()", n) + " }}",
      "{{ 1" + repeat(" if 1 else 1", n / 4) + " }}",
      repeat("{% if 1 %}", n / 4) + repeat("{% endif %}", n / 8),
      "{% set " + repeat("(", n) + "a" + repeat(")", n) + " = 1 %}",
  };
  for (const std::string& source : sources) {
    EXPECT_EQ(error_of(source).kind(), ErrorKind::Unsupported)
        << source.substr(0, 30) << ": "
        << std::string(error_of(source).what()).substr(0, 200);
  }
  EXPECT_EQ(
      render("{{ " + repeat("(", 50) + "1" + repeat(")", 50) + " }}"), "1");
}

// What grew with the square of the source, or was not counted at all.
TEST(ChatTemplate, ParsesAndLooksNamesUpInLinearTime) {
  std::string elifs;
  std::string sets;
  std::string keywords;
  const int n_names = 8'000 / test::kSlowdown;
  for (int i = 0; i < n_names; ++i) {
    const std::string n = std::to_string(i);
    elifs += "{%elif a" + n + "%}{%set b" + n + "=1%}";
    sets += "{%set a" + n + "=1%}";
    keywords += "a" + n + "=1,";
  }
  const std::string sources[] = {
      "{%if x%}" + elifs + "{%endif%}",
      "{%if x%}" + repeat("{%elif a%}", 16'500 / test::kSlowdown) + "{%endif%}",
      sets + "{% for i in range(9999) %}{{ a" + std::to_string(n_names - 1) +
          " }}{% endfor %}",
      "{{ dict(" + keywords + ") | length }}",
  };
  for (const std::string& source : sources) {
    const std::clock_t start = std::clock();
    EXPECT_STREQ(error_of(source).what(), "") << source.substr(0, 30);
    const double seconds =
        static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    EXPECT_LT(seconds, 1.0) << source.substr(0, 30);
  }
}

TEST(ChatTemplate, CountsTemporaryValues) {
  const char* sources[] = {
      "{{ (',' * 20000000).split(',') | length }}",
      "{{ ('\n' * 20000000).splitlines() | length }}",
      "{{ (',' * 20000000).count(',') }}{{ ('[],' * 3000000 ~ '1') | length }}"
      "{{ ('[' ~ '[],' * 3000000 ~ '1]') | from_json | length }}",
      "{% macro m(n) %}{{ 'x' * 5000000 }}{{ m(n + 1) }}{% endmacro %}"
      "{{ m(0) }}",
      "{% macro m() %}{{ m(*varargs) }}{% endmacro %}{{ m(*range(90000)) }}",
  };
  for (const char* source : sources) {
    EXPECT_EQ(error_of(source).kind(), ErrorKind::Exhausted) << source;
  }
}

TEST(ChatTemplate, KeepsItsBudgets) {
  const std::string loop = "{% for i in range(1000) %}xy{% endfor %}";
  EXPECT_EQ(render(loop).size(), 2000u);
  EXPECT_EQ(
      error_of(loop, Json::object(), {.steps = 500}).kind(),
      ErrorKind::Exhausted);
  EXPECT_EQ(
      error_of(loop, Json::object(), {.output_bytes = 1999}).kind(),
      ErrorKind::Exhausted);
  EXPECT_EQ(
      error_of(loop, Json::object(), {.wall = std::chrono::milliseconds(-1)})
          .kind(),
      ErrorKind::Exhausted);
  const std::string countdown =
      "{% macro m(n) %}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}"
      "{% endmacro %}{{ m(9) }}";
  EXPECT_EQ(render(countdown), "9876543210");
  EXPECT_EQ(
      error_of(countdown, Json::object(), {.depth = 9}).kind(),
      ErrorKind::Exhausted);
}

class LoadTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::path(testing::TempDir()) /
        ("chat_template_" +
         std::string(
             testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override {
    std::filesystem::remove_all(directory_);
  }
  void write(const char* name, const std::string& text) {
    std::ofstream(directory_ / name) << text;
  }

  std::filesystem::path directory_;
};

TEST_F(LoadTest, PrefersTheTemplateFile) {
  write("chat_template.jinja", "file {{ eos_token }}");
  write(
      "tokenizer_config.json",
      R"({"chat_template": "config", "eos_token": {"content": "</s>"},
          "bos_token": "<s>", "pad_token": null, "add_bos_token": true})");
  const ChatTemplate loaded = ChatTemplate::load(directory_);
  EXPECT_EQ(loaded.render(loaded.special_tokens()), "file </s>");
  EXPECT_EQ(
      loaded.special_tokens(),
      Json({{"bos_token", "<s>"}, {"eos_token", "</s>"}}));
}

TEST_F(LoadTest, FindsTheTemplateInTheConfig) {
  write("tokenizer_config.json", R"({"chat_template": "text"})");
  EXPECT_EQ(ChatTemplate::load(directory_).render(Json::object()), "text");
  write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "a"},
                            {"name": "default", "template": "b"}]})");
  EXPECT_EQ(ChatTemplate::load(directory_).render(Json::object()), "b");
}

TEST_F(LoadTest, TakesPlacesInOrder) {
  const auto rendered = [this] {
    return ChatTemplate::load(directory_).render(Json::object());
  };
  write("chat_template.json", R"({"chat_template": "processor"})");
  EXPECT_EQ(rendered(), "processor");
  write("tokenizer_config.json", R"({"chat_template": {"default": "config"}})");
  EXPECT_EQ(rendered(), "config");
  write("chat_template.jinja", "file");
  EXPECT_EQ(rendered(), "file");
  std::filesystem::create_directory(directory_ / "additional_chat_templates");
  write("additional_chat_templates/default.jinja", "folder");
  EXPECT_EQ(rendered(), "folder");
}

TEST_F(LoadTest, TakesTheTemplateForToolsWhereThereAreSome) {
  const Json tools = Json::array({{{"type", "function"}}});
  write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "{% broken"},
                            {"name": "default", "template": "plain"}]})");
  const ChatTemplate broken = ChatTemplate::load(directory_);
  EXPECT_EQ(broken.render_chat(Json::array(), true), "plain");
  EXPECT_THROW(broken.render_chat(Json::array(), true, tools), Error);
  write("chat_template.jinja", "file");
  std::filesystem::create_directory(directory_ / "additional_chat_templates");
  write("additional_chat_templates/tool_use.jinja", "{{ tools | length }}");
  const ChatTemplate loaded = ChatTemplate::load(directory_);
  EXPECT_EQ(loaded.render_chat(Json::array(), true), "file");
  EXPECT_EQ(loaded.render_chat(Json::array(), true, tools), "1");
}

TEST_F(LoadTest, TakesVariablesOfTheCallersThatHideNone) {
  write("chat_template.jinja", "{{ enable_thinking }} {{ messages | length }}");
  const ChatTemplate loaded = ChatTemplate::load(directory_);
  const auto rendered = [&](const Json& more) {
    return loaded.render_chat(Json::array(), true, nullptr, more);
  };
  EXPECT_EQ(rendered({{"enable_thinking", false}}), "False 0");
  for (const char* own : {"messages", "tools", "add_generation_prompt"}) {
    test::expect_error(ErrorKind::InvalidInput, {own, "another name"}, [&] {
      rendered({{own, 1}});
    });
  }
}

TEST_F(LoadTest, LeavesOutFieldsThatAreNull) {
  write(
      "chat_template.jinja",
      "{% for m in messages %}{{ m.tool_calls is defined }}{% endfor %}"
      "{{ documents is none }}");
  EXPECT_EQ(
      ChatTemplate::load(directory_)
          .render_chat(
              Json::array({{{"role", "user"}, {"tool_calls", nullptr}}}), true),
      "FalseTrue");
}

TEST_F(LoadTest, SaysWhatIsMissing) {
  const auto kind = [this]() {
    try {
      ChatTemplate::load(directory_);
    } catch (const Error& error) {
      return error.kind();
    }
    return ErrorKind::Internal;
  };
  EXPECT_EQ(kind(), ErrorKind::NotFound);
  write("tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_EQ(kind(), ErrorKind::NotFound);
  write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_EQ(kind(), ErrorKind::Corrupt);
  write("tokenizer_config.json", R"({"chat_template": [{"name": 3}]})");
  EXPECT_EQ(kind(), ErrorKind::Corrupt);
  write("tokenizer_config.json", R"({"chat_template": [{"name": "x"}]})");
  EXPECT_EQ(kind(), ErrorKind::Corrupt);
  write("tokenizer_config.json", "[]");
  EXPECT_EQ(kind(), ErrorKind::Corrupt);
}

} // namespace
} // namespace optiq::text
