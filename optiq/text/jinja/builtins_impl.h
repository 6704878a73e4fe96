#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "optiq/text/jinja/syntax_impl.h"
#include "optiq/text/jinja/text_impl.h"
#include "optiq/text/jinja/value_impl.h"

namespace optiq::text::jinja {

/** What a call passes. */
struct Arguments {
  explicit Arguments(Budget* budget) : positional(budget), charge(budget) {}
  Arguments copy(Budget* budget) const;
  void add_keyword(std::string name, Value value);

  Items positional;
  std::vector<std::pair<std::string, Value>> keywords;
  Charge charge; // of the keywords
};

/**
 * Arguments of one call sorted by the parameters of a builtin. Throws
 * InvalidInput for a missing, unknown or surplus one. A name that begins with
 * '/' is of a parameter that cannot be given by name, as many of Python's.
 */
class Parameters {
 public:
  Parameters(
      const char* function,
      const Arguments& arguments,
      std::initializer_list<const char*> names,
      std::size_t n_required = 0);

  bool has(std::size_t i) const {
    return given_[i];
  }
  /** Of parameter i; None when not given. */
  const Value& operator[](std::size_t i) const {
    return values_[i];
  }
  /** An index: beyond 64 bits it is an error, as it is in Python. `otherwise`
   * when not given. */
  std::int64_t integer(std::size_t i, std::int64_t otherwise) const;
  /** As integer, for a parameter that None leaves out too. */
  std::int64_t integer_or_none(std::size_t i, std::int64_t otherwise) const;
  /** As integer_or_none, for the bounds of a slice: those beyond 64 bits are
   * as good as the largest. */
  std::int64_t bound(std::size_t i, std::int64_t otherwise) const;
  bool boolean(std::size_t i, bool otherwise) const;
  /** As boolean, where Python asks for a bool or an integer of 32 bits. */
  bool flag(std::size_t i, bool otherwise) const;
  /** Must be a str when given. */
  std::string_view text(std::size_t i, std::string_view otherwise) const;

 private:
  const char* name_of(std::size_t i) const;

  const char* function_;
  std::vector<const char*> names_;
  std::vector<Value> values_;
  std::vector<bool> given_;
};

// --- what there is, by name --------------------------------------------------

/** Builtins by name, found in constant time. */
class BuiltinTable {
 public:
  BuiltinTable(std::initializer_list<std::span<const Builtin>> parts);
  /** Null when there is none of that name. */
  const Builtin* find(std::string_view name) const;
  const std::unordered_map<std::string_view, const Builtin*>& rows() const {
    return rows_;
  }

 private:
  std::unordered_map<std::string_view, const Builtin*> rows_;
};

const BuiltinTable& filters();
const BuiltinTable& tests();
const BuiltinTable& globals();
const BuiltinTable& string_methods();
const BuiltinTable& list_methods();
const BuiltinTable& tuple_methods(); // and those of range
const BuiltinTable& dict_methods();
const BuiltinTable& integer_methods();
const BuiltinTable& float_methods();
const BuiltinTable& loop_methods();
const BuiltinTable& cycler_methods();

/** The parts of filters(), one a file. */
std::span<const Builtin> text_filters();
std::span<const Builtin> number_filters();
std::span<const Builtin> sequence_filters();
std::span<const Builtin> ordering_filters();

/** What to say of a builtin that is not there; of those that jinja2 or Python
 * has, with the reason. `kind` is "filter", "test", "function" or "method". */
std::string unknown_builtin(std::string_view kind, std::string_view name);
/** Is it one that jinja2 or Python has and that is left out for a reason? */
bool is_left_out(std::string_view kind, std::string_view name);

// --- attributes --------------------------------------------------------------

/** object.name and object[key] as the sandbox of jinja2 has them. */
Value get_attribute(
    const Heap& heap,
    const Value& object,
    const std::string& name);
Value get_item(const Heap& heap, const Value& object, const Value& key);
/** Walks "a.b.0", or one integer, from `object`; what is not there becomes
 * `otherwise`, unless that is None. */
Value get_path(
    const Heap& heap,
    const Value& object,
    const Value& path,
    const Value& otherwise = Value());
/** A method of str, list, dict ... bound to `object`, or None. Those that
 * would change the object exist but cannot be called, as in jinja2's sandbox.
 */
Value find_method(
    const Heap& heap,
    const Value& object,
    const std::string& name);

/** dict(...): of the pairs of one argument, then of the keywords. */
Value make_dict(
    const char* function,
    const Heap& heap,
    const Arguments& arguments);

// --- operators ---------------------------------------------------------------

Value binary(
    const Heap& heap,
    Operator op,
    const Value& left,
    const Value& right);
/** Of two numbers; only for arithmetic operators. */
Value number_operation(
    const Heap& heap,
    Operator op,
    const Value& left,
    const Value& right);
Value negated(const Heap& heap, const Value& number);
bool contains(const Heap& heap, const Value& container, const Value& item);
/** container[start:stop:step]; parts may be None. */
Value slice(
    const Heap& heap,
    const Value& container,
    const Value& start,
    const Value& stop,
    const Value& step);

// --- text --------------------------------------------------------------------

/** soft_str: text that keeps being markup. */
Value as_text(const Heap& heap, const Value& value);
/** markupsafe.escape. */
Value escaped(const Heap& heap, const Value& value);
/** Python's `format % values`. */
Value percent_format(
    const Heap& heap,
    const String& format,
    const Value& values);
/** str.format. */
Value brace_format(
    const Heap& heap,
    const String& format,
    const Arguments& arguments);

/** [[fill]align][sign][z][#][0][width][,][.precision][type] */
struct FormatSpec {
  std::string fill = " ";
  char align = '\0'; // one of "<>=^", or 0: by type
  char sign = '\0'; // one of "+- ", or 0: not given
  bool alternate = false;
  bool no_negative_zero = false;
  char grouping = '\0'; // ',' or '_'
  std::int64_t width = 0;
  std::int64_t precision = -1; // < 0: not given
  char type = '\0';
};
[[noreturn]] void bad_format(const std::string& what);
/** Digits at `at`, which moves past them. Throws InvalidInput beyond what
 * Python counts. */
std::int64_t read_number(std::string_view text, std::size_t& at);
/** `sign` and `body` padded to the width. */
void write_padded(
    Text& out,
    const FormatSpec& spec,
    std::string_view sign,
    std::string_view body,
    char default_align);
void write_integer(Text& out, const FormatSpec& spec, const Value& value);
void write_float(Text& out, const FormatSpec& spec, double value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent; // of one level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
/** json.dumps. Throws InvalidInput for values that JSON does not have. */
void write_json(Text& out, const Value& value, const JsonStyle& style);
/** json.loads. Throws InvalidInput for what is not JSON. */
Value read_json(const Heap& heap, std::string_view text);
/** pprint.pformat. */
void write_pretty(Text& out, const Value& value);

struct WrapStyle {
  std::size_t width = 79; // at least 1
  bool breaks_words = true;
  bool breaks_at_hyphens = true;
};
/** textwrap.wrap of one line, which keeps its white space. */
void wrap_line(
    const Heap& heap,
    std::string_view line,
    const WrapStyle& style,
    const OnPart& on_line);

/** datetime.now().strftime(format). */
std::string format_now(std::string_view format);
/** float(text) and int(text, base) of Python; nothing when it raises. */
std::optional<double> parse_float(std::string_view text);
std::optional<BigInteger> parse_integer(std::string_view text, int base);

} // namespace optiq::text::jinja
