#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

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
    case ExpressionKind::Binary:
      return evaluate_binary(node, scope);
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
      return get_attribute(
          heap_, evaluate(*node.children[0], scope), node.name);
    case ExpressionKind::Subscript: {
      const Value object = evaluate(*node.children[0], scope);
      return get_item(heap_, object, evaluate(*node.children[1], scope));
    }
    case ExpressionKind::Slice:
      return evaluate_slice(node, scope);
    case ExpressionKind::Call:
      return evaluate_call(node, scope, nullptr);
    case ExpressionKind::Filter:
      return evaluate_filter(node, scope, Value());
    case ExpressionKind::Test: {
      const Value input = evaluate(*node.children[0], scope);
      Arguments arguments = evaluate_arguments(node, scope);
      line_ = node.line;
      return Value(test(node.name, input, arguments));
    }
  }
  return Value();
}

Value Interpreter::evaluate_binary(
    const Expression& node,
    const ScopePtr& scope) {
  const Value left = evaluate(*node.children[0], scope);
  const Value right = evaluate(*node.children[1], scope);
  line_ = node.line;
  if (node.operators[0] == Operator::Modulo && left.is_string()) {
    return percent_format(heap_, left.string(), right);
  }
  return binary(heap_, node.operators[0], left, right);
}

Value Interpreter::evaluate_slice(
    const Expression& node,
    const ScopePtr& scope) {
  const Value object = evaluate(*node.children[0], scope);
  const Value start = evaluate_or_none(node.children[1], scope);
  const Value stop = evaluate_or_none(node.children[2], scope);
  const Value step = evaluate_or_none(node.children[3], scope);
  line_ = node.line;
  return slice(heap_, object, start, stop, step);
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
  if (const Builtin* function = globals().find(name)) {
    return heap_.function(*function, Value());
  }
  if (is_left_out("function", name)) {
    fail(ErrorKind::Unsupported, "{}", unknown_builtin("function", name));
  }
  return heap_.undefined("'" + shortened(name) + "' is undefined");
}

Items Interpreter::evaluate_all(
    const std::vector<ExpressionPtr>& nodes,
    const ScopePtr& scope) {
  Items values = heap_.items();
  values.reserve(nodes.size());
  for (const ExpressionPtr& node : nodes) {
    values.push(evaluate(*node, scope));
  }
  return values;
}

Value Interpreter::evaluate_dict(
    const Expression& node,
    const ScopePtr& scope) {
  auto dict = heap_.dict();
  for (std::size_t i = 0; i < node.children.size(); i += 2) {
    Value key = evaluate(*node.children[i], scope);
    Value value = evaluate(*node.children[i + 1], scope);
    dict->set(std::move(key), std::move(value));
  }
  line_ = node.line;
  return Value(std::move(dict));
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
  return is_negative
      ? negated(heap_, value)
      : binary(heap_, Operator::Add, Value(std::int64_t{0}), value);
}

Value Interpreter::evaluate_concat(
    const Expression& node,
    const ScopePtr& scope) {
  const Items values = evaluate_all(node.children, scope);
  // As Python's markup_join: what is no markup is escaped beside it.
  const bool escapes = autoescapes_ &&
      std::any_of(values.begin(), values.end(), [](const Value& value) {
                         return value.is_markup();
                       });
  Text text(&budget_);
  for (const Value& value : values) {
    write_text(text, escapes ? escaped(heap_, value) : value);
  }
  return heap_.string(std::move(text), escapes);
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

void Interpreter::evaluate_argument(
    const Argument& argument,
    const ScopePtr& scope,
    Arguments& out,
    std::unordered_set<std::string>& names) {
  const auto add_keyword = [&](const std::string& name, Value value) {
    if (!names.insert(name).second) {
      fail(
          ErrorKind::InvalidInput,
          "found keyword argument {} twice in a call, expected once",
          quote(name));
    }
    out.add_keyword(name, std::move(value));
  };
  Value value = evaluate(*argument.value, scope);
  switch (argument.kind) {
    case Argument::Kind::Positional:
      out.positional.push(std::move(value));
      return;
    case Argument::Kind::Keyword:
      add_keyword(argument.name, std::move(value));
      return;
    case Argument::Kind::Star:
      out.positional.append(iterate(heap_, value));
      return;
    case Argument::Kind::DoubleStar:
      break;
  }
  if (!value.is(Type::Dict)) {
    fail(
        ErrorKind::InvalidInput,
        "found a {} after '**', expected a dict",
        type_name(value));
  }
  for (const auto& [key, one] : value.dict().items()) {
    if (!key.is_string()) {
      fail(
          ErrorKind::InvalidInput,
          "found a {} as the name of an argument, expected a string",
          type_name(key));
    }
    add_keyword(key.text(), one);
  }
}

Arguments Interpreter::evaluate_arguments(
    const Expression& node,
    const ScopePtr& scope) {
  Arguments out(&budget_);
  std::unordered_set<std::string> names;
  for (const Argument& argument : node.arguments) {
    evaluate_argument(argument, scope, out, names);
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
    arguments.add_keyword("caller", *caller);
  }
  line_ = node.line;
  return call(callee, arguments);
}

Value Interpreter::evaluate_filter(
    const Expression& node,
    const ScopePtr& scope,
    const Value& block_text) {
  const Value input = node.children[0] == nullptr ? block_text
      : node.children[0]->kind == ExpressionKind::Filter
      ? evaluate_filter(*node.children[0], scope, block_text)
      : evaluate(*node.children[0], scope);
  Arguments arguments = evaluate_arguments(node, scope);
  line_ = node.line;
  return filter(node.name, input, arguments);
}

} // namespace optiq::text::jinja
