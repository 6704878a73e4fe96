#pragma once

// Templates made to take as much time and memory as they can: every builtin of
// the interpreter's tables, every operator and statement, on values as large as
// the limits allow and larger. A builtin that is added to a table is covered.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/builtin_tables.h"

namespace optiq::text {

class HostileTemplates {
 public:
  explicit HostileTemplates(std::uint64_t seed) : random_(seed) {
    for (const auto& [kind, table] : jinja::builtin_tables()) {
      for (const auto& [name, builtin] : table->rows()) {
        builtins_.push_back({kind, std::string(name)});
      }
    }
    std::sort(builtins_.begin(), builtins_.end());
  }

  std::size_t n_builtins() const {
    return builtins_.size();
  }

  /** The template of that number: builtins in turn, and between them operators
   * and what is hard to parse. */
  std::string make(std::size_t number) {
    switch (number % 8) {
      case 0:
        return statements(operation());
      case 1:
        return source_heavy();
      default:
        return statements(builtin(number / 8 * 6 + number % 8 - 2));
    }
  }

 private:
  using Choices = std::vector<std::string>;

  std::size_t below(std::size_t n) {
    return static_cast<std::size_t>(random_()) % n;
  }
  template <std::size_t N>
  const char* one_of(const char* const (&choices)[N]) {
    return choices[below(N)];
  }
  static std::string repeat(std::string_view unit, std::size_t n) {
    std::string out;
    for (std::size_t i = 0; i < n; ++i) {
      out += unit;
    }
    return out;
  }

  // A length, any order of magnitude as likely as the others.
  std::string length() {
    return std::to_string((std::size_t{1} << below(26)) + below(3));
  }
  // A number of items: fewer, for each takes more memory.
  std::string count() {
    return std::to_string((std::size_t{1} << below(21)) + below(3));
  }

  std::string integer() {
    constexpr const char* kEdges[] = {
        "0",
        "1",
        "-1",
        "2",
        "7",
        "255",
        "2147483647",
        "-2147483648",
        "9223372036854775807",
        "(-9223372036854775807 - 1)",
        "9223372036854775808",
        "(2 ** 64)",
        "(-(2 ** 64))",
        "(10 ** 4299)",
        "(2 ** 20000)",
        "(2 ** 300000)"};
    return below(3) == 0 ? length() : one_of(kEdges);
  }

  std::string number() {
    constexpr const char* kFloats[] = {
        "0.5", "1e308", "-1e308", "1e-308", "(1e308 * 10)", "(0.0 / 1.0)"};
    return below(2) == 0 ? integer() : one_of(kFloats);
  }

  std::string text() {
    constexpr const char* kUnits[] = {"x",         "ab ",   "\\u00e9",
                                      ",",         "a\\n",  "[],",
                                      "%s",        "{}",    "<&",
                                      "9",         "\\x01", "\\U0001F600",
                                      "aaaaaaaab", "-",     "a.b",
                                      "{0:>9}",    "\\t",   " ",
                                      "\\u00df",   "(",     "{\\\"a\\\":1},",
                                      "\\u0130"};
    const std::string unit = one_of(kUnits);
    switch (below(6)) {
      case 0:
        return "'" + unit + "'";
      case 1:
        return "('" + unit + "' * " + length() + " | safe)";
      case 2: // JSON
        return "('[' ~ '" + unit + "' * " + length() + " ~ '1]')";
      default:
        return "('" + unit + "' * " + length() + ")";
    }
  }

  std::string list() {
    switch (below(8)) {
      case 0:
        return "([" + scalar() + "] * " + count() + ")";
      case 1:
        return "(range(" + std::to_string(below(100'000)) + ") | list)";
      case 2:
        return "([[" + scalar() + "] * " + std::to_string(below(1000)) +
            "] * " + count() + ")";
      case 3:
        return "(" + text() + " | list)";
      case 4:
        return "([{'a': " + scalar() + "}] * " + count() + ")";
      case 5:
        return "(range(" + std::to_string(below(100'000)) +
            ") | map('string') | list)";
      case 6:
        return "([(" + scalar() + ", " + scalar() + ")] * " + count() + ")";
      default:
        return "[" + scalar() + ", " + scalar() + "]";
    }
  }

  std::string dict() {
    switch (below(4)) {
      case 0:
        return "dict.fromkeys(range(" + std::to_string(below(100'000)) + "), " +
            scalar() + ")";
      case 1:
        return "dict.fromkeys(" + list() + ")";
      case 2:
        return "{" + scalar() + ": " + scalar() + "}";
      default:
        return "{'a': " + list() + ", 'b': " + text() + "}";
    }
  }

  std::string scalar() {
    switch (below(6)) {
      case 0:
        return number();
      case 1:
        return "none";
      case 2:
        return "nope";
      case 3:
        return "true";
      default:
        return text();
    }
  }

  std::string value() {
    switch (below(12)) {
      case 0:
        return number();
      case 1:
      case 2:
      case 3:
        return text();
      case 4:
      case 5:
      case 6:
        return list();
      case 7:
        return dict();
      case 8:
        return "(" + list() + " | map('string'))";
      case 9:
        return "namespace(a=" + scalar() + ")";
      case 10:
        return "range(" + integer() + ")";
      default:
        return scalar();
    }
  }

  // The names that filters look up, and any other values.
  std::string argument() {
    constexpr const char* kNames[] = {
        "'upper'",
        "'a'",
        "'0'",
        "'a.a.a'",
        "'string'",
        "'tojson'",
        "'odd'",
        "'in'",
        "'ceil'",
        "'value'",
        "'lower'",
        "'default'",
        "'%d'",
        "'length'",
        "'a,b,a'",
        "'replace'"};
    switch (below(5)) {
      case 0:
        return one_of(kNames);
      case 1:
        return integer();
      case 2:
        return scalar();
      default:
        return value();
    }
  }

  std::string arguments() {
    constexpr const char* kKeywords[] = {
        "attribute",
        "default",
        "width",
        "indent",
        "reverse",
        "first",
        "blank",
        "length",
        "start",
        "count",
        "by",
        "case_sensitive",
        "maxsplit",
        "sep",
        "fill_with",
        "killwords",
        "leeway",
        "end"};
    std::string out;
    for (std::size_t n = below(4); n > 0; --n) {
      out += argument() + ", ";
    }
    if (below(4) == 0) {
      out += std::string(one_of(kKeywords)) + "=" + argument();
    }
    return "(" + out + ")";
  }

  std::string builtin(std::size_t number) {
    const auto& [kind, name] = builtins_[number % builtins_.size()];
    if (kind == "filter") {
      return "(" + value() + " | " + name + arguments() + ")";
    }
    if (kind == "test") {
      return name.find_first_of("<>=!") != std::string::npos
          ? "(" + list() + " | select('" + name + "', " + argument() +
              ") | list)"
          : "(" + value() + " is " + name + arguments() + ")";
    }
    if (kind == "global") {
      return name + arguments();
    }
    const std::string self = kind == "str" ? text()
        : kind == "list"                   ? list()
        : kind == "tuple"                  ? "range(" + count() + ")"
        : kind == "dict"                   ? dict()
        : kind == "int"                    ? integer()
        : kind == "float"                  ? "(1e308 * " + scalar() + ")"
        : kind == "loop"                   ? std::string("loop")
                                           : "cycler(" + value() + ")";
    return self + "." + name + arguments();
  }

  std::string operation() {
    constexpr const char* kSigns[] = {
        "+",
        "-",
        "*",
        "/",
        "//",
        "%",
        "**",
        "~",
        "==",
        "<",
        "<=",
        "!=",
        ">",
        "in",
        "not in",
        ">="};
    constexpr const char* kAfter[] = {
        "[0]", "[-1]", "[::-1]", "[1:]", "[::2]", "['a']", ".a", ".0", "()"};
    switch (below(4)) {
      case 0:
        return "(" + value() + ")" + one_of(kAfter);
      case 1:
        return "('%s%r%(a)s%*d%.*f%c%999999999d' % " + value() + ")";
      case 2:
        return "(" + value() + ")[" + integer() + ":" + integer() + ":" +
            integer() + "]";
      default:
        return "(" + value() + " " + one_of(kSigns) + " " + value() + ")";
    }
  }

  // An expression inside statements that repeat it and keep what it gives.
  std::string statements(const std::string& expression) {
    const std::string print = "{{ " + expression + " }}";
    const std::string loop =
        "{% for i in range(" + std::to_string(1 + below(99'999)) + ") %}";
    switch (below(12)) {
      case 0:
        return print;
      case 1:
        return loop + "{% set x = " + expression + " %}{% endfor %}";
      case 2:
        return "{% set n = namespace(l=[]) %}" + loop + "{% set n.l = n.l + [" +
            expression + "] %}{% endfor %}";
      case 3:
        return "{% set n = namespace(l=[]) %}" + loop + "{% set n.l = [n.l, " +
            expression + "] %}{% endfor %}{{ n.l | string | length }}";
      case 4:
        return "{% macro m(k, v) %}{% set y = " + expression +
            " %}{{ m(k + 1, y) }}{{ y }}{% endmacro %}{{ m(0, 1) }}";
      case 5:
        return "{% macro m(k) %}{% set y %}{{ " + expression +
            " }}{{ m(k + 1) }}{% endset %}{{ y }}{% endmacro %}{{ m(0) }}";
      case 6:
        return "{% filter upper %}" + print + print + "{% endfilter %}";
      case 7:
        return "{% autoescape true %}" + loop + print +
            "{% endfor %}{% endautoescape %}";
      case 8:
        return "{% for i in " + expression +
            " recursive %}{{ loop([i, i]) if loop.depth < 99 }}{% endfor %}";
      case 9:
        return "{% macro m() %}{{ caller(" + expression +
            ") }}{% endmacro %}{% call(a) m() %}{{ a }}{% endcall %}";
      case 10:
        return loop + "{% with a = " + expression + " %}{% block b" +
            std::to_string(below(9)) +
            " scoped %}{{ a }}{% endblock %}{% endwith %}{% endfor %}";
      default:
        return "{% set x = " + expression + " %}" + loop + "{% for j in x %}" +
            "{{ j }}{% endfor %}{% endfor %}";
    }
  }

  // Long sources: the limit of a source is 256 KiB.
  std::string source_heavy() {
    const std::size_t n = std::size_t{1} << below(15);
    std::string names;
    switch (below(11)) {
      case 0:
        for (std::size_t i = 0; i < n; ++i) {
          names += "{% elif a" + std::to_string(i) + " %}{% set b" +
              std::to_string(i) + " = 1 %}";
        }
        return "{% if x %}" + names + "{% endif %}";
      case 1:
        return "{% if x %}" + repeat("{%elif a%}", n) + "{% endif %}";
      case 2:
        for (std::size_t i = 0; i < n; ++i) {
          names += "a" + std::to_string(i) + "=1,";
        }
        return "{% macro m() %}{{ kwargs }}{% endmacro %}{{ m(" + names +
            ") }}{{ dict(" + names + ") }}";
      case 3:
        for (std::size_t i = 0; i < n; ++i) {
          names += "{%set a" + std::to_string(i) + "=1%}";
        }
        return names + "{% for i in range(99999) %}{{ a" +
            std::to_string(n - 1) + " }}{% endfor %}";
      case 4:
        return "{{ [" + repeat("a,", n) + "] }}";
      case 5:
        return repeat("{{a}}", n);
      case 6:
        return repeat("{% for a in b %}", 1 + below(60)) + repeat("{{a}}", n);
      case 7:
        return "{{ " + repeat("9", n) + " }}{{ 0x" + repeat("f", n) + " }}";
      case 8:
        return "{{ '" + repeat("\\x41", n) + "' }}" + repeat("{#a#}", n);
      case 9:
        for (std::size_t i = 0; i < n; ++i) {
          names += "{% macro m" + std::to_string(i) + "(a=1) %}{% endmacro %}";
        }
        return names;
      default:
        return repeat("{% if a %}{% set b = 1 %}", 1 + below(60)) +
            repeat("{% if c %}{% set d = 1 %}{% else %}{% set e = 2 %}{% endif %}",
                   n / 8);
    }
  }

  std::mt19937_64 random_;
  std::vector<std::pair<std::string, std::string>> builtins_; // kind, name
};

} // namespace optiq::text
