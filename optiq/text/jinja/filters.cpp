// Filters of single values.
#include <cmath>
#include <cstdlib>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {

namespace {

// soft_str: text that keeps being markup.
Value as_text(Interpreter& in, const Value& value) {
  return value.is_string() ? value
                           : in.heap().string(to_text(&in.budget(), value));
}

void require_defined(const Value& value) {
  if (value.is_undefined()) {
    fail(ErrorKind::InvalidInput, "{}", *value.undefined().reason);
  }
}

// A filter that is a method of str, applied to the value's text.
Value by_method(
    Interpreter& in,
    const char* method,
    const Value& self,
    Arguments& arguments) {
  return in.call(find_method(in, as_text(in, self), method), arguments);
}

Value filter_upper(Interpreter& in, const Value& self, Arguments& arguments) {
  return by_method(in, "upper", self, arguments);
}

Value filter_lower(Interpreter& in, const Value& self, Arguments& arguments) {
  return by_method(in, "lower", self, arguments);
}

Value filter_capitalize(Interpreter& in, const Value& self, Arguments& a) {
  return by_method(in, "capitalize", self, a);
}

Value filter_trim(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("trim", arguments, {"chars"});
  Arguments chars{{p[0]}, {}};
  return by_method(in, "strip", self, chars);
}

Value filter_center(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("center", arguments, {"width"});
  Arguments width{{Value(p.integer(0, 80))}, {}};
  return by_method(in, "center", self, width);
}

Value filter_title(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("title", arguments, {});
  return in.heap().string(to_title(as_text(in, self).text(), false));
}

Value filter_string(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("string", arguments, {});
  return as_text(in, self);
}

Value filter_safe(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("safe", arguments, {});
  return in.heap().string(as_text(in, self).text(), true);
}

Value filter_escape(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("escape", arguments, {});
  const Value text = as_text(in, self);
  return text.string().is_markup
      ? text
      : in.heap().string(escape_html(text.text()), true);
}

Value filter_replace(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("replace", arguments, {"old", "new", "count"}, 2);
  Arguments texts;
  for (std::size_t i = 0; i < 2; ++i) {
    texts.positional.push_back(in.heap().string(to_text(&in.budget(), p[i])));
  }
  texts.positional.emplace_back(p.integer(2, -1));
  const Value text = in.heap().string(to_text(&in.budget(), self));
  return by_method(in, "replace", text, texts);
}

Value filter_default(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("default", arguments, {"default_value", "boolean"});
  const bool is_missing =
      self.is_undefined() || (p.boolean(1, false) && !is_true(self));
  if (!is_missing) {
    return self;
  }
  return p.has(0) ? p[0] : in.heap().string("");
}

Value filter_indent(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("indent", arguments, {"width", "first", "blank"});
  std::string width = "    ";
  if (p[0].is_string()) {
    width = p[0].text();
  } else if (p.has(0)) {
    const Value spaces = binary(
        in.heap(),
        Operator::Multiply,
        in.heap().string(" "),
        Value(p.integer(0, 4)));
    width = spaces.text();
  }
  // Adds a newline as jinja2 does: only text can take it.
  const Value text =
      binary(in.heap(), Operator::Add, self, in.heap().string("\n", false));
  std::string out = p.boolean(1, false) ? width : "";
  bool is_first = true;
  for (const std::string_view line : split_lines(text.text(), false)) {
    in.budget().require(out.size() + width.size() + line.size() + 1);
    if (!is_first) {
      out += '\n';
      out += p.boolean(2, false) || !line.empty() ? width : "";
    }
    out += line;
    is_first = false;
  }
  return in.heap().string(std::move(out));
}

Value filter_truncate(Interpreter& in, const Value& self, Arguments& a) {
  const Parameters p("truncate", a, {"length", "killwords", "end", "leeway"});
  const std::string end = p.text(2, "...");
  const std::int64_t length = p.integer(0, 255);
  const std::int64_t keep =
      length - static_cast<std::int64_t>(count_code_points(end));
  if (keep < 0 || p.integer(3, 0) < 0) {
    fail(
        ErrorKind::InvalidInput,
        "truncate: found length {}, expected at least that of the end",
        length);
  }
  const auto size = length_of(self);
  if (!size) {
    fail(ErrorKind::InvalidInput, "truncate: found a {}", type_name(self));
  }
  if (static_cast<std::int64_t>(*size) <= length + p.integer(3, 5)) {
    return self;
  }
  const Value cut = slice(in.heap(), self, Value(), Value(keep), Value());
  std::string text = to_text(&in.budget(), cut);
  if (!p.boolean(1, false)) {
    text = text.substr(0, text.rfind(' '));
  }
  return in.heap().string(text + end);
}

Value filter_wordcount(Interpreter& in, const Value& self, Arguments& a) {
  const Parameters p("wordcount", a, {});
  const Value value = as_text(in, self);
  const std::string& text = value.text();
  std::int64_t n = 0;
  bool was_word = false;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const bool is_now = is_word(c.value);
    n += is_now && !was_word ? 1 : 0;
    was_word = is_now;
    at = c.next;
  }
  return Value(n);
}

Value filter_format(Interpreter& in, const Value& self, Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.keywords.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "format: found positional and keyword arguments, expected one kind");
  }
  Value values = in.heap().tuple(arguments.positional);
  if (!arguments.keywords.empty()) {
    std::vector<std::pair<Value, Value>> pairs;
    for (const auto& [key, value] : arguments.keywords) {
      pairs.emplace_back(in.heap().string(key), value);
    }
    values = in.heap().dict(std::move(pairs));
  }
  return in.heap().string(
      percent_format(in, to_text(&in.budget(), self), values));
}

Value filter_urlencode(Interpreter& in, const Value& self, Arguments& a) {
  const Parameters p("urlencode", a, {});
  if (!self.is_string() && is_iterable(self)) {
    fail(
        ErrorKind::Unsupported,
        "urlencode: found a {}, expected text",
        type_name(self));
  }
  std::string out;
  for (const char c : to_text(&in.budget(), self)) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_plain = byte < 0x80 &&
        (std::isalnum(byte) != 0 ||
         std::string_view("_.-~/").find(c) != std::string_view::npos);
    out += is_plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return in.heap().string(std::move(out));
}

// --- numbers -----------------------------------------------------------------

std::optional<double> to_float(const Value& value) {
  require_defined(value);
  if (value.is_number()) {
    return value.real();
  }
  return value.is_string() ? parse_float(value.text()) : std::nullopt;
}

Value filter_int(Interpreter&, const Value& self, Arguments& arguments) {
  const Parameters p("int", arguments, {"default", "base"});
  if (self.is_integral()) {
    return Value(self.integer());
  }
  if (self.is_string()) {
    const auto base = static_cast<int>(p.integer(1, 10));
    if (const auto value = parse_integer(self.text(), base)) {
      return Value(*value);
    }
  }
  const auto real = to_float(self);
  if (real && self.is(Type::Float) && std::isinf(*real)) {
    fail(ErrorKind::InvalidInput, "int: found an infinity");
  }
  if (real && std::abs(*real) < 0x1p63) {
    return Value(static_cast<std::int64_t>(*real));
  }
  if (real && std::isfinite(*real)) {
    fail(ErrorKind::Exhausted, "int: result needs more than 64 bits");
  }
  return p.has(0) ? p[0] : Value(std::int64_t{0});
}

Value filter_float(Interpreter&, const Value& self, Arguments& arguments) {
  const Parameters p("float", arguments, {"default"});
  if (const auto value = to_float(self)) {
    return Value(*value);
  }
  return p.has(0) ? p[0] : Value(0.0);
}

void require_number(const char* filter, const Value& value) {
  require_defined(value);
  if (!value.is_number()) {
    fail(
        ErrorKind::InvalidInput,
        "{}: found a {}, expected a number",
        filter,
        type_name(value));
  }
}

Value filter_abs(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("abs", arguments, {});
  require_number("abs", self);
  if (self.is(Type::Float)) {
    return Value(std::abs(self.real()));
  }
  const Value zero(std::int64_t{0});
  return self.integer() < 0 ? binary(in.heap(), Operator::Subtract, zero, self)
                            : Value(self.integer());
}

Value filter_round(Interpreter&, const Value& self, Arguments& arguments) {
  const Parameters p("round", arguments, {"precision", "method"});
  const std::string method = p.text(1, "common");
  const std::int64_t precision = p.integer(0, 0);
  require_number("round", self);
  if (method == "ceil" || method == "floor") {
    const double scale = std::pow(10.0, static_cast<double>(precision));
    const double scaled = self.real() * scale;
    return Value(
        (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
  }
  if (method != "common") {
    fail(
        ErrorKind::InvalidInput,
        "round: found method {}, expected common, ceil or floor",
        quote(method));
  }
  if (precision < 0 || precision > 300) {
    fail(ErrorKind::Unsupported, "round: found precision {}", precision);
  }
  if (self.is_integral()) {
    return Value(self.integer());
  }
  // The decimal digits that printf rounds, as Python's round() does.
  return Value(std::strtod(
      fmt::format("{:.{}f}", self.real(), precision).c_str(), nullptr));
}

// --- JSON --------------------------------------------------------------------

Value filter_tojson(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p(
      "tojson",
      arguments,
      {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = p.boolean(0, false);
  style.sort_keys = p.boolean(3, false);
  if (p[1].is_string()) {
    style.indent = p[1].text();
  } else if (p[1].is_integral()) {
    const Value spaces =
        binary(in.heap(), Operator::Multiply, in.heap().string(" "), p[1]);
    style.indent = spaces.text();
  } else if (!p[1].is_none()) {
    fail(ErrorKind::InvalidInput, "tojson: found indent {}", type_name(p[1]));
  }
  if (style.indent) {
    style.item_separator.pop_back(); // no spaces at the ends of lines
  }
  if (!p[2].is_none()) {
    const auto pair = iterate(in.heap(), p[2]);
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      fail(ErrorKind::InvalidInput, "tojson: expected two separators");
    }
    style.item_separator = pair[0].text();
    style.key_separator = pair[1].text();
  }
  return in.heap().string(dump_json(&in.budget(), self, style));
}

// Not in jinja2: some published templates use it on arguments given as text.
Value filter_from_json(Interpreter& in, const Value& self, Arguments& a) {
  const Parameters p("from_json", a, {});
  if (!self.is_string()) {
    fail(
        ErrorKind::InvalidInput,
        "from_json: found a {}, expected a string",
        type_name(self));
  }
  in.budget().work(self.text().size());
  try {
    return in.heap().from_json(
        artifacts::parse_json(self.text(), "argument of from_json"));
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Corrupt) {
      throw;
    }
    fail(ErrorKind::InvalidInput, "from_json: {}", error.what());
  }
}

Value filter_attr(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("attr", arguments, {"name"}, 1);
  const std::string name = p.text(0, "");
  if (self.is(Type::Dict) && find_method(in, self, name).is_none()) {
    return in.heap().undefined("'dict' object has no attribute '" + name + "'");
  }
  return in.attribute(self, name);
}

struct Row {
  std::string_view name;
  Native native;
};
constexpr Row kFilters[] = {
    {"abs", filter_abs},
    {"attr", filter_attr},
    {"capitalize", filter_capitalize},
    {"center", filter_center},
    {"d", filter_default},
    {"default", filter_default},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"float", filter_float},
    {"format", filter_format},
    {"from_json", filter_from_json},
    {"indent", filter_indent},
    {"int", filter_int},
    {"lower", filter_lower},
    {"replace", filter_replace},
    {"round", filter_round},
    {"safe", filter_safe},
    {"string", filter_string},
    {"title", filter_title},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"truncate", filter_truncate},
    {"upper", filter_upper},
    {"urlencode", filter_urlencode},
    {"wordcount", filter_wordcount},
};

} // namespace

Native find_filter(std::string_view name) {
  for (const Row& row : kFilters) {
    if (row.name == name) {
      return row.native;
    }
  }
  return find_sequence_filter(name);
}

} // namespace optiq::text::jinja
