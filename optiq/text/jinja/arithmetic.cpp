// Python's arithmetic on numbers: integers of any length, and floats.
#include <cmath>

#include "optiq/base/error.h"
#include "optiq/text/jinja/builtins_impl.h"

namespace optiq::text::jinja {
namespace {

void require_nonzero(const Value& divisor) {
  if (!is_true(divisor)) {
    fail(ErrorKind::InvalidInput, "division by zero");
  }
}

// Charges for an operation on two long integers before it runs: `products` of
// limbs, and memory for the result and what it is made from.
void charge(const Heap& heap, std::size_t products, std::size_t limbs) {
  if (heap.budget() != nullptr) {
    heap.budget()->require(16 * limbs);
    heap.budget()->work(products + 16 * limbs);
  }
}

BigInteger
multiply(const Heap& heap, const BigInteger& a, const BigInteger& b) {
  charge(heap, a.size() * b.size(), a.size() + b.size());
  return BigInteger::multiply(a, b);
}

std::pair<BigInteger, BigInteger>
divide(const Heap& heap, const BigInteger& a, const BigInteger& b) {
  charge(heap, a.size() * b.size(), a.size() + b.size());
  return BigInteger::divide(a, b);
}

Value power(const Heap& heap, const Value& left, const Value& right) {
  if (!right.is_small()) {
    // 0, 1 and -1 have such powers; all others are beyond any memory.
    const BigInteger base = left.big();
    const auto small = base.to_int64();
    if (!small || *small < -1 || *small > 1) {
      fail(ErrorKind::Exhausted, "found a power with more digits than memory");
    }
    const BigInteger two(std::int64_t{2});
    const bool is_odd = !divide(heap, right.big(), two).second.is_zero();
    return Value(*small == -1 && !is_odd ? std::int64_t{1} : *small);
  }
  std::int64_t exponent = right.integer();
  BigInteger base = left.big();
  BigInteger result(std::int64_t{1});
  while (exponent > 0) {
    if ((exponent & 1) != 0) {
      result = multiply(heap, result, base);
    }
    exponent >>= 1;
    if (exponent > 0) {
      base = multiply(heap, base, base);
    }
  }
  return heap.integer(result);
}

// Rounded once, as Python divides integers.
Value quotient(const Heap& heap, const Value& left, const Value& right) {
  require_nonzero(right);
  const BigInteger a = left.big();
  const BigInteger b = right.big();
  charge(heap, a.size() * b.size(), a.size() + b.size() + 4);
  const double result = BigInteger::ratio(a, b);
  if (std::isinf(result)) {
    fail(ErrorKind::InvalidInput, "found a quotient too large for a float");
  }
  return Value(result);
}

// Of integers of 64 bits, when the result is one too.
std::optional<std::int64_t>
small_operation(Operator op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  switch (op) {
    case Operator::Add:
      return __builtin_add_overflow(a, b, &result) ? std::nullopt
                                                   : std::optional(result);
    case Operator::Subtract:
      return __builtin_sub_overflow(a, b, &result) ? std::nullopt
                                                   : std::optional(result);
    case Operator::Multiply:
      return __builtin_mul_overflow(a, b, &result) ? std::nullopt
                                                   : std::optional(result);
    default:
      return std::nullopt;
  }
}

Value float_operation(Operator op, const Value& left, const Value& right);

Value integer_operation(
    const Heap& heap,
    Operator op,
    const Value& left,
    const Value& right) {
  if (left.is_small() && right.is_small()) {
    if (const auto result =
            small_operation(op, left.integer(), right.integer())) {
      return Value(*result);
    }
  }
  if (op == Operator::Divide) {
    return quotient(heap, left, right);
  }
  const BigInteger a = left.big();
  const BigInteger b = right.big();
  charge(heap, 0, a.size() + b.size());
  switch (op) {
    case Operator::Add:
      return heap.integer(BigInteger::add(a, b));
    case Operator::Subtract:
      return heap.integer(BigInteger::add(a, b.negated()));
    case Operator::Multiply:
      return heap.integer(multiply(heap, a, b));
    case Operator::Power:
      return b.is_negative() ? float_operation(op, left, right)
                             : power(heap, left, right);
    default: {
      require_nonzero(right);
      const auto [floor, rest] = divide(heap, a, b);
      return heap.integer(op == Operator::Modulo ? rest : floor);
    }
  }
}

Value float_operation(Operator op, const Value& left, const Value& right) {
  const double a = left.real();
  const double b = right.real();
  switch (op) {
    case Operator::Add:
      return Value(a + b);
    case Operator::Subtract:
      return Value(a - b);
    case Operator::Multiply:
      return Value(a * b);
    case Operator::Divide:
      require_nonzero(right);
      return Value(a / b);
    case Operator::Power: {
      if (a == 0 && b < 0) {
        require_nonzero(left);
      }
      const double result = std::pow(a, b);
      if (std::isnan(result) && !std::isnan(a) && !std::isnan(b)) {
        fail(ErrorKind::Unsupported, "result of ** is a complex number");
      }
      if (std::isinf(result) && !std::isinf(a) && !std::isinf(b)) {
        fail(ErrorKind::InvalidInput, "result of ** is too large");
      }
      return Value(result);
    }
    default: {
      require_nonzero(right);
      double remainder = std::fmod(a, b);
      double quotient = (a - remainder) / b;
      if (remainder != 0 && (remainder < 0) != (b < 0)) {
        remainder += b;
        quotient -= 1;
      }
      if (op == Operator::Modulo) {
        return Value(remainder == 0 ? std::copysign(0.0, b) : remainder);
      }
      const double floor = std::floor(quotient);
      return Value(
          quotient == 0                ? std::copysign(0.0, a / b)
              : quotient - floor > 0.5 ? floor + 1
                                       : floor);
    }
  }
}

} // namespace

Value number_operation(
    const Heap& heap,
    Operator op,
    const Value& left,
    const Value& right) {
  return left.is_integral() && right.is_integral()
      ? integer_operation(heap, op, left, right)
      : float_operation(op, left, right);
}

Value negated(const Heap& heap, const Value& number) {
  return number.is(Type::Float) ? Value(-number.real())
                                : heap.integer(number.big().negated());
}

} // namespace optiq::text::jinja
