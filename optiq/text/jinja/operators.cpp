// Python's operators on values.
#include <algorithm>
#include <cmath>
#include <functional>

#include "optiq/base/error.h"
#include "optiq/text/jinja/builtins_impl.h"
#include "optiq/text/jinja/syntax_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

constexpr const char* kSigns[] = {
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "**",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "in",
    "not in"};

[[noreturn]] void wrong_types(Operator op, const Value& a, const Value& b) {
  if (a.is_undefined() || b.is_undefined()) {
    fail(
        ErrorKind::InvalidInput,
        "{}",
        *(a.is_undefined() ? a : b).undefined().reason);
  }
  fail(
      ErrorKind::InvalidInput,
      "unsupported operand types for {}: '{}' and '{}'",
      kSigns[static_cast<int>(op)],
      type_name(a),
      type_name(b));
}

[[noreturn]] void too_large(Operator op) {
  fail(
      ErrorKind::Exhausted,
      "result of {} needs more than 64 bits, the limit of integers here",
      kSigns[static_cast<int>(op)]);
}

void require_nonzero(const Value& divisor) {
  if (divisor.real() == 0) {
    fail(ErrorKind::InvalidInput, "division by zero");
  }
}

std::int64_t power(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) {
      too_large(Operator::Power);
    }
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) {
      too_large(Operator::Power);
    }
  }
  return result;
}

Value integer_operation(Operator op, const Value& left, const Value& right) {
  const std::int64_t a = left.integer();
  const std::int64_t b = right.integer();
  std::int64_t result = 0;
  bool overflows = false;
  switch (op) {
    case Operator::Add:
      overflows = __builtin_add_overflow(a, b, &result);
      break;
    case Operator::Subtract:
      overflows = __builtin_sub_overflow(a, b, &result);
      break;
    case Operator::Multiply:
      overflows = __builtin_mul_overflow(a, b, &result);
      break;
    case Operator::Divide:
      require_nonzero(right);
      return Value(static_cast<double>(static_cast<long double>(a) / b));
    case Operator::Power:
      if (b < 0) {
        require_nonzero(left);
        return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
      }
      return Value(power(a, b));
    default: { // quotient rounded down, remainder of the divisor's sign
      require_nonzero(right);
      if (b == -1) { // the machine's division traps on the smallest integer
        overflows = __builtin_sub_overflow(std::int64_t{0}, a, &result);
        result = op == Operator::Modulo ? 0 : result;
        overflows = overflows && op == Operator::FloorDivide;
        break;
      }
      const std::int64_t remainder = a % b;
      const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
      result = op == Operator::Modulo ? remainder + (adjust ? b : 0)
                                      : a / b - (adjust ? 1 : 0);
    }
  }
  if (overflows) {
    too_large(op);
  }
  return Value(result);
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

Value join_text(const Heap& heap, const String& a, const String& b) {
  const bool is_markup = a.is_markup || b.is_markup;
  const auto side = [&](const String& s) {
    return is_markup && !s.is_markup ? escape_html(s.text) : s.text;
  };
  return heap.string(side(a) + side(b), is_markup);
}

Value repeat(const Heap& heap, const Value& value, std::int64_t count) {
  const std::size_t n = count < 0 ? 0 : static_cast<std::size_t>(count);
  const std::size_t bytes = value.is_string()
      ? value.text().size()
      : value.sequence().items.size() * sizeof(Value);
  std::size_t total = 0;
  if (__builtin_mul_overflow(n, bytes, &total)) {
    total = static_cast<std::size_t>(-1) / 2;
  }
  if (heap.budget() != nullptr) {
    heap.budget()->require(total);
    heap.budget()->work(total);
  }
  if (value.is_string()) {
    std::string text;
    text.reserve(total);
    for (std::size_t i = 0; bytes > 0 && i < n; ++i) {
      text += value.text();
    }
    return heap.string(std::move(text), value.string().is_markup);
  }
  std::vector<Value> items;
  const auto& unit = value.sequence().items;
  for (std::size_t i = 0; !unit.empty() && i < n; ++i) {
    items.insert(items.end(), unit.begin(), unit.end());
  }
  return heap.sequence(value.sequence().kind, std::move(items));
}

bool is_repeatable(const Value& value) {
  return value.is_string() || value.is(SequenceKind::List) ||
      value.is(SequenceKind::Tuple);
}

Value add_sequences(const Heap& heap, const Value& a, const Value& b) {
  std::vector<Value> items = a.sequence().items;
  const auto& more = b.sequence().items;
  items.insert(items.end(), more.begin(), more.end());
  return heap.sequence(a.sequence().kind, std::move(items));
}

Value arithmetic(
    const Heap& heap,
    Operator op,
    const Value& left,
    const Value& right) {
  if (left.is_number() && right.is_number()) {
    return left.is_integral() && right.is_integral()
        ? integer_operation(op, left, right)
        : float_operation(op, left, right);
  }
  if (op == Operator::Add) {
    if (left.is_string() && right.is_string()) {
      return join_text(heap, left.string(), right.string());
    }
    if (left.is(Type::Sequence) && is_repeatable(left) &&
        right.is(Type::Sequence) &&
        left.sequence().kind == right.sequence().kind) {
      return add_sequences(heap, left, right);
    }
  }
  if (op == Operator::Multiply) {
    if (is_repeatable(left) && right.is_integral()) {
      return repeat(heap, left, right.integer());
    }
    if (is_repeatable(right) && left.is_integral()) {
      return repeat(heap, right, left.integer());
    }
  }
  wrong_types(op, left, right);
}

struct Bounds {
  std::int64_t start;
  std::int64_t step;
  std::int64_t count;
};

// What slice(start, stop, step).indices(n) selects.
Bounds bounds_of(
    const Value& start,
    const Value& stop,
    const Value& step,
    std::int64_t n) {
  for (const Value* part : {&start, &stop, &step}) {
    if (!part->is_none() && !part->is_integral()) {
      fail(
          ErrorKind::InvalidInput,
          "found a {} in a slice, expected an integer",
          type_name(*part));
    }
  }
  const std::int64_t by = step.is_none() ? 1 : step.integer();
  if (by == 0) {
    fail(ErrorKind::InvalidInput, "slice step cannot be zero");
  }
  const std::int64_t low = by < 0 ? -1 : 0;
  const std::int64_t high = by < 0 ? n - 1 : n;
  const auto clamp = [&](const Value& part, std::int64_t otherwise) {
    if (part.is_none()) {
      return otherwise;
    }
    const std::int64_t i = part.integer();
    return std::clamp(i < 0 ? std::max(i, -n - 1) + n : i, low, high);
  };
  const std::int64_t from = clamp(start, by < 0 ? high : low);
  const std::int64_t to = clamp(stop, by < 0 ? low : high);
  std::int64_t count = 0;
  if (by > 0 && from < to) {
    count = (to - from - 1) / by + 1;
  } else if (by < 0 && from > to) {
    const std::int64_t stride = by == INT64_MIN ? INT64_MAX : -by;
    count = (from - to - 1) / stride + 1;
  }
  return {from, by, count};
}

std::string slice_text(const String& s, const Bounds& bounds) {
  std::string out;
  const bool is_ascii = s.length == s.text.size();
  if (is_ascii && bounds.step == 1) {
    return s.text.substr(
        static_cast<std::size_t>(bounds.start),
        static_cast<std::size_t>(bounds.count));
  }
  const std::vector<std::size_t> offsets =
      is_ascii ? std::vector<std::size_t>{} : code_point_offsets(s.text);
  for (std::int64_t i = 0; i < bounds.count; ++i) {
    const auto index = static_cast<std::size_t>(bounds.start + i * bounds.step);
    if (is_ascii) {
      out += s.text[index];
    } else {
      out.append(s.text, offsets[index], offsets[index + 1] - offsets[index]);
    }
  }
  return out;
}

} // namespace

Value binary(
    const Heap& heap,
    Operator op,
    const Value& left,
    const Value& right) {
  Budget* budget = heap.budget();
  switch (op) {
    case Operator::Equal:
      return Value(equal(budget, left, right));
    case Operator::NotEqual:
      return Value(!equal(budget, left, right));
    case Operator::Less:
      return Value(less(budget, left, right));
    case Operator::Greater:
      return Value(less(budget, right, left));
    case Operator::LessEqual:
    case Operator::GreaterEqual: {
      const bool is_less = op == Operator::LessEqual
          ? less(budget, left, right)
          : less(budget, right, left);
      return Value(is_less || equal(budget, left, right));
    }
    case Operator::In:
      return Value(contains(heap, right, left));
    case Operator::NotIn:
      return Value(!contains(heap, right, left));
    default:
      return arithmetic(heap, op, left, right);
  }
}

bool contains(const Heap& heap, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) {
      wrong_types(Operator::In, item, container);
    }
    heap.budget()->work(container.text().size());
    return container.text().find(item.text()) != std::string::npos;
  }
  if (container.is(Type::Dict)) {
    return container.dict().find(hash_key(heap.budget(), item)) != nullptr;
  }
  if (!is_iterable(container)) {
    wrong_types(Operator::In, item, container);
  }
  if (container.is(Type::Iterator)) { // used up only as far as needed
    Iterator& it = container.iterator();
    while (it.next < it.items.size()) {
      if (equal(heap.budget(), it.items[it.next++], item)) {
        return true;
      }
    }
    return false;
  }
  const std::vector<Value> items = iterate(heap, container);
  return std::any_of(items.begin(), items.end(), [&](const Value& one) {
    return equal(heap.budget(), one, item);
  });
}

Value slice(
    const Heap& heap,
    const Value& container,
    const Value& start,
    const Value& stop,
    const Value& step) {
  const bool is_sliceable =
      is_repeatable(container) || container.is(SequenceKind::Range);
  if (!is_sliceable) {
    if (container.is_undefined()) {
      fail(ErrorKind::InvalidInput, "{}", *container.undefined().reason);
    }
    fail(
        ErrorKind::InvalidInput,
        "'{}' object cannot be sliced: expected a list or string",
        type_name(container));
  }
  const auto n = static_cast<std::int64_t>(*length_of(container));
  const Bounds bounds = bounds_of(start, stop, step, n);
  if (container.is_string()) {
    const String& s = container.string();
    heap.budget()->work(s.length == s.text.size() ? 0 : s.text.size());
    return heap.string(slice_text(s, bounds), s.is_markup);
  }
  const Sequence& sequence = container.sequence();
  if (sequence.kind == SequenceKind::Range) {
    const std::int64_t by = sequence.range[2];
    std::int64_t stride = 0;
    if (__builtin_mul_overflow(by, bounds.step, &stride) ||
        __builtin_mul_overflow(bounds.count, stride, &stride)) {
      too_large(Operator::Multiply);
    }
    const std::int64_t first = sequence.range[0] + bounds.start * by;
    return heap.range(
        first,
        first + stride,
        by * bounds.step,
        static_cast<std::size_t>(bounds.count));
  }
  std::vector<Value> items;
  for (std::int64_t i = 0; i < bounds.count; ++i) {
    const std::int64_t at = bounds.start + i * bounds.step;
    items.push_back(sequence.items[static_cast<std::size_t>(at)]);
  }
  return heap.sequence(sequence.kind, std::move(items));
}

} // namespace optiq::text::jinja
