// Equality, order and hashing of values, as Python has them.
#include <algorithm>
#include <cmath>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"

namespace optiq::text::jinja {
namespace {

bool equal_items(Budget* budget, const Items& a, const Items& b, int nesting) {
  return std::equal(
      a.begin(), a.end(), b.begin(), b.end(), [=](auto& x, auto& y) {
        return equal(budget, x, y, nesting + 1);
      });
}

bool equal_dicts(Budget* budget, const Dict& a, const Dict& b, int nesting) {
  if (a.items().size() != b.items().size()) {
    return false;
  }
  return std::all_of(a.items().begin(), a.items().end(), [&](const auto& item) {
    const Value* other = b.find(hash_key(budget, item.first));
    return other != nullptr && equal(budget, item.second, *other, nesting + 1);
  });
}

// Views of keys and items are sets: their order does not count.
bool equal_views(Budget* budget, const Items& a, const Items& b, int nesting) {
  return a.size() == b.size() &&
      std::all_of(a.begin(), a.end(), [&](const Value& x) {
           return std::any_of(b.begin(), b.end(), [&](const Value& y) {
             return equal(budget, x, y, nesting + 1);
           });
         });
}

bool equal_sequences(
    Budget* budget,
    const Sequence& a,
    const Sequence& b,
    int nesting) {
  if (&a == &b) {
    return true;
  }
  if (a.kind != b.kind || a.kind == SequenceKind::Values) {
    return false;
  }
  const bool is_view =
      a.kind == SequenceKind::Keys || a.kind == SequenceKind::Items;
  return (is_view ? equal_views : equal_items)(
      budget, a.items, b.items, nesting);
}

bool equal_strings(Budget* budget, const std::string& a, const std::string& b) {
  if (a.size() != b.size()) {
    return false;
  }
  meter(budget, a.size());
  return a == b;
}

// A leading NUL marks keys that are not text.
std::string not_text(std::string_view key) {
  std::string out(1, '\0');
  out += key;
  return out;
}

// Of an integral value and a float that is no NaN; exact.
int compare_with_float(const Value& a, double b) {
  if (std::isinf(b)) {
    return b < 0 ? 1 : -1;
  }
  const double whole = std::trunc(b);
  const int order = BigInteger::compare(a.big(), BigInteger(whole));
  return order != 0 ? order : whole < b ? -1 : whole > b;
}

int compare_numbers(Budget* budget, const Value& a, const Value& b) {
  if (a.is_small() && b.is_small()) {
    return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
  }
  meter(budget, bytes_of(a) + bytes_of(b));
  if (a.is_integral() && b.is_integral()) {
    return BigInteger::compare(a.big(), b.big());
  }
  if (a.is_integral()) {
    return compare_with_float(a, b.real());
  }
  if (b.is_integral()) {
    return -compare_with_float(b, a.real());
  }
  return a.real() < b.real() ? -1 : a.real() > b.real();
}

bool is_nan(const Value& value) {
  return value.is(Type::Float) && std::isnan(value.real());
}

std::string number_key(const BigInteger& value) {
  return not_text((value.is_negative() ? "n-" : "n") + value.digits(16));
}

std::string tuple_key(Budget* budget, const Items& items) {
  Text key(budget);
  key.append(not_text("t"));
  for (const Value& item : items) {
    const std::string part = hash_key(budget, item);
    key.append(fmt::format("{}:", part.size()));
    key.append(part);
  }
  return key.take().first;
}

} // namespace

std::string hash_key(Budget* budget, const Value& value) {
  meter(budget, bytes_of(value));
  if (budget != nullptr) {
    budget->require(2 * bytes_of(value));
  }
  const auto of_object = [](const auto& object) {
    return not_text(fmt::format("o{}", static_cast<const void*>(&object)));
  };
  switch (value.type()) {
    case Type::String:
      return value.text().starts_with('\0') ? not_text("s" + value.text())
                                            : value.text();
    case Type::Bool:
    case Type::Int:
    case Type::LargeInt:
      return number_key(value.big());
    case Type::Float: {
      const double x = value.real();
      return std::isfinite(x) && x == std::trunc(x)
          ? number_key(BigInteger(x))
          : not_text(fmt::format("f{}", x));
    }
    case Type::None:
      return not_text("N");
    case Type::Undefined:
      return not_text("U");
    case Type::Namespace:
      return of_object(value.name_space());
    case Type::Macro:
      return of_object(value.macro());
    case Type::Iterator:
      return of_object(value.iterator());
    case Type::Cycler:
      return of_object(value.cycler());
    case Type::Joiner:
      return of_object(value.joiner());
    default:
      break;
  }
  if (value.is(SequenceKind::Range)) { // equal items, equal ranges
    return not_text("r") + tuple_key(budget, value.items());
  }
  if (value.is(SequenceKind::Tuple)) {
    return tuple_key(budget, value.items());
  }
  fail(
      ErrorKind::InvalidInput,
      "unhashable type '{}': found it as a key, expected a string",
      type_name(value));
}

bool is_true(const Value& value) {
  switch (value.type()) {
    case Type::Undefined:
    case Type::None:
      return false;
    case Type::Bool:
    case Type::Int:
      return value.integer() != 0;
    case Type::Float:
      return value.real() != 0;
    default: {
      const auto length = length_of(value);
      return !length || *length != 0;
    }
  }
}

bool equal(Budget* budget, const Value& a, const Value& b, int nesting) {
  meter(budget);
  if (a.is_number() && b.is_number()) {
    return !is_nan(a) && !is_nan(b) && compare_numbers(budget, a, b) == 0;
  }
  if (a.type() != b.type()) {
    return false;
  }
  switch (a.type()) {
    case Type::Undefined:
    case Type::None:
      return true;
    case Type::String:
      return equal_strings(budget, a.text(), b.text());
    case Type::Sequence:
      return equal_sequences(budget, a.sequence(), b.sequence(), nesting);
    case Type::Dict:
      return &a.dict() == &b.dict() ||
          equal_dicts(budget, a.dict(), b.dict(), nesting);
    case Type::Iterator:
      return &a.iterator() == &b.iterator();
    case Type::Function:
      return a.function().builtin == b.function().builtin &&
          equal(budget, a.function().self, b.function().self, nesting + 1);
    case Type::Loop:
      return &a.loop() == &b.loop();
    case Type::Namespace:
      return &a.name_space() == &b.name_space();
    case Type::Cycler:
      return &a.cycler() == &b.cycler();
    case Type::Joiner:
      return &a.joiner() == &b.joiner();
    default:
      return &a.macro() == &b.macro();
  }
}

bool less(Budget* budget, const Value& a, const Value& b) {
  meter(budget);
  if (a.is_number() && b.is_number()) {
    return !is_nan(a) && !is_nan(b) && compare_numbers(budget, a, b) < 0;
  }
  if (a.is_string() && b.is_string()) {
    meter(budget, std::min(a.text().size(), b.text().size()));
    return a.text() < b.text(); // UTF-8 sorts as code points do
  }
  if (a.is(Type::Sequence) && b.is(Type::Sequence) &&
      a.sequence().kind == b.sequence().kind &&
      (a.is(SequenceKind::List) || a.is(SequenceKind::Tuple))) {
    const Items& x = a.items();
    const Items& y = b.items();
    for (std::size_t i = 0; i < x.size() && i < y.size(); ++i) {
      if (!equal(budget, x[i], y[i])) {
        return less(budget, x[i], y[i]);
      }
    }
    return x.size() < y.size();
  }
  require_defined(a);
  require_defined(b);
  fail(
      ErrorKind::InvalidInput,
      "'{}' and '{}' have no order: expected two numbers, strings or lists",
      type_name(a),
      type_name(b));
}

} // namespace optiq::text::jinja
