#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "optiq/text/jinja/syntax_impl.h"
#include "optiq/text/jinja/value_impl.h"

namespace optiq::text::jinja {

/** What a call passes. */
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keywords;
};

/**
 * Arguments of one call sorted by the parameters of a builtin. Throws
 * InvalidInput for a missing, unknown or surplus one.
 */
class Parameters {
 public:
  Parameters(
      const char* function,
      Arguments& arguments,
      std::initializer_list<const char*> names,
      std::size_t n_required = 0);

  bool has(std::size_t i) const {
    return given_[i];
  }
  /** Of parameter i; None when not given. */
  const Value& operator[](std::size_t i) const {
    return values_[i];
  }
  std::int64_t integer(std::size_t i, std::int64_t otherwise) const;
  bool boolean(std::size_t i, bool otherwise) const;
  /** Must be a str when given. */
  std::string text(std::size_t i, const std::string& otherwise) const;

 private:
  const char* function_;
  std::vector<std::string> names_;
  std::vector<Value> values_;
  std::vector<bool> given_;
};

/** Null when there is none of that name. */
Native find_filter(std::string_view name);
using Test = bool (*)(Interpreter&, const Value&, Arguments&);
Test find_test(std::string_view name);
Native find_global(std::string_view name);

/** A method of str, list, dict ... bound to `object`, or Undefined. Those that
 * would change the object exist but cannot be called, as in jinja2's sandbox.
 */
Value find_method(
    Interpreter& interpreter,
    const Value& object,
    const std::string& name);

/** Filters of sequences, in a file of their own; see find_filter. */
Native find_sequence_filter(std::string_view name);

Value binary(
    const Heap& heap,
    Operator op,
    const Value& left,
    const Value& right);
bool contains(const Heap& heap, const Value& container, const Value& item);
/** container[start:stop:step]; parts may be None. */
Value slice(
    const Heap& heap,
    const Value& container,
    const Value& start,
    const Value& stop,
    const Value& step);

/** Python's `format % values`. */
std::string percent_format(
    Interpreter& interpreter,
    const std::string& format,
    const Value& values);
/** str.format. */
std::string brace_format(
    Interpreter& interpreter,
    const std::string& format,
    const Arguments& arguments);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent; // of one level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
/** json.dumps. Throws InvalidInput for values that JSON does not have. */
std::string
dump_json(Budget* budget, const Value& value, const JsonStyle& style);

/** datetime.now().strftime(format). */
std::string format_now(const std::string& format);
/** float(text) and int(text, base) of Python; nothing when it raises. */
std::optional<double> parse_float(std::string_view text);
std::optional<std::int64_t> parse_integer(std::string_view text, int base);

} // namespace optiq::text::jinja
