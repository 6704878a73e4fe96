// str.format, by the rules of Python's string.Formatter, which jinja2's sandbox
// uses.
#include <unordered_map>

#include "optiq/base/error.h"
#include "optiq/text/jinja/builtins_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

bool is_align(char c) {
  return c == '<' || c == '>' || c == '=' || c == '^';
}

bool is_among(char c, std::string_view choices) {
  return choices.find(c) != std::string_view::npos;
}

FormatSpec parse_spec(std::string_view text, bool is_number) {
  FormatSpec spec;
  std::size_t at = 0;
  bool has_fill = false;
  const std::size_t next = code_point_at(text, 0).next;
  if (next < text.size() && is_align(text[next])) {
    spec.fill = std::string(text.substr(0, next));
    spec.align = text[next];
    at = next + 1;
    has_fill = true;
  } else if (is_align(text[0])) {
    spec.align = text[0];
    at = 1;
  }
  const auto take = [&](std::string_view choices) {
    const bool found = at < text.size() && is_among(text[at], choices);
    return found ? text[at++] : '\0';
  };
  const char sign = take("+- ");
  spec.sign = sign != '\0' ? sign : spec.sign;
  spec.no_negative_zero = take("z") != '\0';
  spec.alternate = take("#") != '\0';
  if (!has_fill && take("0") != '\0') {
    spec.fill = "0";
    spec.align = spec.align == '\0' && is_number ? '=' : spec.align;
  }
  spec.width = read_number(text, at);
  spec.grouping = take(",_");
  if (take(".") != '\0') {
    const std::size_t before = at;
    spec.precision = read_number(text, at);
    if (at == before) {
      bad_format("found no precision after '.'");
    }
  }
  if (at + 1 == text.size()) {
    spec.type = text[at++];
  }
  if (at != text.size()) {
    bad_format("found specifier " + quote(text) + ", expected Python's form");
  }
  const bool is_text = !is_number && (sign != '\0' || spec.alternate);
  if (is_text || (!is_number && (spec.align == '=' || spec.no_negative_zero))) {
    bad_format("found specifier " + quote(text) + " for text");
  }
  return spec;
}

[[noreturn]] void wrong_spec(const Value& value, std::string_view spec) {
  bad_format(
      "found specifier " + quote(spec) + " for a " + type_name(value) +
      ", which does not take it");
}

// format(value, spec) of Python, for a spec that is not empty.
class ValueFormatter {
 public:
  ValueFormatter(const Heap& heap, Text& out, std::string_view text)
      : heap_(heap), out_(out), text_(text) {}

  void format(const Value& value) {
    if (value.is_string()) {
      format_text(value);
    } else if (value.is_number()) {
      format_number(value);
    } else {
      wrong_spec(value, text_);
    }
  }

 private:
  void format_text(const Value& value) {
    const FormatSpec spec = parse_spec(text_, false);
    if (spec.grouping != '\0' || (spec.type != '\0' && spec.type != 's')) {
      wrong_spec(value, text_);
    }
    const Value shown = spec.precision < 0
        ? value
        : slice(heap_, value, Value(), Value(spec.precision), Value());
    write_padded(out_, spec, "", shown.text(), '<');
  }

  void format_number(const Value& value) {
    FormatSpec spec = parse_spec(text_, true);
    const std::string_view float_types = "eEfFgG%n";
    const bool has_type = spec.type != '\0';
    const bool grouping_fits = !has_type || is_among(spec.type, "deEfFgG%") ||
        (spec.grouping == '_' && is_among(spec.type, "boxX"));
    if (spec.grouping != '\0' && !grouping_fits) {
      wrong_spec(value, text_);
    }
    const bool is_integer =
        value.is_integral() && (!has_type || is_among(spec.type, "bcdoxXn"));
    if (!is_integer) {
      if (has_type && !is_among(spec.type, float_types)) {
        wrong_spec(value, text_);
      }
      spec.align = spec.align == '\0' ? '>' : spec.align;
      write_float(out_, spec, value.real());
      return;
    }
    if (spec.precision >= 0 || spec.no_negative_zero) {
      wrong_spec(value, text_);
    }
    if (spec.type == 'c') {
      format_character(spec, value);
      return;
    }
    spec.type = spec.type == 'n' || spec.type == '\0' ? 'd' : spec.type;
    write_integer(out_, spec, value);
  }

  void format_character(const FormatSpec& spec, const Value& value) {
    if (spec.sign != '\0' || spec.alternate || !value.is_small() ||
        value.integer() < 0 || value.integer() > 0x10FFFF) {
      wrong_spec(value, text_);
    }
    Text character(nullptr);
    append_utf8(character, static_cast<std::int32_t>(value.integer()));
    write_padded(out_, spec, "", character.str(), '>');
  }

  const Heap& heap_;
  Text& out_;
  std::string_view text_;
};

/** The parts of {name!conversion:spec}. */
struct Field {
  std::string_view name;
  char conversion = '\0';
  std::string_view spec;
};

class BraceFormatter {
 public:
  BraceFormatter(const Heap& heap, const Arguments& arguments, bool escapes)
      : heap_(heap), arguments_(arguments), escapes_(escapes) {
    for (const auto& [name, value] : arguments.keywords) {
      keywords_.emplace(name, &value);
    }
  }

  void format(Text& out, std::string_view text, int nesting) {
    if (nesting > 2) {
      bad_format("found fields nested more than two deep");
    }
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t brace =
          std::min(text.find_first_of("{}", at), text.size());
      out.append(text.substr(at, brace - at));
      at = brace;
      if (at == text.size()) {
        return;
      }
      if (at + 1 < text.size() && text[at + 1] == text[at]) {
        out.append(text[at]);
        at += 2;
        continue;
      }
      if (text[at] == '}' || at + 1 == text.size()) {
        bad_format("found a single '{' or '}'");
      }
      ++at;
      write_field(out, parse_field(text, at), nesting);
    }
  }

 private:
  // The field whose text begins at `at`, which moves past its end.
  static Field parse_field(std::string_view text, std::size_t& at) {
    Field field;
    const std::size_t begin = at;
    bool in_brackets = false;
    for (; at < text.size(); ++at) {
      const char c = text[at];
      if (c == '{') {
        bad_format("found a '{' in the name of a field");
      }
      in_brackets = c == '[' || (in_brackets && c != ']');
      if (!in_brackets && (c == '}' || c == ':' || c == '!')) {
        break;
      }
    }
    if (at == text.size()) {
      bad_format("found a '{' without its '}'");
    }
    field.name = text.substr(begin, at - begin);
    if (text[at] == '!') {
      if (at + 2 >= text.size() ||
          (text[at + 2] != '}' && text[at + 2] != ':')) {
        bad_format("found no ':' or '}' after a conversion");
      }
      field.conversion = text[at + 1];
      at += 2;
    }
    if (text[at++] == '}') {
      return field;
    }
    const std::size_t spec = at;
    for (int open = 1; at < text.size(); ++at) {
      open += text[at] == '{' ? 1 : text[at] == '}' ? -1 : 0;
      if (open == 0) {
        field.spec = text.substr(spec, at - spec);
        ++at;
        return field;
      }
    }
    bad_format("found a '{' without its '}' in a specifier");
  }

  void write_field(Text& out, const Field& field, int nesting) {
    meter(heap_.budget());
    Value value = lookup(field.name);
    if (field.conversion != '\0') {
      value = converted(value, field.conversion);
    }
    Text spec(heap_.budget());
    format(spec, field.spec, nesting + 1);
    if (escapes_) {
      write_escaped_value(out, value, spec.str());
    } else if (spec.size() == 0) {
      write_text(out, value);
    } else {
      ValueFormatter(heap_, out, spec.str()).format(value);
    }
  }

  // Into markup.
  void
  write_escaped_value(Text& out, const Value& value, const std::string& spec) {
    if (value.is_markup()) {
      if (!spec.empty()) {
        bad_format("found a specifier for markup, expected none");
      }
      out.append(value.text());
      return;
    }
    Text plain(heap_.budget());
    if (spec.empty()) {
      write_text(plain, value);
    } else {
      ValueFormatter(heap_, plain, spec).format(value);
    }
    write_escaped(out, plain.str());
  }

  Value converted(const Value& value, char conversion) const {
    Text shown(heap_.budget());
    if (conversion == 's') {
      write_text(shown, value);
    } else if (conversion == 'a' && value.is_string() && !value.is_markup()) {
      write_quoted(shown, value.text(), true);
    } else if (conversion == 'r' || conversion == 'a') {
      write_repr(shown, value);
    } else {
      bad_format("found a conversion other than !r, !s or !a");
    }
    return heap_.string(
        std::move(shown), conversion == 's' && value.is_markup());
  }

  // name, or 0, or nothing; then .attribute or [key] as often as liked.
  Value lookup(std::string_view name) {
    const std::size_t end = std::min(name.find_first_of(".["), name.size());
    Value value = first(name, end);
    for (std::string_view rest = name.substr(end); !rest.empty();) {
      const bool is_attribute = rest[0] == '.';
      const std::size_t stop = is_attribute
          ? std::min(rest.find_first_of(".[", 1), rest.size())
          : rest.find(']');
      const bool is_bad = stop == std::string_view::npos || stop == 1 ||
          (!is_attribute && stop + 1 < rest.size() && rest[stop + 1] != '.' &&
           rest[stop + 1] != '[');
      if (is_bad) {
        bad_format("found field " + quote(name) + ", expected a name in it");
      }
      const std::string part(rest.substr(1, stop - 1));
      const auto index = parse_index(part);
      value = is_attribute ? get_attribute(heap_, value, part)
          : index          ? get_item(heap_, value, Value(*index))
                           : get_item(heap_, value, heap_.string(part));
      rest = rest.substr(is_attribute ? stop : stop + 1);
    }
    return value;
  }

  static std::optional<std::int64_t> parse_index(std::string_view text) {
    if (text.empty() ||
        text.find_first_not_of("0123456789") != std::string_view::npos) {
      return std::nullopt;
    }
    std::size_t at = 0;
    return read_number(text, at);
  }

  // Of `name`, up to `end`. Only whole names count as numbered or not.
  Value first(std::string_view name, std::size_t end) {
    std::optional<std::int64_t> index = parse_index(name.substr(0, end));
    if (name.empty()) {
      if (next_ < 0) {
        bad_format("found numbered and unnumbered fields together");
      }
      index = next_++;
    } else if (index && end == name.size()) {
      if (next_ > 0) {
        bad_format("found numbered and unnumbered fields together");
      }
      next_ = -1;
    }
    if (index) {
      const Items& all = arguments_.positional;
      if (*index >= static_cast<std::int64_t>(all.size())) {
        bad_format(fmt::format("found no argument {}", *index));
      }
      return all[static_cast<std::size_t>(*index)];
    }
    const auto at = keywords_.find(name.substr(0, end));
    if (at == keywords_.end()) {
      bad_format("found no argument named " + quote(name.substr(0, end)));
    }
    return *at->second;
  }

  const Heap& heap_;
  const Arguments& arguments_;
  bool escapes_;
  std::unordered_map<std::string_view, const Value*> keywords_;
  std::int64_t next_ = 0; // < 0: fields are numbered
};

} // namespace

Value brace_format(
    const Heap& heap,
    const String& format,
    const Arguments& arguments) {
  meter(heap.budget(), format.text.size());
  Text out = heap.text();
  BraceFormatter(heap, arguments, format.is_markup).format(out, format.text, 0);
  return heap.string(std::move(out), format.is_markup);
}

} // namespace optiq::text::jinja
