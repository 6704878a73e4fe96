#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"
#include "optiq/text/jinja/value_impl.h"

namespace optiq::text::jinja {
namespace {

int nesting_of(const Value& value) {
  if (value.is(Type::Sequence)) {
    return value.sequence().nesting;
  }
  return value.is(Type::Dict) ? value.dict().nesting : 0;
}

constexpr std::size_t kObjectBytes = 64; // an object's header, about

bool equal_items(
    Budget* budget,
    const std::vector<Value>& a,
    const std::vector<Value>& b,
    int nesting) {
  return std::equal(
      a.begin(), a.end(), b.begin(), b.end(), [=](auto& x, auto& y) {
        return equal(budget, x, y, nesting + 1);
      });
}

bool equal_dicts(Budget* budget, const Dict& a, const Dict& b, int nesting) {
  if (a.items.size() != b.items.size()) {
    return false;
  }
  return std::all_of(a.items.begin(), a.items.end(), [&](const auto& item) {
    const Value* other = b.find(hash_key(budget, item.first));
    return other != nullptr && equal(budget, item.second, *other, nesting + 1);
  });
}

// A leading NUL marks keys that are not text.
std::string not_text(const std::string& key) {
  std::string out(1, '\0');
  out += key;
  return out;
}

// Exact even where a 64-bit integer has no double of its own.
int compare_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
  }
  const long double x =
      a.is_integral() ? static_cast<long double>(a.integer()) : a.real();
  const long double y =
      b.is_integral() ? static_cast<long double>(b.integer()) : b.real();
  return x < y ? -1 : x > y;
}

bool has_nan(const Value& a, const Value& b) {
  return std::isnan(a.real()) || std::isnan(b.real());
}

} // namespace

void require_nesting(int nesting) {
  if (nesting > kMaxNesting) {
    fail(
        ErrorKind::Exhausted,
        "lists or dicts are nested more than {} deep. Flatten the data",
        kMaxNesting);
  }
}

void meter(Budget* budget, std::size_t bytes) {
  if (budget != nullptr) {
    budget->work(bytes);
  }
}

String::String(Budget* budget, std::string value, bool markup)
    : text(std::move(value)),
      length(count_code_points(text)),
      is_markup(markup),
      charge(budget, text.size() + kObjectBytes) {}

Sequence::Sequence(Budget* budget, SequenceKind k, std::vector<Value> values)
    : kind(k),
      items(std::move(values)),
      charge(budget, items.size() * sizeof(Value) + kObjectBytes) {
  for (const Value& item : items) {
    nesting = std::max(nesting, nesting_of(item) + 1);
  }
  require_nesting(nesting);
}

Dict::Dict(Budget* budget, std::vector<std::pair<Value, Value>> pairs)
    : charge(budget, pairs.size() * 160 + kObjectBytes) {
  for (auto& [key, value] : pairs) {
    nesting = std::max(nesting, nesting_of(value) + 1);
    const auto [at, is_new] =
        index.try_emplace(hash_key(budget, key), items.size());
    if (is_new) {
      items.emplace_back(std::move(key), std::move(value));
    } else {
      items[at->second].second = std::move(value);
    }
  }
  require_nesting(nesting);
}

const Value* Dict::find(const std::string& key) const {
  const auto at = index.find(key);
  return at == index.end() ? nullptr : &items[at->second].second;
}

Iterator::Iterator(Budget* budget, std::vector<Value> values)
    : items(std::move(values)),
      charge(budget, items.size() * sizeof(Value) + kObjectBytes) {}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key == name) {
      return &value;
    }
  }
  return nullptr;
}

void Namespace::assign(const std::string& name, Value value) {
  for (auto& [key, old] : attributes) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  attributes.emplace_back(name, std::move(value));
}

bool Value::is_same(const Value& other) const {
  if (type() != other.type()) {
    return false;
  }
  switch (type()) {
    case Type::Sequence:
      return &sequence() == &other.sequence();
    case Type::Dict:
      return &dict() == &other.dict();
    case Type::Iterator:
      return &iterator() == &other.iterator();
    case Type::Function:
      return &function() == &other.function();
    default:
      return equal(nullptr, *this, other);
  }
}

Value Heap::string(std::string text, bool markup) const {
  return Value(
      std::make_shared<const String>(budget_, std::move(text), markup));
}

Value Heap::sequence(SequenceKind kind, std::vector<Value> items) const {
  return Value(
      std::make_shared<const Sequence>(budget_, kind, std::move(items)));
}

Value Heap::range(
    std::int64_t start,
    std::int64_t stop,
    std::int64_t step,
    std::size_t length) const {
  std::vector<Value> items;
  items.reserve(length);
  std::int64_t at = start;
  for (std::size_t i = 0; i < length; ++i) {
    items.emplace_back(at);
    at = static_cast<std::int64_t>(
        static_cast<std::uint64_t>(at) + static_cast<std::uint64_t>(step));
  }
  auto range = std::make_shared<Sequence>(
      budget_, SequenceKind::Range, std::move(items));
  range->range[0] = start;
  range->range[1] = stop;
  range->range[2] = step;
  return Value(std::shared_ptr<const Sequence>(std::move(range)));
}

Value Heap::dict(std::vector<std::pair<Value, Value>> pairs) const {
  return Value(std::make_shared<const Dict>(budget_, std::move(pairs)));
}

Value Heap::iterator(std::vector<Value> items) const {
  return Value(std::make_shared<Iterator>(budget_, std::move(items)));
}

Value Heap::undefined(std::string reason) const {
  return Value(
      Undefined{std::make_shared<const std::string>(std::move(reason))});
}

Value Heap::from_json(const artifacts::Json& json, int nesting) const {
  require_nesting(nesting);
  switch (json.type()) {
    case artifacts::Json::value_t::boolean:
      return Value(json.get<bool>());
    case artifacts::Json::value_t::number_integer:
      return Value(json.get<std::int64_t>());
    case artifacts::Json::value_t::number_unsigned: {
      const auto n = json.get<std::uint64_t>();
      if (n > static_cast<std::uint64_t>(
                  std::numeric_limits<std::int64_t>::max())) {
        fail(
            ErrorKind::InvalidInput,
            "integer {} of the data needs more than 64 bits. Pass it as text",
            n);
      }
      return Value(static_cast<std::int64_t>(n));
    }
    case artifacts::Json::value_t::number_float:
      return Value(json.get<double>());
    case artifacts::Json::value_t::string:
      return string(json.get<std::string>());
    case artifacts::Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) {
        items.push_back(from_json(item, nesting + 1));
      }
      return list(std::move(items));
    }
    case artifacts::Json::value_t::object: {
      std::vector<std::pair<Value, Value>> pairs;
      pairs.reserve(json.size());
      for (const auto& [key, value] : json.items()) {
        pairs.emplace_back(string(key), from_json(value, nesting + 1));
      }
      return dict(std::move(pairs));
    }
    default:
      return Value();
  }
}

std::string hash_key(Budget* budget, const Value& value) {
  meter(budget, value.is_string() ? value.text().size() : 0);
  const auto of_object = [](const auto& object) {
    return not_text(fmt::format("o{}", static_cast<const void*>(&object)));
  };
  switch (value.type()) {
    case Type::String:
      return value.text().starts_with('\0') ? not_text("s" + value.text())
                                            : value.text();
    case Type::Bool:
    case Type::Int:
      return not_text(fmt::format("n{}", value.integer()));
    case Type::Float: {
      const double x = value.real();
      const bool is_integer = std::abs(x) < 0x1p62 && x == std::trunc(x);
      return not_text(
          is_integer ? fmt::format("n{}", static_cast<std::int64_t>(x))
                     : fmt::format("f{}", x));
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
    default:
      break;
  }
  if (value.is(SequenceKind::Tuple)) {
    std::string key = not_text("t");
    for (const Value& item : value.sequence().items) {
      const std::string part = hash_key(budget, item);
      meter(budget, part.size());
      key += fmt::format("{}:", part.size());
      key += part;
    }
    return key;
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
    return !has_nan(a, b) && compare_numbers(a, b) == 0;
  }
  if (a.type() != b.type()) {
    return false;
  }
  switch (a.type()) {
    case Type::Undefined:
    case Type::None:
      return true;
    case Type::String:
      return a.text() == b.text();
    case Type::Sequence:
      return a.sequence().kind == b.sequence().kind &&
          (&a.sequence() == &b.sequence() ||
           equal_items(
               budget, a.sequence().items, b.sequence().items, nesting));
    case Type::Dict:
      return &a.dict() == &b.dict() ||
          equal_dicts(budget, a.dict(), b.dict(), nesting);
    case Type::Iterator:
      return &a.iterator() == &b.iterator();
    case Type::Function:
      return a.function().name == b.function().name && a.function().self &&
          b.function().self &&
          equal(budget, *a.function().self, *b.function().self, nesting + 1);
    case Type::Loop:
      return &a.loop() == &b.loop();
    case Type::Namespace:
      return &a.name_space() == &b.name_space();
    default:
      return &a.macro() == &b.macro();
  }
}

bool less(Budget* budget, const Value& a, const Value& b) {
  meter(budget);
  if (a.is_number() && b.is_number()) {
    return !has_nan(a, b) && compare_numbers(a, b) < 0;
  }
  if (a.is_string() && b.is_string()) {
    return a.text() < b.text(); // UTF-8 sorts as code points do
  }
  if (a.is(Type::Sequence) && b.is(Type::Sequence) &&
      a.sequence().kind == b.sequence().kind &&
      (a.is(SequenceKind::List) || a.is(SequenceKind::Tuple))) {
    const auto& x = a.sequence().items;
    const auto& y = b.sequence().items;
    for (std::size_t i = 0; i < x.size() && i < y.size(); ++i) {
      if (!equal(budget, x[i], y[i])) {
        return less(budget, x[i], y[i]);
      }
    }
    return x.size() < y.size();
  }
  if (a.is_undefined() || b.is_undefined()) {
    fail(
        ErrorKind::InvalidInput,
        "{}",
        *(a.is_undefined() ? a : b).undefined().reason);
  }
  fail(
      ErrorKind::InvalidInput,
      "'{}' and '{}' have no order: expected two numbers, strings or lists",
      type_name(a),
      type_name(b));
}

const char* type_name(const Value& value) {
  if (value.is(Type::Sequence)) {
    constexpr const char* kKinds[] = {
        "list", "tuple", "range", "dict_keys", "dict_values", "dict_items"};
    return kKinds[static_cast<int>(value.sequence().kind)];
  }
  constexpr const char* kTypes[] = {
      "Undefined",
      "NoneType",
      "bool",
      "int",
      "float",
      "str",
      "list",
      "dict",
      "generator",
      "function",
      "LoopContext",
      "Namespace",
      "Macro"};
  return kTypes[static_cast<int>(value.type())];
}

bool is_iterable(const Value& value) {
  switch (value.type()) {
    case Type::Undefined:
    case Type::String:
    case Type::Sequence:
    case Type::Dict:
    case Type::Iterator:
    case Type::Loop:
      return true;
    default:
      return false;
  }
}

std::vector<Value> iterate(const Heap& heap, const Value& value) {
  std::vector<Value> items;
  switch (value.type()) {
    case Type::Undefined:
      break;
    case Type::String:
      for (std::size_t at = 0; at < value.text().size();) {
        const std::size_t next = code_point_at(value.text(), at).next;
        items.push_back(heap.string(value.text().substr(at, next - at)));
        at = next;
      }
      break;
    case Type::Sequence:
      items = value.sequence().items;
      break;
    case Type::Dict:
      for (const auto& [key, item] : value.dict().items) {
        items.push_back(key);
      }
      break;
    case Type::Iterator: {
      Iterator& it = value.iterator();
      items.assign(
          it.items.begin() + static_cast<std::ptrdiff_t>(it.next),
          it.items.end());
      it.next = it.items.size();
      break;
    }
    default:
      fail(
          ErrorKind::InvalidInput,
          "'{}' object is not iterable: expected a list, dict or string",
          type_name(value));
  }
  if (heap.budget() != nullptr) {
    heap.budget()->work(items.size() * sizeof(Value));
  }
  return items;
}

std::optional<std::size_t> length_of(const Value& value) {
  switch (value.type()) {
    case Type::Undefined:
      return 0;
    case Type::String:
      return value.string().length;
    case Type::Sequence:
      return value.sequence().items.size();
    case Type::Dict:
      return value.dict().items.size();
    case Type::Loop:
      return value.loop().items.size();
    default:
      return std::nullopt;
  }
}

} // namespace optiq::text::jinja
