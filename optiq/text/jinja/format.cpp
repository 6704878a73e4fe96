// Python's two ways to format: `%` and str.format, for the types that templates
// have; and strftime.
#include <cmath>
#include <ctime>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

/** [[fill]align][sign][#][0][width][,][.precision][type] */
struct Spec {
  std::string fill = " ";
  char align = '\0'; // one of "<>=^", or 0: by type
  char sign = '-';
  bool alternate = false;
  char grouping = '\0'; // ',' or '_'
  std::int64_t width = 0;
  std::int64_t precision = -1; // < 0: not given
  char type = '\0';
};

// Far above what a prompt needs, far below what would hurt.
constexpr std::int64_t kMaxWidth = 10'000;

[[noreturn]] void bad_format(const std::string& what) {
  fail(ErrorKind::InvalidInput, "format: {}", what);
}

std::int64_t read_number(std::string_view text, std::size_t& at) {
  std::int64_t value = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    value = value * 10 + (text[at++] - '0');
    if (value > kMaxWidth) {
      fail(
          ErrorKind::Exhausted,
          "format: found a width of more than {}",
          kMaxWidth);
    }
  }
  return value;
}

bool is_align(char c) {
  return c == '<' || c == '>' || c == '=' || c == '^';
}

Spec parse_spec(std::string_view text) {
  Spec spec;
  std::size_t at = 0;
  if (!text.empty()) {
    const std::size_t next = code_point_at(text, 0).next;
    if (next < text.size() && is_align(text[next])) {
      spec.fill = std::string(text.substr(0, next));
      spec.align = text[next];
      at = next + 1;
    } else if (is_align(text[0])) {
      spec.align = text[0];
      at = 1;
    }
  }
  const auto take = [&](std::string_view choices) {
    const bool found =
        at < text.size() && choices.find(text[at]) != std::string_view::npos;
    return found ? text[at++] : '\0';
  };
  if (const char sign = take("+- ")) {
    spec.sign = sign;
  }
  spec.alternate = take("#") != '\0';
  if (take("0") != '\0' && spec.align == '\0') {
    spec.fill = "0";
    spec.align = '=';
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
  return spec;
}

std::string group_digits(const std::string& digits, char mark, int every) {
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % static_cast<std::size_t>(every) == 0) {
      out += mark;
    }
    out += digits[i];
  }
  return out;
}

// `sign` and `body` padded to the width; numbers go right by default.
std::string pad(
    const Spec& spec,
    const std::string& sign,
    const std::string& body,
    char default_align) {
  const auto length = static_cast<std::int64_t>(count_code_points(sign + body));
  const std::int64_t n = std::max<std::int64_t>(spec.width - length, 0);
  const char align = spec.align == '\0' ? default_align : spec.align;
  const std::int64_t left = align == '<' ? 0 : align == '^' ? n / 2 : n;
  std::string before;
  std::string after;
  for (std::int64_t i = 0; i < n; ++i) {
    (i < left ? before : after) += spec.fill;
  }
  return align == '=' ? sign + before + body + after
                      : before + sign + body + after;
}

std::string sign_of(const Spec& spec, bool is_negative) {
  return is_negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
}

std::string format_integer(const Spec& spec, std::int64_t value) {
  const auto magnitude = value < 0 ? 0 - static_cast<std::uint64_t>(value)
                                   : static_cast<std::uint64_t>(value);
  std::string digits;
  std::string prefix = sign_of(spec, value < 0);
  switch (spec.type) {
    case 'x':
      digits = fmt::format("{:x}", magnitude);
      break;
    case 'X':
      digits = fmt::format("{:X}", magnitude);
      break;
    case 'o':
      digits = fmt::format("{:o}", magnitude);
      break;
    case 'b':
      digits = fmt::format("{:b}", magnitude);
      break;
    default:
      digits = fmt::format("{}", magnitude);
  }
  if (spec.grouping != '\0') {
    const bool is_decimal = spec.type == 'd' || spec.type == '\0';
    digits = group_digits(digits, spec.grouping, is_decimal ? 3 : 4);
  }
  if (spec.alternate && spec.type != 'd' && spec.type != '\0') {
    prefix += std::string("0") + spec.type;
  }
  return pad(spec, prefix, digits, '>');
}

std::string format_float(const Spec& spec, double value) {
  std::string body;
  const double magnitude = std::abs(value);
  if (spec.type == '\0' && spec.precision < 0) {
    body = repr(magnitude);
  } else {
    const char type = spec.type == '\0' ? 'g'
        : spec.type == '%'              ? 'f'
                                        : spec.type;
    const std::string pattern =
        std::string(spec.alternate ? "%#.*" : "%.*") + type;
    const double shown = spec.type == '%' ? magnitude * 100 : magnitude;
    const int precision =
        spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
    const int size =
        std::snprintf(nullptr, 0, pattern.c_str(), precision, shown);
    body.resize(static_cast<std::size_t>(size) + 1);
    std::snprintf(body.data(), body.size(), pattern.c_str(), precision, shown);
    body.pop_back();
    if (spec.type == '\0' && body.find_first_of(".en") == std::string::npos) {
      body += ".0";
    }
    body += spec.type == '%' ? "%" : "";
  }
  if (spec.grouping != '\0') {
    const std::size_t end =
        std::min(body.find_first_not_of("0123456789"), body.size());
    body =
        group_digits(body.substr(0, end), spec.grouping, 3) + body.substr(end);
  }
  return pad(spec, sign_of(spec, std::signbit(value)), body, '>');
}

bool is_among(char c, std::string_view choices) {
  return c == '\0' || choices.find(c) != std::string_view::npos;
}

std::string
format_value(Budget& budget, const Value& value, std::string_view text) {
  if (text.empty()) {
    return to_text(&budget, value);
  }
  const Spec spec = parse_spec(text);
  const bool is_int_type = spec.type != '\0' && is_among(spec.type, "dxXob");
  const bool is_float_type =
      spec.type != '\0' && is_among(spec.type, "eEfFgG%");
  if (value.is_integral() && !is_float_type &&
      (is_int_type || spec.type == '\0') && spec.precision < 0) {
    return format_integer(spec, value.integer());
  }
  if (value.is_number() && (is_float_type || value.is(Type::Float)) &&
      !is_int_type && is_among(spec.type, "eEfFgG%")) {
    return format_float(spec, value.real());
  }
  if (value.is_string() && is_among(spec.type, "s") && spec.align != '=' &&
      spec.sign == '-' && spec.grouping == '\0') {
    const Heap heap(&budget);
    const Value shown = spec.precision < 0
        ? value
        : slice(heap, value, Value(), Value(spec.precision), Value());
    return pad(spec, "", shown.text(), '<');
  }
  bad_format(
      "found specifier " + quote(text) + " for a " + type_name(value) +
      ", which does not take it");
}

// --- str.format --------------------------------------------------------------

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& interpreter, const Arguments& arguments)
      : interpreter_(interpreter), arguments_(arguments) {}

  std::string format(std::string_view text, int nesting) {
    if (nesting > 2) {
      bad_format("found fields nested more than two deep");
    }
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
      const char c = text[at];
      if (c != '{' && c != '}') {
        out += c;
        ++at;
      } else if (at + 1 < text.size() && text[at + 1] == c) {
        out += c;
        at += 2;
      } else if (c == '}') {
        bad_format("found a single '}'");
      } else {
        const std::size_t end = end_of_field(text, at);
        out += field(text.substr(at + 1, end - at - 1), nesting);
        at = end + 1;
        interpreter_.budget().require(out.size());
      }
    }
    return out;
  }

 private:
  static std::size_t end_of_field(std::string_view text, std::size_t at) {
    int open = 0;
    for (std::size_t i = at; i < text.size(); ++i) {
      open += text[i] == '{' ? 1 : text[i] == '}' ? -1 : 0;
      if (open == 0) {
        return i;
      }
    }
    bad_format("found a '{' without its '}'");
  }

  std::string field(std::string_view text, int nesting) {
    const std::size_t colon = text.find(':');
    std::string_view name = text.substr(0, colon);
    const std::string spec = colon == std::string_view::npos
        ? ""
        : format(text.substr(colon + 1), nesting + 1);
    char conversion = 's';
    const std::size_t mark = name.find('!');
    const bool converts = mark != std::string_view::npos;
    if (converts) {
      const std::string_view after = name.substr(mark + 1);
      if (after != "r" && after != "s") {
        bad_format("found a conversion other than !r or !s");
      }
      conversion = after[0];
      name = name.substr(0, mark);
    }
    Value value = lookup(name);
    if (converts) {
      std::string shown;
      if (conversion == 'r') {
        write_repr(&interpreter_.budget(), shown, value);
      } else {
        write_text(&interpreter_.budget(), shown, value);
      }
      value = interpreter_.heap().string(std::move(shown));
    }
    return format_value(interpreter_.budget(), value, spec);
  }

  // name, or 0, or nothing; then .attribute or [key] as often as liked.
  Value lookup(std::string_view name) {
    const std::size_t end = std::min(name.find_first_of(".["), name.size());
    Value value = first(std::string(name.substr(0, end)));
    for (std::string_view rest = name.substr(end); !rest.empty();) {
      const bool is_attribute = rest[0] == '.';
      const std::size_t stop = is_attribute
          ? std::min(rest.find_first_of(".[", 1), rest.size())
          : rest.find(']');
      if (stop == std::string_view::npos || stop == 1) {
        bad_format("found field " + quote(name) + ", expected a name in it");
      }
      const std::string part(rest.substr(1, stop - 1));
      const auto index = parse_index(part);
      value = is_attribute ? interpreter_.attribute(value, part)
          : index          ? interpreter_.item(value, Value(*index))
                  : interpreter_.item(value, interpreter_.heap().string(part));
      rest = rest.substr(is_attribute ? stop : stop + 1);
    }
    return value;
  }

  static std::optional<std::int64_t> parse_index(const std::string& text) {
    return text.find_first_not_of("0123456789") == std::string::npos
        ? parse_integer(text, 10)
        : std::nullopt;
  }

  Value first(const std::string& name) {
    if (name.empty() || parse_index(name)) {
      const bool is_numbered = !name.empty();
      if (is_numbered ? next_ > 0 : next_ < 0) {
        bad_format("found numbered and unnumbered fields together");
      }
      const std::int64_t index = is_numbered ? *parse_index(name) : next_++;
      next_ = is_numbered ? -1 : next_;
      const auto& all = arguments_.positional;
      if (index >= static_cast<std::int64_t>(all.size())) {
        bad_format(fmt::format("found no argument {}", index));
      }
      return all[static_cast<std::size_t>(index)];
    }
    for (const auto& [key, value] : arguments_.keywords) {
      if (key == name) {
        return value;
      }
    }
    bad_format("found no argument named " + quote(name));
  }

  Interpreter& interpreter_;
  const Arguments& arguments_;
  std::int64_t next_ = 0; // < 0: fields are numbered
};

// --- `%` ---------------------------------------------------------------------

class PercentFormatter {
 public:
  PercentFormatter(Interpreter& interpreter, const Value& values)
      : interpreter_(interpreter), values_(values) {}

  std::string format(std::string_view text) {
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
      if (text[at] != '%') {
        out += text[at++];
        continue;
      }
      ++at;
      out += conversion(text, at);
      interpreter_.budget().require(out.size());
    }
    const bool all_used = values_.is(Type::Dict) ||
        used_ >= static_cast<std::int64_t>(
                     values_.is(SequenceKind::Tuple)
                         ? values_.sequence().items.size()
                         : 1) ||
        (!values_.is(SequenceKind::Tuple) && !values_.is_string() &&
         !values_.is_number() && values_.is(SequenceKind::List));
    if (!all_used) {
      bad_format("not all arguments were converted by '%'");
    }
    return out;
  }

 private:
  Value next() {
    if (values_.is(SequenceKind::Tuple)) {
      const auto& items = values_.sequence().items;
      if (used_ < static_cast<std::int64_t>(items.size())) {
        return items[static_cast<std::size_t>(used_++)];
      }
    } else if (used_++ == 0) {
      return values_;
    }
    bad_format("not enough arguments for '%'");
  }

  Value named(std::string_view text, std::size_t& at) {
    const std::size_t end = text.find(')', at);
    if (end == std::string_view::npos || !values_.is(Type::Dict)) {
      bad_format("found a key after '%', expected a dict of values");
    }
    const std::string key(text.substr(at + 1, end - at - 1));
    at = end + 1;
    const Value* value = values_.dict().find(key);
    if (value == nullptr) {
      bad_format("found no value for key " + quote(key));
    }
    return *value;
  }

  std::string conversion(std::string_view text, std::size_t& at) {
    if (at < text.size() && text[at] == '%') {
      ++at;
      return "%";
    }
    std::optional<Value> value;
    if (at < text.size() && text[at] == '(') {
      value = named(text, at);
    }
    Spec spec;
    spec.align = '>';
    bool is_left = false;
    for (; at < text.size() &&
         std::string_view("-+ #0").find(text[at]) != std::string_view::npos;
         ++at) {
      is_left |= text[at] == '-';
      spec.alternate |= text[at] == '#';
      spec.sign = text[at] == '+' || text[at] == ' ' ? text[at] : spec.sign;
      spec.fill = text[at] == '0' ? "0" : spec.fill;
    }
    spec.width = read_number(text, at);
    if (at < text.size() && text[at] == '.') {
      ++at;
      spec.precision = read_number(text, at);
    }
    if (at >= text.size()) {
      bad_format("found no type after '%'");
    }
    if (is_left) {
      spec.align = '<';
      spec.fill = " ";
    }
    const char type = text[at++];
    return converted(spec, type, value ? *value : next());
  }

  std::string converted(Spec spec, char type, const Value& value) {
    switch (type) {
      case 's':
      case 'r': {
        std::string shown;
        if (type == 'r') {
          write_repr(&interpreter_.budget(), shown, value);
        } else {
          write_text(&interpreter_.budget(), shown, value);
        }
        const Heap& heap = interpreter_.heap();
        Value cut = heap.string(std::move(shown));
        if (spec.precision >= 0) {
          cut = slice(heap, cut, Value(), Value(spec.precision), Value());
        }
        spec.fill = " ";
        return pad(spec, "", cut.text(), '>');
      }
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        require_number(value);
        spec.type = type == 'i' || type == 'u' ? 'd' : type;
        if (spec.fill == "0") {
          spec.align = '=';
        }
        if (value.is(Type::Float)) {
          if (spec.type != 'd' || std::abs(value.real()) >= 0x1p63) {
            bad_format("found a float for '%x' or '%o', expected an integer");
          }
          return format_integer(spec, static_cast<std::int64_t>(value.real()));
        }
        return format_integer(spec, value.integer());
      case 'f':
      case 'F':
      case 'e':
      case 'E':
      case 'g':
      case 'G':
        require_number(value);
        spec.type = type;
        if (spec.fill == "0") {
          spec.align = '=';
        }
        return format_float(spec, value.real());
      default:
        fail(
            ErrorKind::Unsupported,
            "format: found type '%{}', expected one of s r d i u x X o f e g",
            type);
    }
  }

  static void require_number(const Value& value) {
    if (!value.is_number()) {
      bad_format(
          std::string("found a ") + type_name(value) +
          " for '%', expected a number");
    }
  }

  Interpreter& interpreter_;
  const Value& values_;
  std::int64_t used_ = 0;
};

} // namespace

std::string percent_format(
    Interpreter& interpreter,
    const std::string& format,
    const Value& values) {
  return PercentFormatter(interpreter, values).format(format);
}

std::string brace_format(
    Interpreter& interpreter,
    const std::string& format,
    const Arguments& arguments) {
  interpreter.budget().work(format.size());
  return BraceFormatter(interpreter, arguments).format(format, 0);
}

std::string format_now(const std::string& format) {
  timespec now{};
  std::timespec_get(&now, TIME_UTC);
  tm local{};
  localtime_r(&now.tv_sec, &local);
  // A Python datetime without a zone prints %z and %Z as nothing, and knows %f.
  std::string prepared;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      prepared += format[i];
      continue;
    }
    const char type = format[++i];
    if (type == 'f') {
      prepared += fmt::format("{:06d}", now.tv_nsec / 1000);
    } else if (type != 'z' && type != 'Z') {
      prepared += '%';
      prepared += type;
    }
  }
  prepared += '.'; // tells an empty result from one that did not fit
  std::string out(prepared.size() * 4 + 256, '\0');
  out.resize(std::strftime(out.data(), out.size(), prepared.c_str(), &local));
  if (out.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "strftime_now: found format {}, which gives no text",
        quote(format));
  }
  out.pop_back();
  return out;
}

} // namespace optiq::text::jinja
