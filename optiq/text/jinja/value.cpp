#include <algorithm>
#include <cmath>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"
#include "optiq/text/jinja/value_impl.h"

namespace optiq::text::jinja {
namespace {

// What an allocation takes beside its content: headers of the allocator and of
// a shared pointer.
constexpr std::size_t kObjectBytes = 32;
// An entry of a dict's index: a node, its place in the table, the key's header.
constexpr std::size_t kIndexBytes = 96;

int nesting_of(const Value& value) {
  if (value.is(Type::Sequence)) {
    return value.sequence().nesting;
  }
  return value.is(Type::Dict) ? value.dict().nesting() : 0;
}

// Memory for one more item than `n`, of which `capacity` are there.
std::size_t next_capacity(std::size_t n, std::size_t capacity) {
  return n < capacity ? capacity : std::max<std::size_t>(4, 2 * capacity);
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

void require_defined(const Value& value) {
  if (value.is_undefined()) {
    fail(ErrorKind::InvalidInput, "{}", value.reason());
  }
}

void meter(Budget* budget, std::size_t bytes) {
  if (budget != nullptr) {
    budget->work(bytes);
  }
}

String::String(std::string value, bool markup, Charge held)
    : text(std::move(value)),
      length(count_code_points(text)),
      is_markup(markup),
      charge(std::move(held)) {}

Items::Items(Budget* budget) : charge_(budget) {}

void Items::push(Value value) {
  const std::size_t capacity =
      next_capacity(values_.size(), values_.capacity());
  if (capacity != values_.capacity()) {
    reserve(capacity);
  }
  values_.push_back(std::move(value));
}

void Items::append(const Items& other, std::size_t from) {
  reserve(values_.size() + other.size() - from);
  values_.insert(
      values_.end(),
      other.values_.begin() + static_cast<std::ptrdiff_t>(from),
      other.values_.end());
}

void Items::reserve(std::size_t n) {
  if (n <= values_.capacity()) {
    return;
  }
  // A length that cannot be is refused before it is multiplied.
  constexpr std::size_t kMost = std::size_t{1} << 48;
  Charge larger(charge_.budget(), std::min(n, kMost) * sizeof(Value));
  values_.reserve(n);
  charge_ = std::move(larger);
}

void Items::reverse() {
  std::reverse(values_.begin(), values_.end());
}

void Items::clear() {
  values_.clear();
}

Sequence::Sequence(SequenceKind k, Items values, Charge held)
    : kind(k), items(std::move(values)), charge(std::move(held)) {
  for (const Value& item : items) {
    nesting = std::max(nesting, nesting_of(item) + 1);
  }
  require_nesting(nesting);
}

Sequence::~Sequence() = default;

Dict::Dict(Budget* budget) : charge_(budget, sizeof(Dict) + kObjectBytes) {}

void Dict::set(Value key, Value value) {
  std::string filed = hash_key(charge_.budget(), key);
  nesting_ = std::max(nesting_, nesting_of(value) + 1);
  require_nesting(nesting_);
  const auto known = index_.find(filed);
  if (known != index_.end()) {
    items_[known->second].second = std::move(value);
    return;
  }
  const std::size_t capacity = next_capacity(items_.size(), items_.capacity());
  if (capacity != items_.capacity()) {
    // What is there is copied: both count while that lasts, and on.
    charge_.grow(capacity * sizeof(Item));
    items_.reserve(capacity);
  }
  charge_.grow(kIndexBytes + filed.capacity());
  index_.emplace(std::move(filed), items_.size());
  items_.emplace_back(std::move(key), std::move(value));
}

const Value* Dict::find(const std::string& key) const {
  const auto at = index_.find(key);
  return at == index_.end() ? nullptr : &items_[at->second].second;
}

const Value* Namespace::find(const std::string& name) const {
  const auto at = index_.find(name);
  return at == index_.end() ? nullptr : &attributes_[at->second].second;
}

void Namespace::assign(const std::string& name, Value value) {
  const auto at = index_.find(name);
  if (at != index_.end()) {
    attributes_[at->second].second = std::move(value);
    return;
  }
  charge_.grow(
      kIndexBytes + 3 * sizeof(std::pair<std::string, Value>) +
      2 * name.size());
  index_.emplace(name, attributes_.size());
  attributes_.emplace_back(name, std::move(value));
}

double Value::real() const {
  if (is(Type::Float)) {
    return std::get<double>(data_);
  }
  if (is_small()) {
    return static_cast<double>(integer());
  }
  const double value = large().to_double();
  if (std::isinf(value)) {
    fail(ErrorKind::InvalidInput, "found an integer too large to make a float");
  }
  return value;
}

bool Value::is_same(const Value& other) const {
  if (type() != other.type()) {
    return false;
  }
  switch (type()) {
    case Type::String:
      return &string() == &other.string() || text() == other.text();
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

Value Heap::string(std::string_view text, bool markup) const {
  Charge charge(budget_, sizeof(String) + kObjectBytes + text.size());
  return Value(std::make_shared<const String>(
      std::string(text), markup, std::move(charge)));
}

Value Heap::string(Text text, bool markup) const {
  auto [made, charge] = text.take();
  charge.grow(sizeof(String) + kObjectBytes);
  return Value(std::make_shared<const String>(
      std::move(made), markup, std::move(charge)));
}

Value Heap::integer(const BigInteger& value) const {
  if (const auto small = value.to_int64()) {
    return Value(*small);
  }
  Charge charge(
      budget_, sizeof(LargeInteger) + kObjectBytes + 4 * value.size());
  return Value(std::make_shared<const LargeInteger>(
      LargeInteger{value, std::move(charge)}));
}

Value Heap::sequence(SequenceKind kind, Items items) const {
  if (budget_ != nullptr) {
    budget_->touch(items.size() * sizeof(Value));
  }
  return Value(std::make_shared<const Sequence>(
      kind,
      std::move(items),
      Charge(budget_, sizeof(Sequence) + kObjectBytes)));
}

Value Heap::pair(const Value& first, const Value& second) const {
  Items both(budget_);
  both.reserve(2);
  both.push(first);
  both.push(second);
  return tuple(std::move(both));
}

Value Heap::group(const Value& grouper, Value list) const {
  Items both(budget_);
  both.push(grouper);
  both.push(std::move(list));
  auto row = std::make_shared<Sequence>(
      SequenceKind::Tuple,
      std::move(both),
      Charge(budget_, sizeof(Sequence) + kObjectBytes));
  row->is_group = true;
  return Value(std::shared_ptr<const Sequence>(std::move(row)));
}

Value Heap::range(RangeBounds bounds, std::size_t length) const {
  Items items(budget_);
  items.reserve(length);
  Value at = bounds.start;
  for (std::size_t i = 0; i < length; ++i) {
    Value next = binary(*this, Operator::Add, at, bounds.step);
    items.push(std::move(at));
    at = std::move(next);
  }
  auto range = std::make_shared<Sequence>(
      SequenceKind::Range,
      std::move(items),
      Charge(budget_, sizeof(Sequence) + sizeof(RangeBounds) + kObjectBytes));
  range->range = std::make_unique<const RangeBounds>(std::move(bounds));
  return Value(std::shared_ptr<const Sequence>(std::move(range)));
}

Value Heap::iterator(Items items) const {
  return Value(std::make_shared<Iterator>(Iterator{
      std::move(items), 0, Charge(budget_, sizeof(Iterator) + kObjectBytes)}));
}

Value Heap::function(const Builtin& builtin, Value self) const {
  return Value(std::make_shared<const Function>(Function{
      &builtin,
      std::move(self),
      Charge(budget_, sizeof(Function) + kObjectBytes)}));
}

Value Heap::undefined(std::string_view reason) const {
  Charge charge(budget_, sizeof(String) + kObjectBytes + reason.size());
  return Value(Undefined{std::make_shared<const String>(
      std::string(reason), false, std::move(charge))});
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
      "int",
      "float",
      "str",
      "list",
      "dict",
      "generator",
      "function",
      "LoopContext",
      "Namespace",
      "Macro",
      "Cycler",
      "Joiner"};
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

Items iterate(const Heap& heap, const Value& value) {
  Items items = heap.items();
  switch (value.type()) {
    case Type::Undefined:
      break;
    case Type::String: {
      const std::string& text = value.text();
      items.reserve(value.string().length);
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t next = code_point_at(text, at).next;
        items.push(heap.string(std::string_view(text).substr(at, next - at)));
        at = next;
      }
      break;
    }
    case Type::Sequence:
      items.append(value.items());
      break;
    case Type::Dict:
      items.reserve(value.dict().items().size());
      for (const auto& [key, item] : value.dict().items()) {
        items.push(key);
      }
      break;
    case Type::Iterator: {
      Iterator& it = value.iterator();
      items.append(it.items, it.next);
      it.next = it.items.size();
      break;
    }
    default:
      fail(
          ErrorKind::InvalidInput,
          "'{}' object is not iterable: expected a list, dict or string",
          type_name(value));
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
      return value.items().size();
    case Type::Dict:
      return value.dict().items().size();
    case Type::Loop:
      return value.loop().items.size();
    default:
      return std::nullopt;
  }
}

std::size_t bytes_of(const Value& value) {
  switch (value.type()) {
    case Type::String:
      return value.text().size();
    case Type::LargeInt:
      return 4 * value.large().size();
    case Type::Sequence:
      return value.items().size() * sizeof(Value);
    case Type::Dict:
      return value.dict().items().size() * sizeof(Dict::Item);
    case Type::Iterator:
      return value.iterator().items.size() * sizeof(Value);
    case Type::Loop:
      return value.loop().items.size() * sizeof(Value);
    default:
      return 0;
  }
}

} // namespace optiq::text::jinja
