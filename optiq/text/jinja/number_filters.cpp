// Filters of numbers.
#include <cmath>
#include <cstdlib>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"

namespace optiq::text::jinja {
namespace {

std::optional<double> to_float(const Value& value) {
  require_defined(value);
  if (value.is_number()) {
    return value.real();
  }
  return value.is_string() ? parse_float(value.text()) : std::nullopt;
}

Value filter_int(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("int", arguments, {"default", "base"});
  require_defined(self);
  if (self.is_integral()) {
    return in.heap().integer(self.big());
  }
  if (self.is(Type::Float) && std::isinf(self.real())) {
    fail(ErrorKind::InvalidInput, "int: found an infinity");
  }
  if (self.is_string()) {
    const std::int64_t base = !p.has(1) ? 10
        : p[1].is_small()               ? p[1].integer()
                                        : -1;
    const auto value = base >= 0 && base <= 36
        ? parse_integer(self.text(), static_cast<int>(base))
        : std::nullopt;
    if (value) {
      return in.heap().integer(*value);
    }
  }
  const auto real = to_float(self);
  if (real && std::isfinite(*real)) {
    return in.heap().integer(BigInteger(*real));
  }
  return p.has(0) ? p[0] : Value(std::int64_t{0});
}

Value filter_float(Interpreter&, const Value& self, Arguments& arguments) {
  const Parameters p("float", arguments, {"default"});
  if (const auto value = to_float(self)) {
    return Value(*value);
  }
  return p.has(0) ? p[0] : Value(0.0);
}

void require_number(const char* filter, const Value& value) {
  require_defined(value);
  if (!value.is_number()) {
    fail(
        ErrorKind::InvalidInput,
        "{}: found a {}, expected a number",
        filter,
        type_name(value));
  }
}

Value filter_abs(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("abs", arguments, {});
  require_number("abs", self);
  if (self.is(Type::Float)) {
    return Value(std::abs(self.real()));
  }
  const BigInteger value = self.big();
  return in.heap().integer(value.is_negative() ? value.negated() : value);
}

// round() of a float to decimal digits, as printf rounds them.
double rounded(double value, std::int64_t digits) {
  // Beyond these nothing changes, and nothing is left.
  constexpr std::int64_t kMost = 323;
  constexpr std::int64_t kLeast = -308;
  if (!std::isfinite(value) || digits > kMost) {
    return value;
  }
  if (digits < kLeast) {
    return 0.0 * value;
  }
  if (digits >= 0) {
    return std::strtod(fmt::format("{:.{}f}", value, digits).c_str(), nullptr);
  }
  // Exact tens: the integer part rounds half to even, and a fraction decides.
  const BigInteger whole(value);
  const double fraction = std::abs(value - std::trunc(value));
  BigInteger unit(std::int64_t{1});
  for (std::int64_t i = digits; i < 0; ++i) {
    unit = BigInteger::multiply(unit, BigInteger(std::int64_t{10}));
  }
  const bool is_negative = std::signbit(value);
  const BigInteger magnitude = is_negative ? whole.negated() : whole;
  auto [quotient, rest] = BigInteger::divide(magnitude, unit);
  const int half = BigInteger::compare(BigInteger::add(rest, rest), unit);
  const bool is_odd = !BigInteger::divide(quotient, BigInteger(std::int64_t{2}))
                           .second.is_zero();
  if (half > 0 || (half == 0 && (fraction > 0 || is_odd))) {
    quotient = BigInteger::add(quotient, BigInteger(std::int64_t{1}));
  }
  const double result = BigInteger::multiply(quotient, unit).to_double();
  if (std::isinf(result)) {
    fail(ErrorKind::InvalidInput, "round: the result is too large for a float");
  }
  return is_negative ? -result : result;
}

// round() of an integer to tens: half to even.
Value rounded_to_tens(
    const Heap& heap,
    const Value& value,
    std::int64_t digits) {
  const Value ten(std::int64_t{10});
  if (digits >= 0) {
    return heap.integer(value.big());
  }
  // More tens than the number has digits leave 0.
  const auto most = static_cast<std::int64_t>(value.big().bit_length());
  if (digits < -most - 1) {
    return Value(std::int64_t{0});
  }
  const Value unit = binary(heap, Operator::Power, ten, Value(-digits));
  const Value rest = binary(heap, Operator::Modulo, value, unit);
  const Value floor = binary(heap, Operator::Subtract, value, rest);
  const Value doubled = binary(heap, Operator::Add, rest, rest);
  const Value quotient = binary(heap, Operator::FloorDivide, floor, unit);
  const Value parity =
      binary(heap, Operator::Modulo, quotient, Value(std::int64_t{2}));
  const bool goes_up = less(heap.budget(), unit, doubled) ||
      (equal(heap.budget(), unit, doubled) && is_true(parity));
  return goes_up ? binary(heap, Operator::Add, floor, unit) : floor;
}

// value * 10 ** precision, up or down, / 10 ** precision.
Value rounded_towards(
    const Heap& heap,
    const Value& value,
    const Value& precision,
    bool is_up) {
  const Value scale =
      binary(heap, Operator::Power, Value(std::int64_t{10}), precision);
  Value scaled = binary(heap, Operator::Multiply, value, scale);
  if (scaled.is(Type::Float)) {
    if (!std::isfinite(scaled.real())) {
      fail(ErrorKind::InvalidInput, "round: found no finite number");
    }
    const double whole =
        is_up ? std::ceil(scaled.real()) : std::floor(scaled.real());
    scaled = heap.integer(BigInteger(whole));
  }
  return binary(heap, Operator::Divide, scaled, scale);
}

Value filter_round(Interpreter& in, const Value& self, Arguments& arguments) {
  const Parameters p("round", arguments, {"precision", "method"});
  const std::string_view method = p.text(1, "common");
  require_number("round", self);
  if (method == "ceil" || method == "floor") {
    const Value precision = p.has(0) ? p[0] : Value(std::int64_t{0});
    return rounded_towards(in.heap(), self, precision, method == "ceil");
  }
  if (method != "common") {
    fail(
        ErrorKind::InvalidInput,
        "round: found method {}, expected common, ceil or floor",
        quote(method));
  }
  const std::int64_t precision = p.integer_or_none(0, 0);
  if (self.is_integral()) {
    return rounded_to_tens(in.heap(), self, precision);
  }
  if (p.has(0) && p[0].is_none()) { // to an integer
    if (!std::isfinite(self.real())) {
      fail(ErrorKind::InvalidInput, "round: found no finite number");
    }
    return in.heap().integer(BigInteger(rounded(self.real(), 0)));
  }
  return Value(rounded(self.real(), precision));
}

Value filter_filesizeformat(
    Interpreter& in,
    const Value& self,
    Arguments& arguments) {
  const Parameters p("filesizeformat", arguments, {"binary"});
  const auto bytes = to_float(self);
  if (!bytes) {
    fail(
        ErrorKind::InvalidInput,
        "filesizeformat: found a {}, expected a number",
        type_name(self));
  }
  const bool is_binary = p.boolean(0, false);
  const double base = is_binary ? 1024 : 1000;
  if (*bytes == 1) {
    return in.heap().string("1 Byte");
  }
  if (*bytes < base) {
    if (!std::isfinite(*bytes)) {
      fail(ErrorKind::InvalidInput, "filesizeformat: found no finite number");
    }
    const Value whole = in.heap().integer(BigInteger(*bytes));
    return in.heap().string(decimal(whole) + " Bytes");
  }
  constexpr std::string_view kLetters = "kMGTPEZY";
  double unit = base;
  std::size_t i = 0;
  for (; i < kLetters.size(); ++i) {
    unit *= base;
    if (*bytes < unit) {
      break;
    }
  }
  const char letter = kLetters[std::min(i, kLetters.size() - 1)];
  std::string out = fmt::format("{:.1f} ", base * *bytes / unit);
  out += is_binary && letter == 'k' ? 'K' : letter;
  return in.heap().string(out + (is_binary ? "iB" : "B"));
}

constexpr Builtin kFilters[] = {
    {"abs", filter_abs},
    {"filesizeformat", filter_filesizeformat},
    {"float", filter_float},
    {"int", filter_int},
    {"round", filter_round},
};

} // namespace

std::span<const Builtin> number_filters() {
  return kFilters;
}

} // namespace optiq::text::jinja
