#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/text/jinja/budget_impl.h"

namespace optiq::text::jinja {

class Value;
struct Namespace;
struct Macro;
struct Loop;

/** Lists nested deeper than this are Exhausted: comparing, printing and
 * freeing them recurses. */
constexpr int kMaxNesting = 256;

struct None {};

/** A name, attribute or item that is not there; `reason` is what is thrown
 * when it is used. */
struct Undefined {
  std::shared_ptr<const std::string> reason;
};

/** UTF-8 text. Indices and lengths count code points. */
struct String {
  std::string text;
  std::size_t length = 0; // code points; equal to text.size() for ASCII
  bool is_markup = false; // made by `safe`: `+` escapes the other side
  Charge charge;

  String(Budget* budget, std::string value, bool markup);
};

enum class SequenceKind { List, Tuple, Range, Keys, Values, Items };

/** What Python indexes or views: list, tuple, range, dict views. */
struct Sequence {
  SequenceKind kind;
  std::vector<Value> items;
  int nesting = 1; // 1 + that of the deepest item
  std::int64_t range[3] = {0, 0, 1}; // start, stop, step; only for Range
  Charge charge;

  Sequence(Budget* budget, SequenceKind k, std::vector<Value> values);
};

/** A mapping that keeps the order in which keys were inserted. */
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  std::unordered_map<std::string, std::size_t> index; // hash_key -> item
  int nesting = 1;
  Charge charge;

  Dict(Budget* budget, std::vector<std::pair<Value, Value>> pairs);
  /** Null when absent. */
  const Value* find(const std::string& hash_key) const;
};

/** A Python iterator: a generator of a filter, or `reversed`. Made eagerly,
 * and consumed once. */
struct Iterator {
  std::vector<Value> items;
  std::size_t next = 0;
  Charge charge;

  Iterator(Budget* budget, std::vector<Value> values);
};

class Interpreter;
struct Arguments;
using Native = Value (*)(Interpreter&, const Value& self, Arguments&);

/** A global function, or a method bound to its object. */
struct Function {
  std::string name;
  Native native;
  std::shared_ptr<const Value> self;
};

enum class Type {
  Undefined,
  None,
  Bool,
  Int,
  Float,
  String,
  Sequence,
  Dict,
  Iterator,
  Function,
  Loop,
  Namespace,
  Macro,
};

/**
 * An immutable value, cheap to copy. The mutable ones, namespaces and macros,
 * are owned by the interpreter, so that no cycle of owners can arise.
 */
class Value {
 public:
  Value() : data_(None{}) {}
  explicit Value(bool v) : data_(v) {}
  explicit Value(std::int64_t v) : data_(v) {}
  explicit Value(double v) : data_(v) {}
  explicit Value(Undefined v) : data_(std::move(v)) {}
  explicit Value(std::shared_ptr<const String> v) : data_(std::move(v)) {}
  explicit Value(std::shared_ptr<const Sequence> v) : data_(std::move(v)) {}
  explicit Value(std::shared_ptr<const Dict> v) : data_(std::move(v)) {}
  explicit Value(std::shared_ptr<Iterator> v) : data_(std::move(v)) {}
  explicit Value(std::shared_ptr<const Function> v) : data_(std::move(v)) {}
  explicit Value(std::shared_ptr<Loop> v) : data_(std::move(v)) {}
  explicit Value(Namespace* v) : data_(v) {}
  explicit Value(const Macro* v) : data_(v) {}

  Type type() const {
    constexpr Type kTypes[] = {
        Type::Undefined,
        Type::None,
        Type::Bool,
        Type::Int,
        Type::Float,
        Type::String,
        Type::Sequence,
        Type::Dict,
        Type::Iterator,
        Type::Function,
        Type::Loop,
        Type::Namespace,
        Type::Macro};
    return kTypes[data_.index()];
  }
  bool is(Type t) const {
    return type() == t;
  }
  bool is(SequenceKind kind) const {
    return is(Type::Sequence) && sequence().kind == kind;
  }
  bool is_undefined() const {
    return is(Type::Undefined);
  }
  bool is_none() const {
    return is(Type::None);
  }
  bool is_string() const {
    return is(Type::String);
  }
  /** Bool or Int, which Python's int operations all take. */
  bool is_integral() const {
    return is(Type::Bool) || is(Type::Int);
  }
  bool is_number() const {
    return is_integral() || is(Type::Float);
  }

  const Undefined& undefined() const {
    return std::get<Undefined>(data_);
  }
  bool boolean() const {
    return std::get<bool>(data_);
  }
  /** Of an integral value. */
  std::int64_t integer() const {
    return is(Type::Bool) ? (boolean() ? 1 : 0) : std::get<std::int64_t>(data_);
  }
  /** Of a number. */
  double real() const {
    return is(Type::Float) ? std::get<double>(data_)
                           : static_cast<double>(integer());
  }
  const String& string() const {
    return *std::get<std::shared_ptr<const String>>(data_);
  }
  const std::string& text() const {
    return string().text;
  }
  const Sequence& sequence() const {
    return *std::get<std::shared_ptr<const Sequence>>(data_);
  }
  const Dict& dict() const {
    return *std::get<std::shared_ptr<const Dict>>(data_);
  }
  Iterator& iterator() const {
    return *std::get<std::shared_ptr<Iterator>>(data_);
  }
  const Function& function() const {
    return *std::get<std::shared_ptr<const Function>>(data_);
  }
  Loop& loop() const {
    return *std::get<std::shared_ptr<Loop>>(data_);
  }
  Namespace& name_space() const {
    return *std::get<Namespace*>(data_);
  }
  const Macro& macro() const {
    return *std::get<const Macro*>(data_);
  }
  /** Same object, or equal scalars: Python's `is` as far as it shows. */
  bool is_same(const Value& other) const;

 private:
  std::variant<
      Undefined,
      None,
      bool,
      std::int64_t,
      double,
      std::shared_ptr<const String>,
      std::shared_ptr<const Sequence>,
      std::shared_ptr<const Dict>,
      std::shared_ptr<Iterator>,
      std::shared_ptr<const Function>,
      std::shared_ptr<Loop>,
      Namespace*,
      const Macro*>
      data_;
};

/** The only object that a template can change. */
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;

  const Value* find(std::string_view name) const;
  void assign(const std::string& name, Value value);
};

/** Makes values, counting their memory. A null budget counts nothing. */
class Heap {
 public:
  explicit Heap(Budget* budget) : budget_(budget) {}

  Value string(std::string text, bool markup = false) const;
  Value sequence(SequenceKind kind, std::vector<Value> items) const;
  Value list(std::vector<Value> items) const {
    return sequence(SequenceKind::List, std::move(items));
  }
  Value tuple(std::vector<Value> items) const {
    return sequence(SequenceKind::Tuple, std::move(items));
  }
  Value range(
      std::int64_t start,
      std::int64_t stop,
      std::int64_t step,
      std::size_t length) const;
  /** Later pairs replace earlier ones of an equal key. */
  Value dict(std::vector<std::pair<Value, Value>> pairs) const;
  Value iterator(std::vector<Value> items) const;
  Value undefined(std::string reason) const;
  /** Throws InvalidInput for integers beyond 64 bits. */
  Value from_json(const artifacts::Json& json, int nesting = 0) const;

  Budget* budget() const {
    return budget_;
  }

 private:
  Budget* budget_;
};

// The functions below walk values that a template may have nested and shared
// so that a walk never ends: they count their steps in `budget`, if any.

/** budget->work, if there is a budget. */
void meter(Budget* budget, std::size_t bytes = 0);
/** Throws Exhausted past kMaxNesting. */
void require_nesting(int nesting);

/** The text under which a dict files a key: equal keys, equal text. Throws
 * InvalidInput for unhashable values. */
std::string hash_key(Budget* budget, const Value& value);
bool is_true(const Value& value);
bool equal(Budget* budget, const Value& a, const Value& b, int nesting = 0);
/** Python's `a < b`; throws InvalidInput for types without an order. */
bool less(Budget* budget, const Value& a, const Value& b);
/** Appends Python's str() or repr(). */
void write_text(Budget* budget, std::string& out, const Value& value);
void write_repr(
    Budget* budget,
    std::string& out,
    const Value& value,
    int nesting = 0);
std::string to_text(Budget* budget, const Value& value);
/** repr() of a float. */
std::string repr(double value);
/** "str", "int", "dict" ...: the name Python's type has. */
const char* type_name(const Value& value);
/** A copy of the items that iterating gives; uses an iterator up. Throws
 * InvalidInput when the value is not iterable. */
std::vector<Value> iterate(const Heap& heap, const Value& value);
bool is_iterable(const Value& value);
/** len(), or nothing for values without a length. */
std::optional<std::size_t> length_of(const Value& value);

} // namespace optiq::text::jinja
