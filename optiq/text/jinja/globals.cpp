// Global functions, and what every builtin needs: the sorting of its arguments
// and Python's way to read numbers.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {

Parameters::Parameters(
    const char* function,
    Arguments& arguments,
    std::initializer_list<const char*> names,
    std::size_t n_required)
    : function_(function),
      names_(names.begin(), names.end()),
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
          "{}: found argument '{}' {}",
          function,
          key,
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
          names_[i]);
    }
  }
}

std::int64_t Parameters::integer(std::size_t i, std::int64_t otherwise) const {
  if (!given_[i] || values_[i].is_none()) {
    return otherwise;
  }
  if (!values_[i].is_integral()) {
    fail(
        ErrorKind::InvalidInput,
        "{}: found a {} for '{}', expected an integer",
        function_,
        type_name(values_[i]),
        names_[i]);
  }
  return values_[i].integer();
}

bool Parameters::boolean(std::size_t i, bool otherwise) const {
  return given_[i] ? is_true(values_[i]) : otherwise;
}

std::string Parameters::text(std::size_t i, const std::string& otherwise)
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
        names_[i]);
  }
  return values_[i].text();
}

namespace {

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

} // namespace

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

std::optional<std::int64_t> parse_integer(std::string_view text, int base) {
  const auto number = without_underscores(strip(text, Side::Both));
  if (!number) {
    return std::nullopt;
  }
  std::string_view digits = *number;
  const bool is_negative = digits.starts_with('-');
  if (is_negative || digits.starts_with('+')) {
    digits.remove_prefix(1);
  }
  const std::string_view prefix = base == 16 ? "xX"
      : base == 8                            ? "oO"
      : base == 2                            ? "bB"
                                             : "";
  if (digits.size() > 2 && digits[0] == '0' &&
      prefix.find(digits[1]) != std::string_view::npos) {
    digits.remove_prefix(2);
  }
  if (digits.empty() || digits[0] == '-' || base < 2 || base > 36) {
    return std::nullopt;
  }
  std::uint64_t value = 0;
  const auto read = std::from_chars(
      digits.data(), digits.data() + digits.size(), value, base);
  if (read.ec == std::errc::result_out_of_range ||
      (read.ec == std::errc() && value > INT64_MAX)) {
    fail(
        ErrorKind::Exhausted,
        "found integer {}, expected at most 64 bits",
        text.substr(0, 40));
  }
  if (read.ec != std::errc() || read.ptr != digits.data() + digits.size()) {
    return std::nullopt;
  }
  const auto result = static_cast<std::int64_t>(value);
  return is_negative ? -result : result;
}

namespace {

Value global_range(Interpreter& in, const Value&, Arguments& arguments) {
  Parameters p("range", arguments, {"start", "stop", "step"}, 1);
  const bool only_stop = !p.has(1);
  const std::int64_t start = only_stop ? 0 : p.integer(0, 0);
  const std::int64_t stop = p.integer(only_stop ? 0 : 1, 0);
  const std::int64_t step = p.integer(2, 1);
  if (step == 0) {
    fail(ErrorKind::InvalidInput, "range: found step 0");
  }
  const long double span = (static_cast<long double>(stop) - start) / step;
  constexpr std::size_t kMost = 100'000; // jinja2's sandbox has this limit too
  if (span > static_cast<long double>(kMost)) {
    fail(ErrorKind::Exhausted, "range: found more than {} items", kMost);
  }
  const auto n = static_cast<std::size_t>(std::ceil(std::max(span, 0.0L)));
  return in.heap().range(start, stop, step, n);
}

Value global_raise(Interpreter& in, const Value&, Arguments& arguments) {
  const Parameters p("raise_exception", arguments, {"message"}, 1);
  fail(ErrorKind::InvalidInput, "{}", to_text(&in.budget(), p[0]));
}

Value global_strftime(Interpreter& in, const Value&, Arguments& arguments) {
  const Parameters p("strftime_now", arguments, {"format"}, 1);
  const std::string format = p.text(0, "");
  in.budget().work(format.size() * 64);
  return in.heap().string(format_now(format));
}

Value global_namespace(Interpreter& in, const Value&, Arguments& arguments) {
  return in.new_namespace(arguments);
}

Value global_dict(Interpreter& in, const Value&, Arguments& arguments) {
  std::vector<std::pair<Value, Value>> pairs;
  if (arguments.positional.size() > 1) {
    fail(ErrorKind::InvalidInput, "dict: found more than one argument");
  }
  for (const Value& source : arguments.positional) {
    if (source.is(Type::Dict)) {
      pairs = source.dict().items;
      continue;
    }
    for (const Value& item : iterate(in.heap(), source)) {
      const auto pair = iterate(in.heap(), item);
      if (pair.size() != 2) {
        fail(ErrorKind::InvalidInput, "dict: expected pairs");
      }
      pairs.emplace_back(pair[0], pair[1]);
    }
  }
  for (auto& [key, value] : arguments.keywords) {
    pairs.emplace_back(in.heap().string(key), value);
  }
  return in.heap().dict(std::move(pairs));
}

struct Row {
  std::string_view name;
  Native native;
};
constexpr Row kGlobals[] = {
    {"dict", global_dict},
    {"namespace", global_namespace},
    {"raise_exception", global_raise},
    {"range", global_range},
    {"strftime_now", global_strftime},
};

} // namespace

Native find_global(std::string_view name) {
  for (const Row& row : kGlobals) {
    if (row.name == name) {
      return row.native;
    }
  }
  return nullptr;
}

} // namespace optiq::text::jinja
