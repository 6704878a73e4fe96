#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"

namespace optiq::text::jinja {

Value Interpreter::evaluate(const Expression& node, const ScopePtr& scope) {
  const Level level(evaluations_, kMaxEvaluations, "expressions");
  budget_.work();
  line_ = node.line;
  return evaluate_node(node, scope);
}

Value Interpreter::evaluate_node(
    const Expression& node,
    const ScopePtr& scope) {
  switch (node.kind) {
    case ExpressionKind::Constant:
      return node.constant;
    case ExpressionKind::Name:
      return lookup(node.symbol, scope);
    case ExpressionKind::List:
      return heap_.list(evaluate_all(node.children, scope));
    case ExpressionKind::Tuple:
      return heap_.tuple(evaluate_all(node.children, scope));
    case ExpressionKind::Dict:
      return evaluate_dict(node, scope);
    case ExpressionKind::Not:
      return Value(!is_true(evaluate(*node.children[0], scope)));
    case ExpressionKind::Negate:
    case ExpressionKind::Plus:
      return evaluate_sign(node, scope);
    case ExpressionKind::Binary: {
      const Value left = evaluate(*node.children[0], scope);
      const Value right = evaluate(*node.children[1], scope);
      line_ = node.line;
      if (node.operators[0] == Operator::Modulo && left.is_string()) {
        return heap_.string(percent_format(*this, left.text(), right));
      }
      return binary(heap_, node.operators[0], left, right);
    }
    case ExpressionKind::And:
    case ExpressionKind::Or: {
      Value left = evaluate(*node.children[0], scope);
      const bool decided = is_true(left) == (node.kind == ExpressionKind::Or);
      return decided ? left : evaluate(*node.children[1], scope);
    }
    case ExpressionKind::Concat:
      return evaluate_concat(node, scope);
    case ExpressionKind::Compare:
      return evaluate_compare(node, scope);
    case ExpressionKind::Conditional:
      return evaluate_conditional(node, scope);
    case ExpressionKind::Attribute:
      return attribute(evaluate(*node.children[0], scope), node.name);
    case ExpressionKind::Subscript: {
      const Value object = evaluate(*node.children[0], scope);
      return item(object, evaluate(*node.children[1], scope));
    }
    case ExpressionKind::Slice: {
      const Value object = evaluate(*node.children[0], scope);
      const Value start = evaluate_or_none(node.children[1], scope);
      const Value stop = evaluate_or_none(node.children[2], scope);
      const Value step = evaluate_or_none(node.children[3], scope);
      line_ = node.line;
      return slice(heap_, object, start, stop, step);
    }
    case ExpressionKind::Call:
      return evaluate_call(node, scope, nullptr);
    case ExpressionKind::Filter:
      return evaluate_filter(node, scope, nullptr);
    case ExpressionKind::Test: {
      const Value input = evaluate(*node.children[0], scope);
      Arguments arguments = evaluate_arguments(node, scope);
      line_ = node.line;
      return Value(test(node.name, input, arguments));
    }
  }
  return Value();
}

Value Interpreter::evaluate_or_none(
    const ExpressionPtr& node,
    const ScopePtr& scope) {
  return node == nullptr ? Value() : evaluate(*node, scope);
}

Value Interpreter::lookup(int symbol, const ScopePtr& scope) {
  if (const Value* value = scope->find(symbol)) {
    return *value;
  }
  const auto index = static_cast<std::size_t>(symbol);
  if (data_[index]) {
    return *data_[index];
  }
  const std::string& name = template_.symbols[index];
  if (const Native native = find_global(name)) {
    return Value(
        std::make_shared<const Function>(Function{name, native, nullptr}));
  }
  return heap_.undefined("'" + name + "' is undefined");
}

std::vector<Value> Interpreter::evaluate_all(
    const std::vector<ExpressionPtr>& nodes,
    const ScopePtr& scope) {
  std::vector<Value> values;
  values.reserve(nodes.size());
  for (const ExpressionPtr& node : nodes) {
    values.push_back(evaluate(*node, scope));
  }
  return values;
}

Value Interpreter::evaluate_dict(
    const Expression& node,
    const ScopePtr& scope) {
  std::vector<std::pair<Value, Value>> pairs;
  for (std::size_t i = 0; i < node.children.size(); i += 2) {
    Value key = evaluate(*node.children[i], scope);
    Value value = evaluate(*node.children[i + 1], scope);
    pairs.emplace_back(std::move(key), std::move(value));
  }
  line_ = node.line;
  return heap_.dict(std::move(pairs));
}

Value Interpreter::evaluate_sign(
    const Expression& node,
    const ScopePtr& scope) {
  const Value value = evaluate(*node.children[0], scope);
  line_ = node.line;
  if (!value.is_number()) {
    // Throws what Python's operator would: undefined or a wrong type.
    return binary(heap_, Operator::Subtract, Value(std::int64_t{0}), value);
  }
  const bool is_negative = node.kind == ExpressionKind::Negate;
  if (value.is(Type::Float)) {
    return Value(is_negative ? -value.real() : value.real());
  }
  return is_negative
      ? binary(heap_, Operator::Subtract, Value(std::int64_t{0}), value)
      : Value(value.integer());
}

Value Interpreter::evaluate_concat(
    const Expression& node,
    const ScopePtr& scope) {
  std::string text;
  for (const Value& value : evaluate_all(node.children, scope)) {
    write_text(&budget_, text, value);
  }
  return heap_.string(std::move(text));
}

Value Interpreter::evaluate_compare(
    const Expression& node,
    const ScopePtr& scope) {
  Value left = evaluate(*node.children[0], scope);
  for (std::size_t i = 0; i < node.operators.size(); ++i) {
    Value right = evaluate(*node.children[i + 1], scope);
    line_ = node.line;
    if (!is_true(binary(heap_, node.operators[i], left, right))) {
      return Value(false);
    }
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::evaluate_conditional(
    const Expression& node,
    const ScopePtr& scope) {
  if (is_true(evaluate(*node.children[0], scope))) {
    return evaluate(*node.children[1], scope);
  }
  if (node.children[2] == nullptr) {
    return heap_.undefined(
        "the inline if-expression evaluated to false and has no else");
  }
  return evaluate(*node.children[2], scope);
}

Arguments Interpreter::evaluate_arguments(
    const Expression& node,
    const ScopePtr& scope) {
  Arguments out;
  const auto add_keyword = [&out](const std::string& name, Value value) {
    for (const auto& [known, old] : out.keywords) {
      if (known == name) {
        fail(
            ErrorKind::InvalidInput,
            "found keyword argument '{}' twice in a call, expected once",
            name);
      }
    }
    out.keywords.emplace_back(name, std::move(value));
  };
  for (const Argument& argument : node.arguments) {
    Value value = evaluate(*argument.value, scope);
    switch (argument.kind) {
      case Argument::Kind::Positional:
        out.positional.push_back(std::move(value));
        break;
      case Argument::Kind::Keyword:
        add_keyword(argument.name, std::move(value));
        break;
      case Argument::Kind::Star:
        for (Value& one : iterate(heap_, value)) {
          out.positional.push_back(std::move(one));
        }
        break;
      case Argument::Kind::DoubleStar:
        if (!value.is(Type::Dict)) {
          fail(
              ErrorKind::InvalidInput,
              "found a {} after '**', expected a dict",
              type_name(value));
        }
        for (const auto& [key, one] : value.dict().items) {
          if (!key.is_string()) {
            fail(
                ErrorKind::InvalidInput,
                "found a {} as the name of an argument, expected a string",
                type_name(key));
          }
          add_keyword(key.text(), one);
        }
        break;
    }
  }
  return out;
}

Value Interpreter::evaluate_call(
    const Expression& node,
    const ScopePtr& scope,
    const Value* caller) {
  const Value callee = evaluate(*node.children[0], scope);
  Arguments arguments = evaluate_arguments(node, scope);
  if (caller != nullptr) {
    arguments.keywords.emplace_back("caller", *caller);
  }
  line_ = node.line;
  return call(callee, arguments);
}

Value Interpreter::evaluate_filter(
    const Expression& node,
    const ScopePtr& scope,
    const Value* block_text) {
  const Value input = node.children[0] == nullptr ? *block_text
      : node.children[0]->kind == ExpressionKind::Filter
      ? evaluate_filter(*node.children[0], scope, block_text)
      : evaluate(*node.children[0], scope);
  Arguments arguments = evaluate_arguments(node, scope);
  line_ = node.line;
  return filter(node.name, input, arguments);
}

Value Interpreter::filter(
    const std::string& name,
    const Value& input,
    Arguments& arguments) {
  const Native native = find_filter(name);
  if (native == nullptr) {
    fail(
        ErrorKind::Unsupported,
        "found filter '{}', which does not exist here",
        name);
  }
  budget_.work();
  return native(*this, input, arguments);
}

bool Interpreter::test(
    const std::string& name,
    const Value& input,
    Arguments& arguments) {
  const Test native = find_test(name);
  if (native == nullptr) {
    fail(
        ErrorKind::Unsupported,
        "found test '{}', which does not exist here",
        name);
  }
  budget_.work();
  return native(*this, input, arguments);
}

namespace {

std::string no_such(const Value& object, const std::string& what) {
  return fmt::format("'{}' object has no {}", type_name(object), what);
}

// loop.index, loop.first ...; nothing for other names.
std::optional<Value>
loop_attribute(const Heap& heap, const Loop& loop, const std::string& name) {
  const auto n = static_cast<std::int64_t>(loop.items.size());
  const std::int64_t i = loop.index0;
  const auto at = [&](std::int64_t index, const char* which) {
    return index >= 0 && index < n
        ? loop.items[static_cast<std::size_t>(index)]
        : heap.undefined(fmt::format("there is no {} item", which));
  };
  if (name == "index") {
    return Value(i + 1);
  }
  if (name == "index0") {
    return Value(i);
  }
  if (name == "revindex") {
    return Value(n - i);
  }
  if (name == "revindex0") {
    return Value(n - i - 1);
  }
  if (name == "first") {
    return Value(i == 0);
  }
  if (name == "last") {
    return Value(i == n - 1);
  }
  if (name == "length") {
    return Value(n);
  }
  if (name == "depth") {
    return Value(std::int64_t{loop.depth0} + 1);
  }
  if (name == "depth0") {
    return Value(std::int64_t{loop.depth0});
  }
  if (name == "previtem") {
    return at(i - 1, "previous");
  }
  if (name == "nextitem") {
    return at(i + 1, "next");
  }
  return std::nullopt;
}

// What object.name is, before items of that key are considered.
std::optional<Value> own_attribute(
    Interpreter& interpreter,
    const Value& object,
    const std::string& name) {
  if (object.is_undefined()) {
    fail(ErrorKind::InvalidInput, "{}", *object.undefined().reason);
  }
  if (object.is(Type::Namespace)) {
    if (name.starts_with('_')) {
      return interpreter.heap().undefined(
          "access to attribute '" + name + "' of a namespace is unsafe");
    }
    const Value* value = object.name_space().find(name);
    return value == nullptr ? std::nullopt : std::optional<Value>(*value);
  }
  if (object.is(Type::Loop)) {
    if (auto value = loop_attribute(interpreter.heap(), object.loop(), name)) {
      return value;
    }
  }
  if (object.is(Type::Macro) && name == "name") {
    return interpreter.heap().string(object.macro().name);
  }
  Value method = find_method(interpreter, object, name);
  return method.is_none() ? std::nullopt
                          : std::optional<Value>(std::move(method));
}

// object[key], where there is such a thing.
std::optional<Value>
own_item(const Heap& heap, const Value& object, const Value& key) {
  if (object.is(Type::Dict)) {
    if (key.is(Type::Dict) || key.is(SequenceKind::List)) {
      return std::nullopt;
    }
    const Value* value = object.dict().find(hash_key(heap.budget(), key));
    return value == nullptr ? std::nullopt : std::optional<Value>(*value);
  }
  const bool is_indexed = object.is_string() || object.is(SequenceKind::List) ||
      object.is(SequenceKind::Tuple) || object.is(SequenceKind::Range);
  if (!is_indexed || !key.is_integral()) {
    return std::nullopt;
  }
  const auto n = static_cast<std::int64_t>(*length_of(object));
  const std::int64_t index =
      key.integer() < 0 ? key.integer() + n : key.integer();
  if (index < 0 || index >= n) {
    return std::nullopt;
  }
  if (!object.is_string()) {
    return object.sequence().items[static_cast<std::size_t>(index)];
  }
  return slice(heap, object, Value(index), Value(index + 1), Value());
}

} // namespace

Value Interpreter::attribute(const Value& object, const std::string& name) {
  if (auto value = own_attribute(*this, object, name)) {
    return *value;
  }
  if (object.is(Type::Dict)) {
    const Value* value = object.dict().find(name);
    if (value != nullptr) {
      return *value;
    }
  }
  return heap_.undefined(no_such(object, "attribute '" + name + "'"));
}

Value Interpreter::item(const Value& object, const Value& key) {
  if (object.is_undefined()) {
    fail(ErrorKind::InvalidInput, "{}", *object.undefined().reason);
  }
  if (auto value = own_item(heap_, object, key)) {
    return *value;
  }
  if (key.is_string()) {
    if (auto value = own_attribute(*this, object, key.text())) {
      return *value;
    }
    return heap_.undefined(no_such(object, "attribute '" + key.text() + "'"));
  }
  return heap_.undefined(no_such(object, "such item"));
}

Value Interpreter::path(const Value& object, const Value& attribute) {
  if (!attribute.is_string()) {
    return attribute.is_none() ? object : item(object, attribute);
  }
  Value at = object;
  std::string_view rest = attribute.text();
  while (true) {
    const std::size_t dot = rest.find('.');
    const std::string part(rest.substr(0, dot));
    const auto index = part.find_first_not_of("0123456789") == std::string::npos
        ? parse_integer(part, 10)
        : std::nullopt;
    at = item(at, index ? Value(*index) : heap_.string(part));
    if (dot == std::string_view::npos) {
      return at;
    }
    rest = rest.substr(dot + 1);
  }
}

} // namespace optiq::text::jinja
