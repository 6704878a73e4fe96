// Tests: what may follow `is`.
#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

template <Type type>
Value is_type(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("test", arguments, {});
  return Value(value.is(type));
}

Value is_integer(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("integer", arguments, {});
  return Value(value.is(Type::Int) || value.is(Type::LargeInt));
}

Value is_defined(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("defined", arguments, {});
  return Value(!value.is_undefined());
}

Value is_number(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("number", arguments, {});
  return Value(value.is_number());
}

template <bool expected>
Value is_boolean(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("true", arguments, {});
  return Value(value.is(Type::Bool) && value.boolean() == expected);
}

Value is_sequence(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("sequence", arguments, {});
  // An undefined value has a length and items in Python: none.
  return Value(
      value.is_string() || value.is(Type::Dict) || value.is_undefined() ||
      value.is(SequenceKind::List) || value.is(SequenceKind::Tuple) ||
      value.is(SequenceKind::Range));
}

Value is_iterable_test(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("iterable", arguments, {});
  return Value(is_iterable(value));
}

Value is_callable(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("callable", arguments, {});
  return Value(
      value.is(Type::Function) || value.is(Type::Macro) ||
      value.is(Type::Loop) || value.is(Type::Joiner) || value.is_undefined());
}

Value is_escaped(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("escaped", arguments, {});
  return Value(value.is_string() && value.string().is_markup);
}

template <CharClass kind>
Value is_cased_text(Interpreter& in, const Value& value, Arguments& arguments) {
  const Parameters p("lower", arguments, {});
  return Value(all_are(to_text(&in.budget(), value).str(), kind));
}

Value is_same_as(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("sameas", arguments, {"other"}, 1);
  return Value(value.is_same(p[0]));
}

Value remainder_is(
    Interpreter& in,
    const Value& value,
    const Value& divisor,
    std::int64_t expected) {
  if (value.is_string()) { // Python's `%` formats it
    percent_format(in.heap(), value.string(), divisor);
    return Value(false);
  }
  const Value rest = binary(in.heap(), Operator::Modulo, value, divisor);
  return Value(equal(&in.budget(), rest, Value(expected)));
}

template <std::int64_t expected>
Value is_parity(Interpreter& in, const Value& value, Arguments& arguments) {
  const Parameters p("odd", arguments, {});
  return remainder_is(in, value, Value(std::int64_t{2}), expected);
}

Value is_divisible(Interpreter& in, const Value& value, Arguments& arguments) {
  const Parameters p("divisibleby", arguments, {"num"}, 1);
  return remainder_is(in, value, p[0], 0);
}

template <Operator op>
Value compares(Interpreter& in, const Value& value, Arguments& arguments) {
  const Parameters p("comparison", arguments, {"other"}, 1);
  return Value(is_true(binary(in.heap(), op, value, p[0])));
}

Value is_filter(Interpreter& in, const Value& value, Arguments& arguments) {
  const Parameters p("filter", arguments, {});
  hash_key(&in.budget(), value); // refuses what is no key
  return Value(value.is_string() && filters().find(value.text()) != nullptr);
}

Value is_test(Interpreter& in, const Value& value, Arguments& arguments) {
  const Parameters p("test", arguments, {});
  hash_key(&in.budget(), value); // refuses what is no key
  return Value(value.is_string() && tests().find(value.text()) != nullptr);
}

constexpr Builtin kTests[] = {
    {"!=", compares<Operator::NotEqual>},
    {"<", compares<Operator::Less>},
    {"<=", compares<Operator::LessEqual>},
    {"==", compares<Operator::Equal>},
    {">", compares<Operator::Greater>},
    {">=", compares<Operator::GreaterEqual>},
    {"boolean", is_type<Type::Bool>, Reads::Nothing},
    {"callable", is_callable, Reads::Nothing},
    {"defined", is_defined, Reads::Nothing},
    {"divisibleby", is_divisible},
    {"eq", compares<Operator::Equal>},
    {"equalto", compares<Operator::Equal>},
    {"escaped", is_escaped, Reads::Nothing},
    {"even", is_parity<0>, Reads::Nothing},
    {"false", is_boolean<false>, Reads::Nothing},
    {"filter", is_filter, Reads::Nothing},
    {"float", is_type<Type::Float>, Reads::Nothing},
    {"ge", compares<Operator::GreaterEqual>},
    {"greaterthan", compares<Operator::Greater>},
    {"gt", compares<Operator::Greater>},
    {"in", compares<Operator::In>},
    {"integer", is_integer, Reads::Nothing},
    {"iterable", is_iterable_test, Reads::Nothing},
    {"le", compares<Operator::LessEqual>},
    {"lessthan", compares<Operator::Less>},
    {"lower", is_cased_text<CharClass::Lower>},
    {"lt", compares<Operator::Less>},
    {"mapping", is_type<Type::Dict>, Reads::Nothing},
    {"ne", compares<Operator::NotEqual>},
    {"none", is_type<Type::None>, Reads::Nothing},
    {"number", is_number, Reads::Nothing},
    {"odd", is_parity<1>, Reads::Nothing},
    {"sameas", is_same_as},
    {"sequence", is_sequence, Reads::Nothing},
    {"string", is_type<Type::String>, Reads::Nothing},
    {"test", is_test, Reads::Nothing},
    {"true", is_boolean<true>, Reads::Nothing},
    {"undefined", is_type<Type::Undefined>, Reads::Nothing},
    {"upper", is_cased_text<CharClass::Upper>},
};

} // namespace

const BuiltinTable& tests() {
  static const BuiltinTable table({kTests});
  return table;
}

} // namespace optiq::text::jinja
