// Tests: what may follow `is`.
#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

template <Type type>
bool is_type(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("test", arguments, {});
  return value.is(type);
}

bool is_defined(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("defined", arguments, {});
  return !value.is_undefined();
}

bool is_number(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("number", arguments, {});
  return value.is_number();
}

template <bool expected>
bool is_boolean(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("true", arguments, {});
  return value.is(Type::Bool) && value.boolean() == expected;
}

bool is_sequence(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("sequence", arguments, {});
  // An undefined value has a length and items in Python: none.
  return value.is_string() || value.is(Type::Dict) || value.is_undefined() ||
      value.is(SequenceKind::List) || value.is(SequenceKind::Tuple) ||
      value.is(SequenceKind::Range);
}

bool is_iterable_test(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("iterable", arguments, {});
  return is_iterable(value);
}

bool is_callable(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("callable", arguments, {});
  return value.is(Type::Function) || value.is(Type::Macro) ||
      value.is(Type::Loop) || value.is_undefined();
}

bool is_escaped(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("escaped", arguments, {});
  return value.is_string() && value.string().is_markup;
}

template <CharClass kind>
bool is_cased_text(Interpreter& in, const Value& value, Arguments& arguments) {
  const Parameters p("lower", arguments, {});
  return all_are(to_text(&in.budget(), value), kind);
}

bool is_same_as(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("sameas", arguments, {"other"}, 1);
  return value.is_same(p[0]);
}

bool remainder_is(
    Interpreter& in,
    const Value& value,
    const Value& divisor,
    std::int64_t expected) {
  if (value.is_string()) {
    fail(ErrorKind::InvalidInput, "found a str to divide, expected a number");
  }
  const Value rest = binary(in.heap(), Operator::Modulo, value, divisor);
  return equal(&in.budget(), rest, Value(expected));
}

template <std::int64_t expected>
bool is_parity(Interpreter& in, const Value& value, Arguments& arguments) {
  const Parameters p("odd", arguments, {});
  return remainder_is(in, value, Value(std::int64_t{2}), expected);
}

bool is_divisible(Interpreter& in, const Value& value, Arguments& arguments) {
  const Parameters p("divisibleby", arguments, {"num"}, 1);
  return remainder_is(in, value, p[0], 0);
}

template <Operator op>
bool compares(Interpreter& in, const Value& value, Arguments& arguments) {
  const Parameters p("comparison", arguments, {"other"}, 1);
  return is_true(binary(in.heap(), op, value, p[0]));
}

bool is_filter(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("filter", arguments, {});
  return value.is_string() && find_filter(value.text()) != nullptr;
}

bool is_test(Interpreter&, const Value& value, Arguments& arguments) {
  const Parameters p("test", arguments, {});
  return value.is_string() && find_test(value.text()) != nullptr;
}

struct Row {
  std::string_view name;
  Test test;
};
constexpr Row kTests[] = {
    {"!=", compares<Operator::NotEqual>},
    {"<", compares<Operator::Less>},
    {"<=", compares<Operator::LessEqual>},
    {"==", compares<Operator::Equal>},
    {">", compares<Operator::Greater>},
    {">=", compares<Operator::GreaterEqual>},
    {"boolean", is_type<Type::Bool>},
    {"callable", is_callable},
    {"defined", is_defined},
    {"divisibleby", is_divisible},
    {"eq", compares<Operator::Equal>},
    {"equalto", compares<Operator::Equal>},
    {"escaped", is_escaped},
    {"even", is_parity<0>},
    {"false", is_boolean<false>},
    {"filter", is_filter},
    {"float", is_type<Type::Float>},
    {"ge", compares<Operator::GreaterEqual>},
    {"greaterthan", compares<Operator::Greater>},
    {"gt", compares<Operator::Greater>},
    {"in", compares<Operator::In>},
    {"integer", is_type<Type::Int>},
    {"iterable", is_iterable_test},
    {"le", compares<Operator::LessEqual>},
    {"lessthan", compares<Operator::Less>},
    {"lower", is_cased_text<CharClass::Lower>},
    {"lt", compares<Operator::Less>},
    {"mapping", is_type<Type::Dict>},
    {"ne", compares<Operator::NotEqual>},
    {"none", is_type<Type::None>},
    {"number", is_number},
    {"odd", is_parity<1>},
    {"sameas", is_same_as},
    {"sequence", is_sequence},
    {"string", is_type<Type::String>},
    {"test", is_test},
    {"true", is_boolean<true>},
    {"undefined", is_type<Type::Undefined>},
    {"upper", is_cased_text<CharClass::Upper>},
};

} // namespace

Test find_test(std::string_view name) {
  for (const Row& row : kTests) {
    if (row.name == name) {
      return row.test;
    }
  }
  return nullptr;
}

} // namespace optiq::text::jinja
