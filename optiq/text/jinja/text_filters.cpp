// Filters of text and single values.
#include <algorithm>
#include <cctype>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

// A filter that is a method of str, applied to the value's text.
Value by_method(
    Interpreter& in,
    const char* method,
    const Value& self,
    Arguments& arguments) {
  return in.call(
      *string_methods().find(method), as_text(in.heap(), self), arguments);
}

template <const char* const& method>
Value filter_method(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p(method, arguments, {});
  return by_method(in, method, self, arguments);
}
constexpr const char* kUpper = "upper";
constexpr const char* kLower = "lower";
constexpr const char* kCapitalize = "capitalize";

Value filter_trim(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("trim", arguments, {"chars"});
  Arguments chars(&in.budget());
  chars.positional.push(p[0]);
  return by_method(in, "strip", self, chars);
}

Value filter_center(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("center", arguments, {"width"});
  Arguments width(&in.budget());
  width.positional.push(Value(p.integer(0, 80)));
  return by_method(in, "center", self, width);
}

Value filter_title(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("title", arguments, {});
  const Value text = as_text(in.heap(), self);
  Text out = in.heap().text();
  write_titled_words(out, text.text());
  return in.heap().string(std::move(out));
}

Value filter_string(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("string", arguments, {});
  return as_text(in.heap(), self);
}

Value filter_safe(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("safe", arguments, {});
  const Value text = as_text(in.heap(), self);
  return in.heap().string(text.text(), true);
}

Value filter_escape(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("escape", arguments, {});
  return escaped(in.heap(), self);
}

Value filter_forceescape(
    Interpreter& in,
    const Value& self,
    Arguments& arguments) {
  const Parameters p("forceescape", arguments, {});
  const Value text = as_text(in.heap(), self);
  Text out = in.heap().text();
  write_escaped(out, text.text());
  return in.heap().string(std::move(out), true);
}

// Markup counts as such only where `autoescape` is on.
Value plain_text(Interpreter& in, const Value& value) {
  const Value text = as_text(in.heap(), value);
  return text.is_markup() && !in.autoescapes() ? in.heap().string(text.text())
                                               : text;
}

Value filter_replace(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("replace", arguments, {"s", "new", "count"}, 2);
  const Value old_text = plain_text(in, p[0]);
  const Value new_text = plain_text(in, p[1]);
  Value text = plain_text(in, self);
  if (in.autoescapes() &&
      (old_text.is_markup() || (new_text.is_markup() && !text.is_markup()))) {
    text = escaped(in.heap(), text);
  }
  Arguments texts(&in.budget());
  texts.positional.push(old_text);
  texts.positional.push(new_text);
  texts.positional.push(Value(p.integer_or_none(2, -1)));
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
  require_defined(self);
  if (!self.is_string()) {
    fail(
        ErrorKind::InvalidInput,
        "indent: found a {}, expected text",
        type_name(self));
  }
  Text unit = in.heap().text();
  if (p[0].is_string()) {
    unit.append(p[0].text());
  } else {
    const std::int64_t width = std::max<std::int64_t>(p.integer(0, 4), 0);
    unit.append_times(" ", static_cast<std::size_t>(width));
  }
  const bool escapes = self.is_markup() && !p[0].is_markup();
  const Value width = escapes ? escaped(in.heap(), in.heap().string(unit.str()))
                              : in.heap().string(unit.str());
  const bool indents_blank = p.boolean(2, false);
  Text out = in.heap().text();
  out.append(p.boolean(1, false) ? width.text() : "");
  bool is_first = true;
  // As jinja2 does: with a newline that a last line without one needs.
  Text text = in.heap().text();
  text.append(self.text());
  text.append('\n');
  split_lines(text.str(), false, [&](std::string_view line) {
    if (!is_first) {
      out.append('\n');
      out.append(indents_blank || !line.empty() ? width.text() : "");
    }
    out.append(line);
    is_first = false;
  });
  return in.heap().string(std::move(out), self.is_markup());
}

Value filter_truncate(Interpreter& in, const Value& self, Arguments& a) {
  const Parameters p("truncate", a, {"length", "killwords", "end", "leeway"});
  const Value end = p.has(2) ? p[2] : in.heap().string("...");
  const std::int64_t length = p.bound(0, 255);
  const std::int64_t leeway = p.bound(3, 5);
  const auto end_length = length_of(end);
  if (!end_length || (p.has(0) && p[0].is_none()) ||
      length < static_cast<std::int64_t>(*end_length) || leeway < 0) {
    fail(
        ErrorKind::InvalidInput,
        "truncate: found length {} and leeway {}, expected at least the "
        "length of the end, and 0",
        length,
        leeway);
  }
  const auto size = length_of(self);
  if (!size) {
    fail(
        ErrorKind::InvalidInput,
        "truncate: found a {}, expected text",
        type_name(self));
  }
  std::int64_t most = 0;
  if (__builtin_add_overflow(length, leeway, &most) ||
      static_cast<std::int64_t>(*size) <= most) {
    return self;
  }
  const Value keep(length - static_cast<std::int64_t>(*end_length));
  Value cut = slice(in.heap(), self, Value(), keep, Value());
  if (!cut.is_string()) {
    fail(
        ErrorKind::InvalidInput,
        "truncate: found a {}, expected text",
        type_name(cut));
  }
  if (!p.boolean(1, false)) {
    const std::string_view text = cut.text();
    cut = in.heap().string(text.substr(0, text.rfind(' ')), cut.is_markup());
  }
  return binary(in.heap(), Operator::Add, cut, end);
}

Value filter_wordcount(Interpreter& in, const Value& self, Arguments& a) {
  const Parameters p("wordcount", a, {});
  const Value value = as_text(in.heap(), self);
  const std::string& text = value.text();
  std::int64_t n = 0;
  bool was_word = false;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const bool is_now = is_word_character(c.value);
    n += is_now && !was_word ? 1 : 0;
    was_word = is_now;
    at = c.next;
  }
  return Value(n);
}

Value filter_wordwrap(Interpreter& in, const Value& self, Arguments& a) {
  const Parameters p(
      "wordwrap",
      a,
      {"width", "break_long_words", "wrapstring", "break_on_hyphens"});
  require_defined(self);
  if (!self.is_string()) {
    fail(
        ErrorKind::InvalidInput,
        "wordwrap: found a {}, expected text",
        type_name(self));
  }
  const std::string_view separator = p[2].is_none() ? "\n" : p.text(2, "");
  if (self.text().empty()) {
    return in.heap().string("");
  }
  const std::int64_t width = p.integer(0, 79);
  const WrapStyle style{
      .width = static_cast<std::size_t>(std::max<std::int64_t>(width, 1)),
      .breaks_words = p.boolean(1, true),
      .breaks_at_hyphens = p.boolean(3, true)};
  Text out = in.heap().text();
  bool is_first = true;
  const OnPart add = [&](std::string_view piece) {
    out.append(std::exchange(is_first, false) ? "" : separator);
    out.append(piece);
  };
  split_lines(self.text(), false, [&](std::string_view line) {
    if (width <= 0) {
      fail(ErrorKind::InvalidInput, "wordwrap: found width {}", width);
    }
    bool has_pieces = false;
    wrap_line(in.heap(), line, style, [&](std::string_view piece) {
      has_pieces = true;
      add(piece);
    });
    if (!has_pieces) {
      add(""); // an empty line stays one
    }
  });
  return in.heap().string(std::move(out));
}

Value filter_format(Interpreter& in, const Value& self, Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.keywords.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "format: found positional and keyword arguments, expected one kind");
  }
  Value values;
  if (arguments.keywords.empty()) {
    Items items = in.heap().items();
    items.append(arguments.positional);
    values = in.heap().tuple(std::move(items));
  } else {
    values = make_dict("format", in.heap(), arguments);
  }
  const Value format = as_text(in.heap(), self);
  return percent_format(in.heap(), format.string(), values);
}

// --- for the web -------------------------------------------------------------

void write_url(Text& out, std::string_view text, bool is_query) {
  const std::string_view plain = is_query ? "_.-~" : "_.-~/";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 &&
        (std::isalnum(byte) != 0 || plain.find(c) != std::string_view::npos)) {
      out.append(c);
    } else if (c == ' ' && is_query) {
      out.append('+');
    } else {
      out.append(fmt::format("%{:02X}", byte));
    }
  }
}

Value filter_urlencode(Interpreter& in, const Value& self, Arguments& a) {
  const Parameters p("urlencode", a, {});
  Text out = in.heap().text();
  if (self.is_string() || !is_iterable(self)) {
    write_url(out, to_text(&in.budget(), self).str(), false);
    return in.heap().string(std::move(out));
  }
  bool is_first = true;
  const auto add = [&](const Value& key, const Value& value) {
    out.append(std::exchange(is_first, false) ? "" : "&");
    write_url(out, to_text(&in.budget(), key).str(), true);
    out.append('=');
    write_url(out, to_text(&in.budget(), value).str(), true);
  };
  if (self.is(Type::Dict)) {
    for (const auto& [key, value] : self.dict().items()) {
      add(key, value);
    }
    return in.heap().string(std::move(out));
  }
  for (const Value& item : iterate(in.heap(), self)) {
    const Items pair = iterate(in.heap(), item);
    if (pair.size() != 2) {
      fail(ErrorKind::InvalidInput, "urlencode: expected pairs");
    }
    add(pair[0], pair[1]);
  }
  return in.heap().string(std::move(out));
}

Value filter_xmlattr(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("xmlattr", arguments, {"autospace"});
  require_defined(self);
  if (!self.is(Type::Dict)) {
    fail(
        ErrorKind::InvalidInput,
        "xmlattr: found a {}, expected a dict",
        type_name(self));
  }
  Text out = in.heap().text();
  bool is_first = true;
  for (const auto& [key, value] : self.dict().items()) {
    if (value.is_none() || value.is_undefined()) {
      continue;
    }
    if (!key.is_string() ||
        key.text().find_first_of(" \t\n\r\f\v/>=") != std::string::npos) {
      fail(
          ErrorKind::InvalidInput,
          "xmlattr: found {} as the name of an attribute",
          key.is_string() ? quote(key.text()) : type_name(key));
    }
    out.append(is_first && !p.boolean(0, true) ? "" : " ");
    is_first = false;
    out.append(escaped(in.heap(), key).text());
    out.append("=\"");
    out.append(escaped(in.heap(), value).text());
    out.append('"');
  }
  return in.heap().string(std::move(out), in.autoescapes());
}

// --- data as text ------------------------------------------------------------

Value filter_tojson(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p(
      "tojson",
      arguments,
      {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = p.boolean(0, false);
  style.sort_keys = p.boolean(3, false);
  Text unit = in.heap().text(); // keeps the indent counted
  if (p[1].is_string()) {
    unit.append(p[1].text());
  } else if (!p[1].is_none()) {
    const std::int64_t n = std::max<std::int64_t>(p.integer(1, 0), 0);
    unit.append_times(" ", static_cast<std::size_t>(n));
  }
  if (!p[1].is_none()) {
    style.indent = unit.str();
    style.item_separator.pop_back(); // no spaces at the ends of lines
  }
  if (!p[2].is_none()) {
    const Items pair = iterate(in.heap(), p[2]);
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      fail(ErrorKind::InvalidInput, "tojson: expected two separators");
    }
    style.item_separator = pair[0].text();
    style.key_separator = pair[1].text();
  }
  Text out = in.heap().text();
  write_json(out, self, style);
  return in.heap().string(std::move(out));
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
  return read_json(in.heap(), self.text());
}

Value filter_pprint(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("pprint", arguments, {});
  Text out = in.heap().text();
  write_pretty(out, self);
  return in.heap().string(std::move(out));
}

Value filter_attr(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("attr", arguments, {"name"}, 1);
  const std::string name(p.text(0, ""));
  if (self.is(Type::Dict) && find_method(in.heap(), self, name).is_none()) {
    return in.heap().undefined("'dict' object has no attribute " + quote(name));
  }
  return get_attribute(in.heap(), self, name);
}

constexpr Builtin kFilters[] = {
    {"attr", filter_attr, Reads::Nothing},
    {"capitalize", filter_method<kCapitalize>},
    {"center", filter_center},
    {"d", filter_default, Reads::Nothing},
    {"default", filter_default, Reads::Nothing},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"forceescape", filter_forceescape},
    {"format", filter_format},
    {"from_json", filter_from_json},
    {"indent", filter_indent},
    {"lower", filter_method<kLower>},
    {"pprint", filter_pprint},
    {"replace", filter_replace},
    {"safe", filter_safe},
    {"string", filter_string},
    {"title", filter_title},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"truncate", filter_truncate},
    {"upper", filter_method<kUpper>},
    {"urlencode", filter_urlencode},
    {"wordcount", filter_wordcount},
    {"wordwrap", filter_wordwrap},
    {"xmlattr", filter_xmlattr},
};

} // namespace

std::span<const Builtin> text_filters() {
  return kFilters;
}

} // namespace optiq::text::jinja
