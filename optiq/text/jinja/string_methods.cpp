// Methods of str, as Python has them, and of Markup.
#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

const std::string& text_argument(const char* method, const Value& value) {
  if (!value.is_string()) {
    fail(
        ErrorKind::InvalidInput,
        "{}: found a {}, expected a string",
        method,
        type_name(value));
  }
  return value.text();
}

// Text that goes into the text of `self`: escaped, when that is markup.
Value inserted(const Heap& heap, const Value& self, const Value& text) {
  return self.is_markup() ? escaped(heap, text) : text;
}

// --- white space and case ----------------------------------------------------

template <Side side>
Value str_strip(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("strip", arguments, {"/chars"});
  std::string_view chars;
  if (!p[0].is_none()) {
    chars = text_argument("strip", p[0]);
    in.budget().require(8 * chars.size()); // the set that is made of them
  }
  return in.heap().string(
      strip(self.text(), side, p[0].is_none() ? nullptr : &chars),
      self.is_markup());
}

template <void (*write)(Text&, std::string_view)>
Value str_change(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("method", arguments, {});
  Text out = in.heap().text();
  write(out, self.text());
  return in.heap().string(std::move(out), self.is_markup());
}

Value str_expandtabs(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("expandtabs", arguments, {"tabsize"});
  const std::int64_t size = p.integer(0, 8);
  if (size > INT32_MAX || size < INT32_MIN) {
    fail(ErrorKind::InvalidInput, "expandtabs: found a size of {}", size);
  }
  Text out = in.heap().text();
  write_expanded_tabs(out, self.text(), size);
  return in.heap().string(std::move(out), self.is_markup());
}

enum class Pad { Left, Right, Both };

template <Pad pad>
Value str_pad(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("ljust", arguments, {"/width", "/fillchar"}, 1);
  const Value fill =
      inserted(in.heap(), self, p.has(1) ? p[1] : in.heap().string(" "));
  if (!fill.is_string() || fill.string().length != 1) {
    fail(
        ErrorKind::InvalidInput,
        "found a {} to fill with, expected one character",
        type_name(fill));
  }
  const std::int64_t width = p.integer(0, 0);
  const auto length = static_cast<std::int64_t>(self.string().length);
  if (width <= length) {
    return self;
  }
  const std::int64_t n = width - length;
  // CPython puts the odd space of `center` left when the width is odd too.
  const std::int64_t left = pad == Pad::Right ? 0
      : pad == Pad::Left                      ? n
                                              : n / 2 + (n & width & 1);
  Text out = in.heap().text();
  out.append_times(fill.text(), static_cast<std::size_t>(left));
  out.append(self.text());
  out.append_times(fill.text(), static_cast<std::size_t>(n - left));
  return in.heap().string(std::move(out), self.is_markup());
}

Value str_zfill(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("zfill", arguments, {"/width"}, 1);
  const std::int64_t width = p.integer(0, 0);
  const auto length = static_cast<std::int64_t>(self.string().length);
  if (width <= length) {
    return self;
  }
  const std::string_view text = self.text();
  const bool is_signed = text.starts_with('-') || text.starts_with('+');
  const std::size_t sign = is_signed ? 1 : 0;
  Text out = in.heap().text();
  out.append(text.substr(0, sign));
  out.append_times("0", static_cast<std::size_t>(width - length));
  out.append(text.substr(sign));
  return in.heap().string(std::move(out), self.is_markup());
}

// --- parts -------------------------------------------------------------------

template <bool from_right>
Value str_split(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("split", arguments, {"sep", "maxsplit"});
  const std::int64_t most = std::max<std::int64_t>(p.integer(1, -1), -1);
  Items parts = in.heap().items();
  const OnPart add = [&](std::string_view part) {
    parts.push(in.heap().string(part, self.is_markup()));
  };
  if (p[0].is_none()) {
    split_space(self.text(), most, from_right, add);
  } else {
    const std::string& separator = text_argument("split", p[0]);
    if (separator.empty()) {
      fail(ErrorKind::InvalidInput, "split: found an empty separator");
    }
    in.budget().require(4 * separator.size()); // what Finder takes
    split(self.text(), separator, most, from_right, add);
  }
  if (from_right) {
    parts.reverse();
  }
  return in.heap().list(std::move(parts));
}

template <bool from_right>
Value str_partition(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("partition", arguments, {"/sep"}, 1);
  const std::string& separator = text_argument("partition", p[0]);
  if (separator.empty()) {
    fail(ErrorKind::InvalidInput, "partition: found an empty separator");
  }
  in.budget().require(4 * separator.size()); // what Finder takes
  const std::string_view text = self.text();
  const std::size_t at = Finder(separator, from_right).find(text);
  std::string_view parts[3];
  if (at == std::string_view::npos) {
    parts[from_right ? 2 : 0] = text;
  } else {
    parts[0] = text.substr(0, at);
    parts[1] = separator;
    parts[2] = text.substr(at + separator.size());
  }
  Items items = in.heap().items();
  for (const std::string_view part : parts) {
    items.push(in.heap().string(part, self.is_markup()));
  }
  return in.heap().tuple(std::move(items));
}

Value str_splitlines(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("splitlines", arguments, {"keepends"});
  Items lines = in.heap().items();
  split_lines(self.text(), p.flag(0, false), [&](std::string_view line) {
    lines.push(in.heap().string(line, self.is_markup()));
  });
  return in.heap().list(std::move(lines));
}

Value str_join(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("join", arguments, {"/iterable"}, 1);
  Text out = in.heap().text();
  bool is_first = true;
  for (const Value& item : iterate(in.heap(), p[0])) {
    if (!is_first) {
      out.append(self.text());
    }
    is_first = false;
    const Value part = inserted(in.heap(), self, item);
    out.append(text_argument("join", part));
  }
  return in.heap().string(std::move(out), self.is_markup());
}

Value str_replace(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("replace", arguments, {"/old", "/new", "/count"}, 2);
  const std::string& from = text_argument("replace", p[0]);
  text_argument("replace", p[1]);
  const Value to = inserted(in.heap(), self, p[1]);
  in.budget().require(4 * from.size()); // what Finder takes
  Text out = in.heap().text();
  write_replaced(
      out,
      self.text(),
      from,
      to.text(),
      std::max<std::int64_t>(p.integer(2, -1), -1));
  return in.heap().string(std::move(out), self.is_markup());
}

template <bool at_end>
Value str_remove(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("removeprefix", arguments, {"/affix"}, 1);
  const std::string& affix = text_argument("removeprefix", p[0]);
  std::string_view text = self.text();
  if (at_end ? text.ends_with(affix) : text.starts_with(affix)) {
    text = at_end ? text.substr(0, text.size() - affix.size())
                  : text.substr(affix.size());
  }
  return in.heap().string(text, self.is_markup());
}

// --- search ------------------------------------------------------------------

struct Window {
  std::string_view text; // of code points start to end
  std::int64_t start; // code points before it
  bool is_valid; // start lies in the string
};

// text[start:end] of find, startswith and their kin.
Window window(const Value& self, const Parameters& p) {
  const String& s = self.string();
  const auto n = static_cast<std::int64_t>(s.length);
  const auto clamp = [n](std::int64_t i) {
    return std::max<std::int64_t>(i < 0 ? i + n : i, 0);
  };
  const std::int64_t start = clamp(p.bound(1, 0));
  const std::int64_t end = std::min(clamp(p.bound(2, n)), n);
  if (start > end) {
    return {"", start, false};
  }
  const bool is_ascii = s.length == s.text.size();
  const auto offset = [is_ascii](std::string_view text, std::int64_t index) {
    const auto i = static_cast<std::size_t>(index);
    return is_ascii ? i : offset_of(text, i);
  };
  const auto rest = std::string_view(s.text).substr(offset(s.text, start));
  return {rest.substr(0, offset(rest, end - start)), start, true};
}

template <bool at_end>
Value str_affix(Interpreter& in, const Value& self, Arguments& arguments) {
  const char* name = at_end ? "endswith" : "startswith";
  const Parameters p(name, arguments, {"/affix", "/start", "/end"}, 1);
  const Window part = window(self, p);
  const auto fits = [&](const Value& affix) {
    const std::string& text = text_argument(name, affix);
    in.budget().touch(text.size());
    return part.is_valid &&
        (at_end ? part.text.ends_with(text) : part.text.starts_with(text));
  };
  if (p[0].is(SequenceKind::Tuple)) {
    const Items& all = p[0].items();
    return Value(std::any_of(all.begin(), all.end(), fits));
  }
  return Value(fits(p[0]));
}

template <bool from_right, bool must_find>
Value str_find(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("find", arguments, {"/sub", "/start", "/end"}, 1);
  const std::string& what = text_argument("find", p[0]);
  in.budget().require(4 * what.size()); // what Finder takes
  const Window part = window(self, p);
  const std::size_t at = !part.is_valid ? std::string_view::npos
      : what.empty()                    ? (from_right ? part.text.size() : 0)
                     : Finder(what, from_right).find(part.text);
  if (at != std::string_view::npos) {
    const std::size_t before = count_code_points(part.text.substr(0, at));
    return Value(part.start + static_cast<std::int64_t>(before));
  }
  if (must_find) {
    fail(ErrorKind::InvalidInput, "index: substring not found");
  }
  return Value(std::int64_t{-1});
}

Value str_count(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("count", arguments, {"/sub", "/start", "/end"}, 1);
  const std::string& what = text_argument("count", p[0]);
  in.budget().require(4 * what.size()); // what Finder takes
  const Window part = window(self, p);
  std::int64_t n = 0;
  if (part.is_valid && what.empty()) {
    n = static_cast<std::int64_t>(count_code_points(part.text)) + 1;
  } else if (part.is_valid) {
    n = -1;
    split(part.text, what, -1, false, [&n](std::string_view) { ++n; });
  }
  return Value(n);
}

// --- the rest ----------------------------------------------------------------

template <CharClass kind>
Value str_is(Interpreter&, const Value& self, Arguments& arguments) {
  const Parameters p("method", arguments, {});
  return Value(all_are(self.text(), kind));
}

Value str_format(Interpreter& in, const Value& self, Arguments& arguments) {
  return brace_format(in.heap(), self.string(), arguments);
}

Value str_format_map(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("format_map", arguments, {"/mapping"}, 1);
  Arguments named(&in.budget());
  if (p[0].is(Type::Dict)) { // of others, no field has a value
    for (const auto& [key, value] : p[0].dict().items()) {
      if (key.is_string()) {
        named.add_keyword(key.text(), value);
      }
    }
  }
  return brace_format(in.heap(), self.string(), named);
}

// {code point: text, code point or None}; what it does not have stays.
Value str_translate(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("translate", arguments, {"/table"}, 1);
  const bool is_table = is_iterable(p[0]) && !p[0].is_undefined();
  if (!is_table && !self.text().empty()) {
    fail(
        ErrorKind::InvalidInput,
        "translate: found a {}, expected a dict",
        type_name(p[0]));
  }
  Text out = in.heap().text();
  const std::string& text = self.text();
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    in.budget().work();
    const Value to = get_item(in.heap(), p[0], Value(std::int64_t{c.value}));
    if (to.is_undefined()) {
      out.append(std::string_view(text).substr(at, c.next - at));
    } else if (to.is_string()) {
      out.append(to.text());
    } else if (to.is_small() && to.integer() >= 0 && to.integer() < 0x110000) {
      append_utf8(out, static_cast<std::int32_t>(to.integer()));
    } else if (!to.is_none()) {
      fail(
          ErrorKind::InvalidInput,
          "translate: found a {}, expected a character",
          type_name(to));
    }
    at = c.next;
  }
  return in.heap().string(std::move(out), self.is_markup());
}

// str.maketrans with two texts of one length, and a third of what to drop.
Value str_maketrans(Interpreter& in, const Value&, Arguments& arguments) {
  const Parameters p("maketrans", arguments, {"/x", "/y", "/z"}, 1);
  auto table = in.heap().dict();
  const auto code = [&](const Value& character) {
    return Value(std::int64_t{code_point_at(character.text(), 0).value});
  };
  if (!p.has(1)) {
    if (!p[0].is(Type::Dict)) {
      fail(ErrorKind::InvalidInput, "maketrans: expected a dict");
    }
    for (const auto& [key, value] : p[0].dict().items()) {
      const bool is_character = key.is_string() && key.string().length == 1;
      if (!is_character && !key.is_integral()) {
        fail(ErrorKind::InvalidInput, "maketrans: expected characters as keys");
      }
      table->set(is_character ? code(key) : key, value);
    }
    return Value(std::move(table));
  }
  text_argument("maketrans", p[0]);
  text_argument("maketrans", p[1]);
  const Items from = iterate(in.heap(), p[0]);
  const Items to = iterate(in.heap(), p[1]);
  if (from.size() != to.size()) {
    fail(ErrorKind::InvalidInput, "maketrans: expected texts of one length");
  }
  for (std::size_t i = 0; i < from.size(); ++i) {
    table->set(code(from[i]), code(to[i]));
  }
  if (p.has(2)) {
    text_argument("maketrans", p[2]);
    for (const Value& dropped : iterate(in.heap(), p[2])) {
      table->set(code(dropped), Value());
    }
  }
  return Value(std::move(table));
}

constexpr Builtin kStringMethods[] = {
    {"capitalize", str_change<write_capitalized>},
    {"casefold", str_change<write_casefolded>},
    {"center", str_pad<Pad::Both>},
    {"count", str_count},
    {"endswith", str_affix<true>},
    {"expandtabs", str_expandtabs},
    {"find", str_find<false, false>},
    {"format", str_format},
    {"format_map", str_format_map},
    {"index", str_find<false, true>},
    {"isalnum", str_is<CharClass::AlphaNumeric>},
    {"isalpha", str_is<CharClass::Alpha>},
    {"isascii", str_is<CharClass::Ascii>},
    {"isdecimal", str_is<CharClass::Decimal>},
    {"isdigit", str_is<CharClass::Digit>},
    {"isidentifier", str_is<CharClass::Identifier>},
    {"islower", str_is<CharClass::Lower>},
    {"isnumeric", str_is<CharClass::Numeric>},
    {"isprintable", str_is<CharClass::Printable>},
    {"isspace", str_is<CharClass::Space>},
    {"istitle", str_is<CharClass::Title>},
    {"isupper", str_is<CharClass::Upper>},
    {"join", str_join},
    {"ljust", str_pad<Pad::Right>},
    {"lower", str_change<write_lower>},
    {"lstrip", str_strip<Side::Left>},
    {"maketrans", str_maketrans},
    {"partition", str_partition<false>},
    {"removeprefix", str_remove<false>},
    {"removesuffix", str_remove<true>},
    {"replace", str_replace},
    {"rfind", str_find<true, false>},
    {"rindex", str_find<true, true>},
    {"rjust", str_pad<Pad::Left>},
    {"rpartition", str_partition<true>},
    {"rsplit", str_split<true>},
    {"rstrip", str_strip<Side::Right>},
    {"split", str_split<false>},
    {"splitlines", str_splitlines},
    {"startswith", str_affix<false>},
    {"strip", str_strip<Side::Both>},
    {"swapcase", str_change<write_swapped>},
    {"title", str_change<write_title>},
    {"translate", str_translate},
    {"upper", str_change<write_upper>},
    {"zfill", str_zfill},
};

} // namespace

const BuiltinTable& string_methods() {
  static const BuiltinTable table({kStringMethods});
  return table;
}

} // namespace optiq::text::jinja
