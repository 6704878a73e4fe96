// Python's operators on values; those on numbers are in arithmetic.cpp.
#include <algorithm>

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
  require_defined(a);
  require_defined(b);
  fail(
      ErrorKind::InvalidInput,
      "unsupported operand types for {}: '{}' and '{}'",
      kSigns[static_cast<int>(op)],
      type_name(a),
      type_name(b));
}

Value join_text(const Heap& heap, const String& a, const String& b) {
  const bool is_markup = a.is_markup || b.is_markup;
  Text out = heap.text();
  for (const String* side : {&a, &b}) {
    if (is_markup && !side->is_markup) {
      write_escaped(out, side->text);
    } else {
      out.append(side->text);
    }
  }
  return heap.string(std::move(out), is_markup);
}

Value repeat(const Heap& heap, const Value& value, const Value& count) {
  if (!count.is_small()) {
    fail(
        count.large().is_negative() ? ErrorKind::InvalidInput
                                    : ErrorKind::Exhausted,
        "found a factor that does not fit into 64 bits");
  }
  const auto n =
      static_cast<std::size_t>(std::max<std::int64_t>(count.integer(), 0));
  if (value.is_string()) {
    Text text = heap.text();
    text.append_times(value.text(), n);
    return heap.string(std::move(text), value.is_markup());
  }
  const Items& unit = value.items();
  Items items = heap.items();
  std::size_t total = 0;
  if (__builtin_mul_overflow(n, unit.size(), &total)) {
    total = static_cast<std::size_t>(-1);
  }
  items.reserve(total);
  for (std::size_t i = 0; total > 0 && i < n; ++i) {
    items.append(unit);
  }
  return heap.sequence(value.sequence().kind, std::move(items));
}

bool is_repeatable(const Value& value) {
  return value.is_string() || value.is(SequenceKind::List) ||
      value.is(SequenceKind::Tuple);
}

Value add_sequences(const Heap& heap, const Value& a, const Value& b) {
  Items items = heap.items();
  items.reserve(a.items().size() + b.items().size());
  items.append(a.items());
  items.append(b.items());
  return heap.sequence(a.sequence().kind, std::move(items));
}

Value arithmetic(
    const Heap& heap,
    Operator op,
    const Value& left,
    const Value& right) {
  if (left.is_number() && right.is_number()) {
    return number_operation(heap, op, left, right);
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
      return repeat(heap, left, right);
    }
    if (is_repeatable(right) && left.is_integral()) {
      return repeat(heap, right, left);
    }
  }
  wrong_types(op, left, right);
}

// Of an index of any length, as a slice takes it.
std::int64_t clamped(const Value& index) {
  return index.is_small()           ? index.integer()
      : index.large().is_negative() ? -INT64_MAX
                                    : INT64_MAX;
}

struct Bounds {
  std::int64_t start;
  std::int64_t stop;
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
  const std::int64_t by = step.is_none() ? 1 : clamped(step);
  if (by == 0) {
    fail(ErrorKind::InvalidInput, "slice step cannot be zero");
  }
  const std::int64_t low = by < 0 ? -1 : 0;
  const std::int64_t high = by < 0 ? n - 1 : n;
  const auto clamp = [&](const Value& part, std::int64_t otherwise) {
    if (part.is_none()) {
      return otherwise;
    }
    const std::int64_t i = clamped(part);
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
  return {from, to, by, count};
}

Value slice_text(const Heap& heap, const String& s, const Bounds& bounds) {
  const std::string_view text = s.text;
  const auto start = static_cast<std::size_t>(bounds.start);
  const auto count = static_cast<std::size_t>(bounds.count);
  const bool is_ascii = s.length == text.size();
  meter(heap.budget(), is_ascii ? count : text.size());
  if (bounds.count == 0) {
    return heap.string("", s.is_markup);
  }
  if (bounds.step == 1) {
    const std::size_t begin = is_ascii ? start : offset_of(text, start);
    const std::string_view rest = text.substr(begin);
    const std::size_t size = is_ascii ? count : offset_of(rest, count);
    return heap.string(rest.substr(0, size), s.is_markup);
  }
  const Charge charge(
      heap.budget(), is_ascii ? 0 : (s.length + 1) * sizeof(std::size_t));
  const std::vector<std::size_t> offsets =
      is_ascii ? std::vector<std::size_t>{} : code_point_offsets(text);
  Text out = heap.text();
  for (std::int64_t i = 0; i < bounds.count; ++i) {
    const auto at = static_cast<std::size_t>(bounds.start + i * bounds.step);
    out.append(
        is_ascii ? text.substr(at, 1)
                 : text.substr(offsets[at], offsets[at + 1] - offsets[at]));
  }
  return heap.string(std::move(out), s.is_markup);
}

Value slice_range(
    const Heap& heap,
    const Sequence& range,
    const Bounds& cut,
    const Value& step) {
  const auto times_step = [&](std::int64_t factor) {
    return binary(heap, Operator::Multiply, range.range->step, Value(factor));
  };
  const auto at = [&](std::int64_t index) {
    return binary(heap, Operator::Add, range.range->start, times_step(index));
  };
  return heap.range(
      {at(cut.start),
       at(cut.stop),
       binary(heap, Operator::Multiply, range.range->step, step)},
      static_cast<std::size_t>(cut.count));
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
    meter(heap.budget(), container.text().size() + item.text().size());
    if (heap.budget() != nullptr) {
      heap.budget()->require(4 * item.text().size()); // what Finder takes
    }
    return item.text().empty() ||
        Finder(item.text(), false).find(container.text()) !=
        std::string_view::npos;
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
  const Items items = iterate(heap, container);
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
    require_defined(container);
    fail(
        ErrorKind::InvalidInput,
        "'{}' object cannot be sliced: expected a list or string",
        type_name(container));
  }
  const auto n = static_cast<std::int64_t>(*length_of(container));
  const Bounds bounds = bounds_of(start, stop, step, n);
  if (container.is_string()) {
    return slice_text(heap, container.string(), bounds);
  }
  const Sequence& sequence = container.sequence();
  if (sequence.kind == SequenceKind::Range) {
    return slice_range(
        heap, sequence, bounds, step.is_none() ? Value(std::int64_t{1}) : step);
  }
  Items items = heap.items();
  items.reserve(static_cast<std::size_t>(bounds.count));
  for (std::int64_t i = 0; i < bounds.count; ++i) {
    const std::int64_t at = bounds.start + i * bounds.step;
    items.push(sequence.items[static_cast<std::size_t>(at)]);
  }
  return heap.sequence(sequence.kind, std::move(items));
}

} // namespace optiq::text::jinja
