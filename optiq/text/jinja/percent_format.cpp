// Python's `format % values`.
#include <cmath>

#include "optiq/base/error.h"
#include "optiq/text/jinja/builtins_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

// %[(key)][flags][width][.precision][length]type
class PercentFormatter {
 public:
  PercentFormatter(const Heap& heap, const String& format, const Value& values)
      : heap_(heap), format_(format), values_(values), out_(heap.budget()) {}

  Value run() {
    const std::string_view text = format_.text;
    while (at_ < text.size()) {
      const std::size_t next = std::min(text.find('%', at_), text.size());
      out_.append(text.substr(at_, next - at_));
      at_ = next + 1;
      if (next < text.size()) {
        conversion();
      }
    }
    if (!all_used()) {
      bad_format("not all arguments were converted by '%'");
    }
    return heap_.string(std::move(out_), format_.is_markup);
  }

 private:
  bool is_tuple() const {
    return values_.is(SequenceKind::Tuple);
  }
  // Of what Python can subscript, values may be left over.
  bool is_mapping() const {
    return values_.is(Type::Dict) || values_.is(SequenceKind::List) ||
        values_.is(SequenceKind::Range) || values_.is_undefined();
  }
  bool all_used() const {
    return is_mapping() || used_ >= (is_tuple() ? values_.items().size() : 1);
  }

  const Value& next() {
    if (used_ >= (is_tuple() ? values_.items().size() : 1)) {
      bad_format("not enough arguments for '%'");
    }
    ++used_;
    return is_tuple() ? values_.items()[used_ - 1] : values_;
  }

  char peek() const {
    return at_ < format_.text.size() ? format_.text[at_] : '\0';
  }

  // The value of %(key)type; parentheses inside the key are in pairs.
  const Value& named() {
    const std::string_view text = format_.text;
    const std::size_t begin = ++at_;
    for (int open = 1; at_ < text.size(); ++at_) {
      open += text[at_] == '(' ? 1 : text[at_] == ')' ? -1 : 0;
      if (open == 0) {
        break;
      }
    }
    if (at_ >= text.size() || !values_.is(Type::Dict)) {
      bad_format("found a key after '%', expected a dict of values");
    }
    const Value key = heap_.string(text.substr(begin, at_ - begin));
    ++at_;
    const Value* value = values_.dict().find(hash_key(heap_.budget(), key));
    if (value == nullptr) {
      bad_format("found no value for key " + quote(key.text()));
    }
    return *value;
  }

  // A number, or `*`: the next value.
  std::int64_t number() {
    if (peek() != '*') {
      return read_number(format_.text, at_);
    }
    ++at_;
    const Value& value = next();
    if (!value.is_small() || value.integer() < INT32_MIN ||
        value.integer() > INT32_MAX) {
      bad_format("found no integer for '*'");
    }
    return value.integer();
  }

  void conversion() {
    meter(heap_.budget());
    if (peek() == '%') {
      out_.append('%');
      ++at_;
      return;
    }
    std::optional<Value> value;
    if (peek() == '(') {
      value = named();
    }
    FormatSpec spec;
    spec.align = '>';
    bool is_left = false;
    for (; at_ < format_.text.size() &&
         std::string_view("-+ #0").find(peek()) != std::string_view::npos;
         ++at_) {
      is_left |= peek() == '-';
      spec.alternate |= peek() == '#';
      spec.sign = peek() == '+' || (peek() == ' ' && spec.sign != '+')
          ? peek()
          : spec.sign;
      spec.fill = peek() == '0' ? "0" : spec.fill;
    }
    spec.width = number();
    if (spec.width < 0) {
      is_left = true;
      spec.width = -spec.width;
    }
    if (peek() == '.') {
      ++at_;
      spec.precision = std::max<std::int64_t>(number(), 0);
    }
    at_ += peek() == 'h' || peek() == 'l' || peek() == 'L' ? 1 : 0;
    if (at_ >= format_.text.size()) {
      bad_format("found no type after '%'");
    }
    const char type = format_.text[at_++];
    if (is_left) {
      spec.align = '<';
      spec.fill = " ";
    }
    convert(spec, type, value ? *value : next());
  }

  void convert(FormatSpec spec, char type, const Value& value) {
    switch (type) {
      case 's':
      case 'r':
      case 'a':
        convert_text(spec, type, value);
        return;
      case 'c':
        spec.fill = " ";
        write_padded(out_, spec, "", character(value).text(), '>');
        return;
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        spec.type = type == 'i' || type == 'u' ? 'd' : type;
        convert_integer(spec, value);
        return;
      case 'f':
      case 'F':
      case 'e':
      case 'E':
      case 'g':
      case 'G':
        require_number(value);
        spec.type = type;
        spec.align = spec.fill == "0" ? '=' : spec.align;
        write_float(out_, spec, value.real());
        return;
      default:
        bad_format(fmt::format(
            "found type {} after '%', expected one of s r a c d i u x X o f e "
            "g",
            quote(std::string_view(&type, 1))));
    }
  }

  void convert_text(FormatSpec spec, char type, const Value& value) {
    Text shown(heap_.budget());
    if (type == 's') {
      write_text(shown, value);
    } else if (type == 'a' && value.is_string() && !value.is_markup()) {
      write_quoted(shown, value.text(), true);
    } else {
      write_repr(shown, value);
    }
    Value cut =
        heap_.string(std::move(shown), type == 's' && value.is_markup());
    if (format_.is_markup) {
      cut = escaped(heap_, cut);
    }
    if (spec.precision >= 0) {
      cut = slice(heap_, cut, Value(), Value(spec.precision), Value());
    }
    spec.fill = " ";
    write_padded(out_, spec, "", cut.text(), '>');
  }

  Value character(const Value& value) const {
    if (value.is_string() && value.string().length == 1) {
      return value;
    }
    if (!value.is_small() || value.integer() < 0 ||
        value.integer() > 0x10FFFF) {
      bad_format(
          std::string("found a ") + type_name(value) +
          " for '%c', expected a character or its number");
    }
    Text text(heap_.budget());
    append_utf8(text, static_cast<std::int32_t>(value.integer()));
    return heap_.string(std::move(text));
  }

  void convert_integer(FormatSpec spec, const Value& value) {
    require_number(value);
    const bool is_float = value.is(Type::Float);
    if (is_float && (spec.type != 'd' || !std::isfinite(value.real()))) {
      bad_format("found a float for '%x' or '%o', expected an integer");
    }
    const Value whole =
        is_float ? heap_.integer(BigInteger(value.real())) : value;
    spec.align = spec.fill == "0" ? '=' : spec.align;
    if (spec.precision < 0) {
      write_integer(out_, spec, whole);
      return;
    }
    // A precision is a least number of digits, after sign and prefix.
    Text digits(heap_.budget());
    FormatSpec plain;
    plain.type = spec.type;
    const bool is_negative = whole.big().is_negative();
    write_integer(digits, plain, is_negative ? negated(heap_, whole) : whole);
    Text body(heap_.budget());
    const auto size = static_cast<std::int64_t>(digits.size());
    body.append_times(
        "0",
        static_cast<std::size_t>(
            std::max<std::int64_t>(spec.precision - size, 0)));
    body.append(digits.str());
    std::string sign = is_negative ? "-"
        : spec.sign == '\0'        ? ""
                                   : std::string(1, spec.sign);
    if (spec.alternate && spec.type != 'd') {
      sign += std::string("0") + spec.type;
    }
    write_padded(out_, spec, sign, body.str(), '>');
  }

  static void require_number(const Value& value) {
    if (!value.is_number()) {
      bad_format(
          std::string("found a ") + type_name(value) +
          " for '%', expected a number");
    }
  }

  const Heap& heap_;
  const String& format_;
  const Value& values_;
  Text out_;
  std::size_t at_ = 0; // in the format
  std::size_t used_ = 0; // values
};

} // namespace

Value percent_format(
    const Heap& heap,
    const String& format,
    const Value& values) {
  meter(heap.budget(), format.text.size());
  return PercentFormatter(heap, format, values).run();
}

} // namespace optiq::text::jinja
