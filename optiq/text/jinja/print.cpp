// str() and repr() of Python.
#include <charconv>
#include <cmath>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

void write_items(Text& out, const Items& items, int nesting) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    out.append(i == 0 ? "" : ", ");
    write_repr(out, items[i], nesting + 1);
  }
}

void write_sequence(Text& out, const Sequence& s, int nesting) {
  struct Marks {
    const char* open;
    const char* close;
  };
  constexpr Marks kMarks[] = {
      {"[", "]"},
      {"(", ")"},
      {"range(", ")"},
      {"dict_keys([", "])"},
      {"dict_values([", "])"},
      {"dict_items([", "])"},
  };
  const Marks& marks = kMarks[static_cast<int>(s.kind)];
  out.append(marks.open);
  if (s.kind == SequenceKind::Range) {
    write_repr(out, s.range->start);
    out.append(", ");
    write_repr(out, s.range->stop);
    if (!equal(nullptr, s.range->step, Value(std::int64_t{1}))) {
      out.append(", ");
      write_repr(out, s.range->step);
    }
  } else {
    write_items(out, s.items, nesting);
    out.append(s.kind == SequenceKind::Tuple && s.items.size() == 1 ? "," : "");
  }
  out.append(marks.close);
}

void write_dict(Text& out, const Dict& dict, int nesting) {
  out.append('{');
  bool is_first = true;
  for (const auto& [key, value] : dict.items()) {
    out.append(std::exchange(is_first, false) ? "" : ", ");
    write_repr(out, key, nesting + 1);
    out.append(": ");
    write_repr(out, value, nesting + 1);
  }
  out.append('}');
}

void write_namespace(Text& out, const Namespace& space, int nesting) {
  out.append("<Namespace {");
  bool is_first = true;
  for (const auto& [name, value] : space.attributes()) {
    out.append(std::exchange(is_first, false) ? "" : ", ");
    write_quoted(out, name);
    out.append(": ");
    write_repr(out, value, nesting + 1);
  }
  out.append("}>");
}

void write_string(Text& out, const String& string) {
  out.append(string.is_markup ? "Markup(" : "");
  write_quoted(out, string.text);
  out.append(string.is_markup ? ")" : "");
}

} // namespace

void write_text(Text& out, const Value& value) {
  if (value.is_string()) {
    out.append(value.text());
  } else if (!value.is_undefined()) {
    write_repr(out, value);
  }
}

Text to_text(Budget* budget, const Value& value) {
  Text out(budget);
  write_text(out, value);
  return out;
}

Value as_text(const Heap& heap, const Value& value) {
  return value.is_string() ? value : heap.string(to_text(heap.budget(), value));
}

Value escaped(const Heap& heap, const Value& value) {
  if (value.is_markup()) {
    return value;
  }
  const Value text = as_text(heap, value);
  Text out = heap.text();
  write_escaped(out, text.text());
  return heap.string(std::move(out), true);
}

std::string decimal(const Value& value) {
  if (value.is_small()) {
    return fmt::format("{}", value.integer());
  }
  // Python's limit: the conversion takes the square of the length.
  constexpr std::size_t kMostDigits = 4300;
  const std::size_t too_long = kMostDigits * 10 / 3 + 1; // bits
  const BigInteger& number = value.large();
  const std::string digits =
      number.bit_length() < too_long + 8192 ? number.digits(10) : "";
  if (digits.empty() || digits.size() > kMostDigits) {
    fail(
        ErrorKind::InvalidInput,
        "found an integer of more than {} digits to print",
        kMostDigits);
  }
  return (number.is_negative() ? "-" : "") + digits;
}

std::string repr(double value) {
  if (std::isnan(value)) {
    return "nan";
  }
  if (std::isinf(value)) {
    return value < 0 ? "-inf" : "inf";
  }
  char buffer[40];
  const auto end = std::to_chars(
      buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string_view text(buffer, end.ptr);
  const std::size_t e = text.find('e');
  const int exponent = std::stoi(std::string(text.substr(e + 1)));
  if (exponent < -4 || exponent >= 16) {
    return std::string(text); // Python's form too: 1e-05, 1e+16
  }
  const auto fixed = std::to_chars(
      buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  std::string out(buffer, fixed.ptr);
  return out.find('.') == std::string::npos ? out + ".0" : out;
}

void write_repr(Text& out, const Value& value, int nesting) {
  require_nesting(nesting); // a namespace may hold itself
  meter(out.budget());
  switch (value.type()) {
    case Type::Undefined:
      out.append("Undefined");
      break;
    case Type::None:
      out.append("None");
      break;
    case Type::Bool:
      out.append(value.boolean() ? "True" : "False");
      break;
    case Type::Int:
    case Type::LargeInt:
      out.append(decimal(value));
      break;
    case Type::Float:
      out.append(repr(value.real()));
      break;
    case Type::String:
      write_string(out, value.string());
      break;
    case Type::Sequence:
      write_sequence(out, value.sequence(), nesting);
      break;
    case Type::Dict:
      write_dict(out, value.dict(), nesting);
      break;
    case Type::Namespace:
      write_namespace(out, value.name_space(), nesting);
      break;
    case Type::Macro:
      out.append(
          value.macro().source->name.empty()
              ? std::string("<Macro anonymous>")
              : "<Macro " + quote(value.macro().source->name) + ">");
      break;
    case Type::Loop:
      out.append(fmt::format(
          "<LoopContext {}/{}>",
          value.loop().index0 + 1,
          value.loop().items.size()));
      break;
    default:
      // Python prints an address here.
      fail(
          ErrorKind::InvalidInput,
          "found a {} to print, expected data. Apply `list` to it first",
          type_name(value));
  }
}

} // namespace optiq::text::jinja
