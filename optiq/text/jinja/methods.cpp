// Methods of str, list, tuple, dict and loop, as Python has them.
#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

struct Method {
  std::string_view name;
  Native native;
};

template <std::size_t N>
Native find_in(const Method (&methods)[N], std::string_view name) {
  for (const Method& method : methods) {
    if (method.name == name) {
      return method.native;
    }
  }
  return nullptr;
}

template <std::size_t N>
bool is_among(const std::string_view (&names)[N], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

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

Value text_list(Interpreter& in, const std::vector<std::string_view>& parts) {
  std::vector<Value> items;
  items.reserve(parts.size());
  for (const std::string_view part : parts) {
    items.push_back(in.heap().string(std::string(part)));
  }
  return in.heap().list(std::move(items));
}

// --- str: white space and case -----------------------------------------------

template <Side side>
Value str_strip(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("strip", arguments, {"chars"});
  std::string_view chars;
  if (!p[0].is_none()) {
    chars = text_argument("strip", p[0]);
    in.budget().work(self.text().size() * (1 + chars.size()));
  }
  return in.heap().string(
      std::string(strip(self.text(), side, p[0].is_none() ? nullptr : &chars)),
      self.string().is_markup);
}

template <std::string (*change)(std::string_view)>
Value str_change(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("method", arguments, {});
  return in.heap().string(change(self.text()), self.string().is_markup);
}

Value str_title(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("title", arguments, {});
  return in.heap().string(to_title(self.text(), true));
}

enum class Pad { Left, Right, Both };

template <Pad pad>
Value str_pad(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("ljust", arguments, {"width", "fillchar"}, 1);
  const std::string fill = p.text(1, " ");
  const auto length = static_cast<std::int64_t>(self.string().length);
  const std::int64_t n = std::max<std::int64_t>(p.integer(0, 0) - length, 0);
  const std::int64_t width = n + length;
  // CPython puts the odd space of `center` left when the width is odd too.
  const std::int64_t left = pad == Pad::Right ? 0
      : pad == Pad::Left                      ? n
                                              : n / 2 + (n & width & 1);
  const auto run = [&](std::int64_t count) {
    return binary(
        in.heap(), Operator::Multiply, in.heap().string(fill), Value(count));
  };
  return in.heap().string(
      run(left).text() + self.text() + run(n - left).text());
}

Value str_zfill(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("zfill", arguments, {"width"}, 1);
  const std::int64_t n =
      p.integer(0, 0) - static_cast<std::int64_t>(self.string().length);
  const Value zeros =
      binary(in.heap(), Operator::Multiply, in.heap().string("0"), Value(n));
  const std::string& text = self.text();
  const bool is_signed = text.starts_with('-') || text.starts_with('+');
  const std::size_t sign = is_signed ? 1 : 0;
  return in.heap().string(
      text.substr(0, sign) + zeros.text() + text.substr(sign));
}

// --- str: parts --------------------------------------------------------------

template <bool from_right>
Value str_split(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("split", arguments, {"sep", "maxsplit"});
  const std::int64_t most = p.integer(1, -1);
  in.budget().work(self.text().size());
  if (p[0].is_none()) {
    return text_list(in, split_space(self.text(), most, from_right));
  }
  const std::string& separator = text_argument("split", p[0]);
  if (separator.empty()) {
    fail(ErrorKind::InvalidInput, "split: found an empty separator");
  }
  return text_list(in, split(self.text(), separator, most, from_right));
}

template <bool from_right>
Value str_partition(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("partition", arguments, {"sep"}, 1);
  const std::string& separator = text_argument("partition", p[0]);
  if (separator.empty()) {
    fail(ErrorKind::InvalidInput, "partition: found an empty separator");
  }
  const std::string& text = self.text();
  const std::size_t at =
      from_right ? text.rfind(separator) : text.find(separator);
  std::string parts[3];
  if (at == std::string::npos) {
    parts[from_right ? 2 : 0] = text;
  } else {
    parts[0] = text.substr(0, at);
    parts[1] = separator;
    parts[2] = text.substr(at + separator.size());
  }
  std::vector<Value> items;
  for (std::string& part : parts) {
    items.push_back(in.heap().string(std::move(part)));
  }
  return in.heap().tuple(std::move(items));
}

Value str_splitlines(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("splitlines", arguments, {"keepends"});
  return text_list(in, split_lines(self.text(), p.boolean(0, false)));
}

Value str_join(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("join", arguments, {"iterable"}, 1);
  std::string out;
  bool is_first = true;
  for (const Value& item : iterate(in.heap(), p[0])) {
    if (!is_first) {
      write_text(&in.budget(), out, self);
    }
    is_first = false;
    text_argument("join", item);
    write_text(&in.budget(), out, item);
  }
  return in.heap().string(std::move(out));
}

Value str_replace(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("replace", arguments, {"old", "new", "count"}, 2);
  const std::string& from = text_argument("replace", p[0]);
  const std::string& to = text_argument("replace", p[1]);
  const std::int64_t most = p.integer(2, -1);
  in.budget().require(replaced_size(self.text(), from, to, most));
  return in.heap().string(replace(self.text(), from, to, most));
}

template <bool at_end>
Value str_remove(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("removeprefix", arguments, {"affix"}, 1);
  const std::string& affix = text_argument("removeprefix", p[0]);
  const std::string& text = self.text();
  if (at_end) {
    return text.ends_with(affix)
        ? in.heap().string(text.substr(0, text.size() - affix.size()))
        : self;
  }
  return text.starts_with(affix) ? in.heap().string(text.substr(affix.size()))
                                 : self;
}

// --- str: search -------------------------------------------------------------

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
  const std::int64_t start = clamp(p.integer(1, 0));
  const std::int64_t end = std::min(clamp(p.integer(2, n)), n);
  if (start > end) {
    return {"", start, false};
  }
  if (s.length == s.text.size()) {
    return {
        std::string_view(s.text).substr(
            static_cast<std::size_t>(start),
            static_cast<std::size_t>(end - start)),
        start,
        true};
  }
  const auto offsets = code_point_offsets(s.text);
  const std::size_t begin = offsets[static_cast<std::size_t>(start)];
  return {
      std::string_view(s.text).substr(
          begin, offsets[static_cast<std::size_t>(end)] - begin),
      start,
      true};
}

template <bool at_end>
Value str_affix(Interpreter& in, const Value& self, Arguments& arguments) {
  const char* name = at_end ? "endswith" : "startswith";
  const Parameters p(name, arguments, {"affix", "start", "end"}, 1);
  const Window part = window(self, p);
  const auto fits = [&](const Value& affix) {
    const std::string& text = text_argument(name, affix);
    return part.is_valid &&
        (at_end ? part.text.ends_with(text) : part.text.starts_with(text));
  };
  if (p[0].is(SequenceKind::Tuple)) {
    const auto& all = p[0].sequence().items;
    in.budget().work(all.size());
    return Value(std::any_of(all.begin(), all.end(), fits));
  }
  return Value(fits(p[0]));
}

template <bool from_right, bool must_find>
Value str_find(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("find", arguments, {"sub", "start", "end"}, 1);
  const std::string& what = text_argument("find", p[0]);
  in.budget().work(self.text().size());
  const Window part = window(self, p);
  const std::size_t at = !part.is_valid ? std::string_view::npos
      : from_right                      ? part.text.rfind(what)
                                        : part.text.find(what);
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
  const Parameters p("count", arguments, {"sub", "start", "end"}, 1);
  const std::string& what = text_argument("count", p[0]);
  in.budget().work(self.text().size());
  const Window part = window(self, p);
  if (!part.is_valid) {
    return Value(std::int64_t{0});
  }
  if (what.empty()) {
    return Value(static_cast<std::int64_t>(count_code_points(part.text)) + 1);
  }
  return Value(
      static_cast<std::int64_t>(split(part.text, what, -1, false).size()) - 1);
}

// --- str: classes ------------------------------------------------------------

template <CharClass kind>
Value str_is(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("method", arguments, {});
  in.budget().work(self.text().size());
  return Value(all_are(self.text(), kind));
}

Value str_format(Interpreter& in, const Value& self, Arguments& arguments) {
  return in.heap().string(brace_format(in, self.text(), arguments));
}

constexpr Method kStringMethods[] = {
    {"capitalize", str_change<capitalize>},
    {"center", str_pad<Pad::Both>},
    {"count", str_count},
    {"endswith", str_affix<true>},
    {"find", str_find<false, false>},
    {"format", str_format},
    {"index", str_find<false, true>},
    {"isalnum", str_is<CharClass::AlphaNumeric>},
    {"isalpha", str_is<CharClass::Alpha>},
    {"isdigit", str_is<CharClass::Digit>},
    {"islower", str_is<CharClass::Lower>},
    {"isnumeric", str_is<CharClass::Numeric>},
    {"isspace", str_is<CharClass::Space>},
    {"isupper", str_is<CharClass::Upper>},
    {"join", str_join},
    {"ljust", str_pad<Pad::Right>},
    {"lower", str_change<to_lower>},
    {"lstrip", str_strip<Side::Left>},
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
    {"title", str_title},
    {"upper", str_change<to_upper>},
    {"zfill", str_zfill},
};
constexpr std::string_view kUnsupportedStringMethods[] = {
    "casefold",
    "encode",
    "expandtabs",
    "format_map",
    "isascii",
    "isdecimal",
    "istitle",
    "maketrans",
    "swapcase",
    "translate",
    "isidentifier",
    "isprintable"};

// --- list, tuple, range, dict ------------------------------------------------

Value list_count(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("count", arguments, {"value"}, 1);
  std::int64_t n = 0;
  for (const Value& item : self.sequence().items) {
    n += equal(&in.budget(), item, p[0]) ? 1 : 0;
  }
  return Value(n);
}

Value list_index(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("index", arguments, {"value"}, 1);
  const auto& items = self.sequence().items;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (equal(&in.budget(), items[i], p[0])) {
      return Value(static_cast<std::int64_t>(i));
    }
  }
  fail(ErrorKind::InvalidInput, "index: the value is not in the list");
}

Value copy_self(Interpreter&, const Value& self, Arguments& arguments) {
  const Parameters p("copy", arguments, {});
  return self; // nothing can change either of the two
}

Value dict_get(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("get", arguments, {"key", "default"}, 1);
  const Value* found = self.dict().find(hash_key(&in.budget(), p[0]));
  return found == nullptr ? p[1] : *found;
}

template <SequenceKind kind>
Value dict_view(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("items", arguments, {});
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict().items) {
    items.push_back(
        kind == SequenceKind::Keys         ? key
            : kind == SequenceKind::Values ? value
                                           : in.heap().tuple({key, value}));
  }
  return in.heap().sequence(kind, std::move(items));
}

constexpr Method kListMethods[] = {
    {"count", list_count},
    {"index", list_index},
    {"copy", copy_self},
};
constexpr std::string_view kListChanges[] =
    {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"};
constexpr Method kDictMethods[] = {
    {"get", dict_get},
    {"items", dict_view<SequenceKind::Items>},
    {"keys", dict_view<SequenceKind::Keys>},
    {"values", dict_view<SequenceKind::Values>},
    {"copy", copy_self},
};
constexpr std::string_view kDictChanges[] =
    {"clear", "pop", "popitem", "setdefault", "update"};

// --- loop --------------------------------------------------------------------

Value loop_cycle(Interpreter&, const Value& self, Arguments& arguments) {
  if (arguments.positional.empty()) {
    fail(ErrorKind::InvalidInput, "cycle: no items for cycling given");
  }
  const auto n = static_cast<std::int64_t>(arguments.positional.size());
  return arguments.positional[static_cast<std::size_t>(self.loop().index0 % n)];
}

Value loop_changed(Interpreter& in, const Value& self, Arguments& arguments) {
  Loop& loop = self.loop();
  const auto& now = arguments.positional;
  const bool is_first = loop.changed.empty();
  const bool is_same = !is_first && loop.changed.size() == now.size() + 1 &&
      std::equal(
          now.begin(),
          now.end(),
          loop.changed.begin() + 1,
          [&](const Value& a, const Value& b) {
            return equal(&in.budget(), a, b);
          });
  if (!is_same && loop.scope != nullptr) { // an ended loop keeps nothing
    loop.changed.assign(1, Value()); // says that there was a call
    loop.changed.insert(loop.changed.end(), now.begin(), now.end());
  }
  return Value(!is_same);
}

constexpr Method kLoopMethods[] = {
    {"cycle", loop_cycle},
    {"changed", loop_changed},
};

Value unsafe(Interpreter& in, const Value& object, const std::string& name) {
  return in.heap().undefined(fmt::format(
      "access to attribute '{}' of '{}' object is unsafe: templates cannot "
      "change data. Use + or a namespace",
      name,
      type_name(object)));
}

} // namespace

Value find_method(
    Interpreter& interpreter,
    const Value& object,
    const std::string& name) {
  Native native = nullptr;
  switch (object.type()) {
    case Type::String:
      native = find_in(kStringMethods, name);
      if (native == nullptr && is_among(kUnsupportedStringMethods, name)) {
        fail(
            ErrorKind::Unsupported,
            "found method '{}' of a string, which does not exist here",
            name);
      }
      break;
    case Type::Sequence:
      if (object.is(SequenceKind::List) && is_among(kListChanges, name)) {
        return unsafe(interpreter, object, name);
      }
      if (object.is(SequenceKind::List) || object.is(SequenceKind::Tuple) ||
          object.is(SequenceKind::Range)) {
        native = find_in(kListMethods, name);
      }
      if (name == "copy" && !object.is(SequenceKind::List)) {
        native = nullptr;
      }
      break;
    case Type::Dict:
      if (is_among(kDictChanges, name)) {
        return unsafe(interpreter, object, name);
      }
      native = find_in(kDictMethods, name);
      break;
    case Type::Loop:
      native = find_in(kLoopMethods, name);
      break;
    default:
      break;
  }
  if (native == nullptr) {
    return Value();
  }
  return Value(std::make_shared<const Function>(
      Function{name, native, std::make_shared<const Value>(object)}));
}

} // namespace optiq::text::jinja
