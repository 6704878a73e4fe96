// What every builtin needs: the sorting of its arguments, tables of names, and
// Python's way to read numbers.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {

Arguments Arguments::copy(Budget* budget) const {
  Arguments out(budget);
  out.positional.append(positional);
  for (const auto& [name, value] : keywords) {
    out.add_keyword(name, value);
  }
  return out;
}

void Arguments::add_keyword(std::string name, Value value) {
  charge.grow(
      3 * sizeof(keywords[0]) + name.size()); // a vector grows by copying
  keywords.emplace_back(std::move(name), std::move(value));
}

Parameters::Parameters(
    const char* function,
    const Arguments& arguments,
    std::initializer_list<const char*> names,
    std::size_t n_required)
    : function_(function),
      names_(names),
      values_(names.size()),
      given_(names.size(), false) {
  if (arguments.positional.size() > names_.size()) {
    fail(
        ErrorKind::InvalidInput,
        "{}: found {} arguments, expected at most {}",
        function,
        arguments.positional.size(),
        names_.size());
  }
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) {
    values_[i] = arguments.positional[i];
    given_[i] = true;
  }
  for (const auto& [key, value] : arguments.keywords) {
    const auto at = std::find(names_.begin(), names_.end(), key);
    const auto i = static_cast<std::size_t>(at - names_.begin());
    if (at == names_.end() || given_[i]) {
      fail(
          ErrorKind::InvalidInput,
          "{}: found argument {} {}",
          function,
          quote(key),
          at == names_.end() ? "that it does not have" : "twice");
    }
    values_[i] = value;
    given_[i] = true;
  }
  for (std::size_t i = 0; i < n_required; ++i) {
    if (!given_[i]) {
      fail(
          ErrorKind::InvalidInput,
          "{}: found no argument '{}', which it needs",
          function,
          name_of(i));
    }
  }
}

const char* Parameters::name_of(std::size_t i) const {
  return names_[i][0] == '/' ? names_[i] + 1 : names_[i];
}

std::int64_t Parameters::integer(std::size_t i, std::int64_t otherwise) const {
  if (!given_[i]) {
    return otherwise;
  }
  if (!values_[i].is_small()) {
    fail(
        ErrorKind::InvalidInput,
        "{}: found {} for '{}', expected an integer of 64 bits",
        function_,
        values_[i].is(Type::LargeInt)
            ? std::string("a larger integer")
            : std::string("a ") + type_name(values_[i]),
        name_of(i));
  }
  return values_[i].integer();
}

std::int64_t Parameters::bound(std::size_t i, std::int64_t otherwise) const {
  if (values_[i].is(Type::LargeInt)) {
    return values_[i].large().is_negative() ? -INT64_MAX : INT64_MAX;
  }
  return integer_or_none(i, otherwise);
}

std::int64_t Parameters::integer_or_none(std::size_t i, std::int64_t otherwise)
    const {
  return values_[i].is_none() ? otherwise : integer(i, otherwise);
}

bool Parameters::boolean(std::size_t i, bool otherwise) const {
  return given_[i] ? is_true(values_[i]) : otherwise;
}

bool Parameters::flag(std::size_t i, bool otherwise) const {
  const std::int64_t value = integer(i, otherwise ? 1 : 0);
  if (value < INT32_MIN || value > INT32_MAX) {
    fail(
        ErrorKind::InvalidInput,
        "{}: found {} for '{}', expected true or false",
        function_,
        value,
        name_of(i));
  }
  return value != 0;
}

std::string_view Parameters::text(std::size_t i, std::string_view otherwise)
    const {
  if (!given_[i]) {
    return otherwise;
  }
  if (!values_[i].is_string()) {
    fail(
        ErrorKind::InvalidInput,
        "{}: found a {} for '{}', expected a string",
        function_,
        type_name(values_[i]),
        name_of(i));
  }
  return values_[i].text();
}

BuiltinTable::BuiltinTable(
    std::initializer_list<std::span<const Builtin>> parts) {
  for (const auto& part : parts) {
    for (const Builtin& row : part) {
      rows_.emplace(row.name, &row);
    }
  }
}

const Builtin* BuiltinTable::find(std::string_view name) const {
  const auto at = rows_.find(name);
  return at == rows_.end() ? nullptr : at->second;
}

namespace {

struct LeftOut {
  std::string_view kind;
  std::string_view name;
  std::string_view reason;
};
constexpr LeftOut kLeftOut[] = {
    {"filter", "random", "makes every prompt another"},
    {"filter", "striptags", "is for web pages"},
    {"filter", "urlize", "is for web pages"},
    {"function", "lipsum", "makes every prompt another"},
    {"method", "encode", "gives bytes, which templates cannot print"},
};

const LeftOut* find_left_out(std::string_view kind, std::string_view name) {
  for (const LeftOut& row : kLeftOut) {
    if (row.kind == kind && row.name == name) {
      return &row;
    }
  }
  return nullptr;
}

// Python's number syntax: single underscores between digits only.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const bool is_between = i > 0 && i + 1 < text.size() &&
        std::isalnum(static_cast<unsigned char>(text[i - 1])) != 0 &&
        std::isalnum(static_cast<unsigned char>(text[i + 1])) != 0;
    if (!is_between) {
      return std::nullopt;
    }
  }
  return out;
}

// The digits after a sign: "0x1f" for base 16 too, "0x" and its like for base
// 0, which becomes the base that they name.
std::optional<std::string_view> without_prefix(
    std::string_view digits,
    int& base) {
  const char letter = digits.size() > 2 && digits[0] == '0'
      ? static_cast<char>(digits[1] | 0x20)
      : '\0';
  const int named = letter == 'x' ? 16
      : letter == 'o'             ? 8
      : letter == 'b'             ? 2
                                  : 0;
  if (named != 0 && (base == 0 || base == named)) {
    base = named;
    return digits.substr(2);
  }
  if (base == 0) {
    // 007 is no integer of base 0, 00 is.
    if (digits.size() > 1 && digits[0] == '0' &&
        digits.find_first_not_of('0') != std::string_view::npos) {
      return std::nullopt;
    }
    base = 10;
  }
  return digits;
}

} // namespace

bool is_left_out(std::string_view kind, std::string_view name) {
  return find_left_out(kind, name) != nullptr;
}

std::string unknown_builtin(std::string_view kind, std::string_view name) {
  const LeftOut* row = find_left_out(kind, name);
  return row != nullptr
      ? fmt::format(
            "found {} '{}', which chat templates may not use: it {}",
            kind,
            name,
            row->reason)
      : fmt::format("found {} {}, which does not exist", kind, quote(name));
}

std::optional<double> parse_float(std::string_view text) {
  const auto number = without_underscores(strip(text, Side::Both));
  if (!number || number->empty() ||
      number->find_first_of("xX(") != std::string::npos) {
    return std::nullopt;
  }
  char* end = nullptr;
  const double value = std::strtod(number->c_str(), &end);
  const bool is_whole = end == number->c_str() + number->size();
  return is_whole ? std::optional<double>(value) : std::nullopt;
}

std::optional<BigInteger> parse_integer(std::string_view text, int base) {
  const auto number = without_underscores(strip(text, Side::Both));
  if (!number || base < 0 || base == 1 || base > 36) {
    return std::nullopt;
  }
  std::string_view digits = *number;
  const bool is_negative = digits.starts_with('-');
  if (is_negative || digits.starts_with('+')) {
    digits.remove_prefix(1);
  }
  const auto plain = without_prefix(digits, base);
  // Python's limit, for bases whose conversion is not linear.
  constexpr std::size_t kMostDigits = 4300;
  const bool is_linear = (base & (base - 1)) == 0;
  if (!plain || (!is_linear && plain->size() > kMostDigits)) {
    return std::nullopt;
  }
  const auto value = BigInteger::parse(*plain, base);
  return value && is_negative ? value->negated() : value;
}

} // namespace optiq::text::jinja
