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

#include "optiq/text/jinja/big_integer_impl.h"
#include "optiq/text/jinja/budget_impl.h"

namespace optiq::text::jinja {

class Value;
class Interpreter;
class Namespace;
struct Arguments;
struct Cycler;
struct Function;
struct Joiner;
struct Loop;
struct Macro;

/** Lists nested deeper than this are Exhausted: comparing, printing and
 * freeing them recurses. */
constexpr int kMaxNesting = 256;

struct None {};

/** UTF-8 text. Indices and lengths count code points. */
struct String {
  std::string text;
  std::size_t length = 0; // code points; equal to text.size() for ASCII
  bool is_markup = false; // made by `safe`: `+` escapes the other side
  Charge charge;

  String(std::string value, bool markup, Charge held);
};

/** A name, attribute or item that is not there. */
struct Undefined {
  std::shared_ptr<const String> reason; // what is thrown when it is used
};

/** An integer that needs more than 64 bits. */
struct LargeInteger {
  BigInteger value;
  Charge charge;
};

/** A list of values. Its memory is counted before it is taken, the copy that
 * growing makes included. */
class Items {
 public:
  explicit Items(Budget* budget = nullptr);

  void push(Value value);
  /** Appends a copy of the items of another from the given one on. */
  void append(const Items& other, std::size_t from = 0);
  /** Takes memory for as many items in all. */
  void reserve(std::size_t n);
  void reverse();
  void clear();

  std::size_t size() const;
  bool empty() const {
    return size() == 0;
  }
  const Value& operator[](std::size_t i) const;
  Value& operator[](std::size_t i);
  std::vector<Value>::const_iterator begin() const;
  std::vector<Value>::const_iterator end() const;
  std::vector<Value>::iterator begin();
  std::vector<Value>::iterator end();

 private:
  std::vector<Value> values_;
  Charge charge_;
};

enum class SequenceKind { List, Tuple, Range, Keys, Values, Items };

struct RangeBounds;

/** What Python indexes or views: list, tuple, range, dict views. */
struct Sequence {
  SequenceKind kind;
  Items items;
  int nesting = 1; // 1 + that of the deepest item
  bool is_group = false; // of groupby: the items are `grouper` and `list`
  std::unique_ptr<const RangeBounds> range; // only for Range
  Charge charge;

  Sequence(SequenceKind k, Items values, Charge held);
  ~Sequence();
};

/** A mapping that keeps the order in which keys were inserted. */
class Dict {
 public:
  using Item = std::pair<Value, Value>;

  explicit Dict(Budget* budget);
  /** A later value replaces an earlier one of an equal key. */
  void set(Value key, Value value);
  /** Null when absent. */
  const Value* find(const std::string& hash_key) const;
  const std::vector<Item>& items() const {
    return items_;
  }
  int nesting() const {
    return nesting_;
  }

 private:
  std::vector<Item> items_;
  std::unordered_map<std::string, std::size_t> index_; // hash_key -> item
  int nesting_ = 1;
  Charge charge_;
};

/** A Python iterator: a generator of a filter, or `reversed`. Made eagerly,
 * and consumed once. */
struct Iterator {
  Items items;
  std::size_t next = 0;
  Charge charge;
};

using Native = Value (*)(Interpreter&, const Value& self, Arguments&);

/** What a builtin reads of its input and arguments, and is charged for before
 * it starts: their bytes, or only their headers. */
enum class Reads { All, Nothing };

/** A filter, test, method or global function: a row of a table that lives as
 * long as the program. */
struct Builtin {
  std::string_view name;
  Native native;
  Reads reads = Reads::All;
};

enum class Type {
  Undefined,
  None,
  Bool,
  Int,
  LargeInt,
  Float,
  String,
  Sequence,
  Dict,
  Iterator,
  Function,
  Loop,
  Namespace,
  Macro,
  Cycler,
  Joiner,
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
  explicit Value(std::shared_ptr<const LargeInteger> v) : data_(std::move(v)) {}
  explicit Value(std::shared_ptr<const String> v) : data_(std::move(v)) {}
  explicit Value(std::shared_ptr<const Sequence> v) : data_(std::move(v)) {}
  explicit Value(std::shared_ptr<const Dict> v) : data_(std::move(v)) {}
  explicit Value(std::shared_ptr<Dict> v)
      : data_(std::shared_ptr<const Dict>(std::move(v))) {}
  explicit Value(std::shared_ptr<Iterator> v) : data_(std::move(v)) {}
  explicit Value(std::shared_ptr<const Function> v) : data_(std::move(v)) {}
  explicit Value(std::shared_ptr<Loop> v) : data_(std::move(v)) {}
  explicit Value(Namespace* v) : data_(v) {}
  explicit Value(const Macro* v) : data_(v) {}
  explicit Value(std::shared_ptr<Cycler> v) : data_(std::move(v)) {}
  explicit Value(std::shared_ptr<Joiner> v) : data_(std::move(v)) {}

  Type type() const {
    return static_cast<Type>(data_.index()); // the variant's order is Type's
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
  bool is_markup() const {
    return is_string() && string().is_markup;
  }
  /** Bool or an integer of 64 bits. */
  bool is_small() const {
    return is(Type::Bool) || is(Type::Int);
  }
  /** What Python's int operations all take. */
  bool is_integral() const {
    return is_small() || is(Type::LargeInt);
  }
  bool is_number() const {
    return is_integral() || is(Type::Float);
  }

  const std::string& reason() const {
    return std::get<Undefined>(data_).reason->text;
  }
  bool boolean() const {
    return std::get<bool>(data_);
  }
  /** Of a small value. */
  std::int64_t integer() const {
    return is(Type::Bool) ? (boolean() ? 1 : 0) : std::get<std::int64_t>(data_);
  }
  /** Of an integral value. */
  BigInteger big() const {
    return is_small() ? BigInteger(integer()) : large();
  }
  const BigInteger& large() const {
    return std::get<std::shared_ptr<const LargeInteger>>(data_)->value;
  }
  /** Of a number. Throws InvalidInput when an integer is too large. */
  double real() const;
  const String& string() const {
    return *std::get<std::shared_ptr<const String>>(data_);
  }
  const std::string& text() const {
    return string().text;
  }
  const Sequence& sequence() const {
    return *std::get<std::shared_ptr<const Sequence>>(data_);
  }
  const Items& items() const {
    return sequence().items;
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
  Cycler& cycler() const {
    return *std::get<std::shared_ptr<Cycler>>(data_);
  }
  Joiner& joiner() const {
    return *std::get<std::shared_ptr<Joiner>>(data_);
  }
  /** Same object, or equal scalars: Python's `is` as far as it shows. */
  bool is_same(const Value& other) const;

 private:
  std::variant<
      Undefined,
      None,
      bool,
      std::int64_t,
      std::shared_ptr<const LargeInteger>,
      double,
      std::shared_ptr<const String>,
      std::shared_ptr<const Sequence>,
      std::shared_ptr<const Dict>,
      std::shared_ptr<Iterator>,
      std::shared_ptr<const Function>,
      std::shared_ptr<Loop>,
      Namespace*,
      const Macro*,
      std::shared_ptr<Cycler>,
      std::shared_ptr<Joiner>>
      data_;
};

struct RangeBounds {
  Value start;
  Value stop;
  Value step;
};

/** A global function, or a method bound to its object. */
struct Function {
  const Builtin* builtin;
  Value self;
  Charge charge;
};

/** The only object whose attributes a template can set. */
class Namespace {
 public:
  explicit Namespace(Budget* budget) : charge_(budget, 128) {}
  const Value* find(const std::string& name) const;
  void assign(const std::string& name, Value value);
  const std::vector<std::pair<std::string, Value>>& attributes() const {
    return attributes_;
  }

 private:
  std::vector<std::pair<std::string, Value>> attributes_;
  std::unordered_map<std::string, std::size_t> index_;
  Charge charge_;
};

/** `cycler(...)`: gives its items in turn. */
struct Cycler {
  Items items; // at least one
  std::size_t position = 0;
};

/** `joiner(separator)`: a function that gives nothing when first called. */
struct Joiner {
  Value separator;
  bool is_used = false;
  Charge charge;
};

inline std::size_t Items::size() const {
  return values_.size();
}
inline const Value& Items::operator[](std::size_t i) const {
  return values_[i];
}
inline Value& Items::operator[](std::size_t i) {
  return values_[i];
}
inline std::vector<Value>::const_iterator Items::begin() const {
  return values_.begin();
}
inline std::vector<Value>::const_iterator Items::end() const {
  return values_.end();
}
inline std::vector<Value>::iterator Items::begin() {
  return values_.begin();
}
inline std::vector<Value>::iterator Items::end() {
  return values_.end();
}

/** Makes values, counting their memory. A null budget counts nothing. */
class Heap {
 public:
  explicit Heap(Budget* budget) : budget_(budget) {}

  Value string(std::string_view text, bool markup = false) const;
  Value string(Text text, bool markup = false) const;
  Value integer(const BigInteger& value) const;
  Value sequence(SequenceKind kind, Items items) const;
  Value list(Items items) const {
    return sequence(SequenceKind::List, std::move(items));
  }
  Value tuple(Items items) const {
    return sequence(SequenceKind::Tuple, std::move(items));
  }
  Value pair(const Value& first, const Value& second) const;
  /** A row of groupby: a pair whose items have names. */
  Value group(const Value& grouper, Value list) const;
  Value range(RangeBounds bounds, std::size_t length) const;
  Value iterator(Items items) const;
  Value function(const Builtin& builtin, Value self) const;
  Value undefined(std::string_view reason) const;

  Text text() const {
    return Text(budget_);
  }
  Items items() const {
    return Items(budget_);
  }
  std::shared_ptr<Dict> dict() const {
    return std::make_shared<Dict>(budget_);
  }
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
/** Throws InvalidInput, with its reason, for an undefined value. */
void require_defined(const Value& value);

/** The text under which a dict files a key: equal keys, equal text. Throws
 * InvalidInput for unhashable values. */
std::string hash_key(Budget* budget, const Value& value);
bool is_true(const Value& value);
bool equal(Budget* budget, const Value& a, const Value& b, int nesting = 0);
/** Python's `a < b`; throws InvalidInput for types without an order. */
bool less(Budget* budget, const Value& a, const Value& b);
/** Appends Python's str() or repr(). */
void write_text(Text& out, const Value& value);
void write_repr(Text& out, const Value& value, int nesting = 0);
Text to_text(Budget* budget, const Value& value);
/** repr() of a float. */
std::string repr(double value);
/** Digits of an integral value with its sign. Throws InvalidInput past the 4300
 * that Python converts. */
std::string decimal(const Value& value);
/** "str", "int", "dict" ...: the name Python's type has. */
const char* type_name(const Value& value);
/** A copy of the items that iterating gives; uses an iterator up. Throws
 * InvalidInput when the value is not iterable. */
Items iterate(const Heap& heap, const Value& value);
bool is_iterable(const Value& value);
/** len(), or nothing for values without a length. */
std::optional<std::size_t> length_of(const Value& value);
/** Bytes that reading all of a value touches, its items not entered. */
std::size_t bytes_of(const Value& value);

} // namespace optiq::text::jinja
