// str() and repr() of Python.
#include <charconv>
#include <cmath>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

void write_items(
    Budget* budget,
    std::string& out,
    const std::vector<Value>& items,
    int nesting) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    out += i == 0 ? "" : ", ";
    write_repr(budget, out, items[i], nesting + 1);
  }
}

void write_sequence(
    Budget* budget,
    std::string& out,
    const Sequence& s,
    int nesting) {
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
  out += marks.open;
  if (s.kind == SequenceKind::Range) {
    out += fmt::format("{}, {}", s.range[0], s.range[1]);
    out += s.range[2] == 1 ? "" : fmt::format(", {}", s.range[2]);
  } else {
    write_items(budget, out, s.items, nesting);
    out += s.kind == SequenceKind::Tuple && s.items.size() == 1 ? "," : "";
  }
  out += marks.close;
}

void write_dict(
    Budget* budget,
    std::string& out,
    const Dict& dict,
    int nesting) {
  out += '{';
  for (const auto& [key, value] : dict.items) {
    out += &key == &dict.items[0].first ? "" : ", ";
    write_repr(budget, out, key, nesting + 1);
    out += ": ";
    write_repr(budget, out, value, nesting + 1);
  }
  out += '}';
}

void write_namespace(
    Budget* budget,
    std::string& out,
    const Namespace& space,
    int nesting) {
  out += "<Namespace {";
  for (std::size_t i = 0; i < space.attributes.size(); ++i) {
    out += (i == 0 ? "" : ", ") + quote(space.attributes[i].first) + ": ";
    write_repr(budget, out, space.attributes[i].second, nesting + 1);
  }
  out += "}>";
}

} // namespace

void write_text(Budget* budget, std::string& out, const Value& value) {
  if (value.is_string()) {
    if (budget != nullptr) {
      budget->require(out.size() + value.text().size());
    }
    meter(budget, value.text().size());
    out += value.text();
  } else if (!value.is_undefined()) {
    write_repr(budget, out, value);
  }
}

std::string to_text(Budget* budget, const Value& value) {
  std::string out;
  write_text(budget, out, value);
  return out;
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

void write_repr(
    Budget* budget,
    std::string& out,
    const Value& value,
    int nesting) {
  require_nesting(nesting); // a namespace may hold itself
  const std::size_t bytes = value.is_string() ? value.text().size() : 8;
  meter(budget, bytes);
  if (budget != nullptr) {
    budget->require(out.size() + bytes);
  }
  switch (value.type()) {
    case Type::Undefined:
      out += "Undefined";
      break;
    case Type::None:
      out += "None";
      break;
    case Type::Bool:
      out += value.boolean() ? "True" : "False";
      break;
    case Type::Int:
      out += fmt::format("{}", value.integer());
      break;
    case Type::Float:
      out += repr(value.real());
      break;
    case Type::String:
      out += value.string().is_markup ? "Markup(" + quote(value.text()) + ")"
                                      : quote(value.text());
      break;
    case Type::Sequence:
      write_sequence(budget, out, value.sequence(), nesting);
      break;
    case Type::Dict:
      write_dict(budget, out, value.dict(), nesting);
      break;
    case Type::Namespace:
      write_namespace(budget, out, value.name_space(), nesting);
      break;
    case Type::Macro:
      out += "<Macro " + quote(value.macro().source->name) + ">";
      break;
    case Type::Loop:
      out += fmt::format(
          "<LoopContext {}/{}>",
          value.loop().index0 + 1,
          value.loop().items.size());
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
