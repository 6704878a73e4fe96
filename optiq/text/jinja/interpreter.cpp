#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"

namespace optiq::text::jinja {
namespace {

int number_of(const Template& parsed, std::string_view name) {
  const auto at = std::find(parsed.symbols.begin(), parsed.symbols.end(), name);
  return at == parsed.symbols.end()
      ? -1
      : static_cast<int>(at - parsed.symbols.begin());
}

} // namespace

const Value* Scope::find(int symbol) const {
  for (const Scope* scope = this; scope != nullptr;
       scope = scope->parent.get()) {
    for (const auto& [name, value] : scope->variables) {
      if (name == symbol) {
        return &value;
      }
    }
  }
  return nullptr;
}

void Scope::assign(int symbol, Value value) {
  for (auto& [name, old] : variables) {
    if (name == symbol) {
      old = std::move(value);
      return;
    }
  }
  variables.emplace_back(symbol, std::move(value));
}

Interpreter::Interpreter(
    const Template& parsed,
    const artifacts::Json& variables,
    const RenderBudget& limits)
    : template_(parsed),
      budget_(limits),
      data_(parsed.symbols.size()),
      loop_symbol_(number_of(parsed, "loop")),
      caller_symbol_(number_of(parsed, "caller")),
      varargs_symbol_(number_of(parsed, "varargs")),
      kwargs_symbol_(number_of(parsed, "kwargs")) {
  const Heap callers_data(nullptr); // not the template's to pay for
  for (std::size_t i = 0; i < data_.size(); ++i) {
    const auto at = variables.find(parsed.symbols[i]);
    if (at != variables.end()) {
      data_[i] = callers_data.from_json(*at);
    }
  }
}

std::string Interpreter::run() {
  std::string out;
  execute_in_scope(template_.body, std::make_shared<Scope>(), out);
  return out;
}

ScopePtr Interpreter::new_scope(const ScopePtr& parent) const {
  auto scope = std::make_shared<Scope>();
  scope->parent = parent;
  return scope;
}

void Interpreter::write(std::string& out, const Value& value) {
  const std::size_t before = out.size();
  write_text(&budget_, out, value);
  budget_.work(out.size() - before);
  budget_.require_output(out.size());
}

Interpreter::Flow Interpreter::execute(
    const Block& block,
    const ScopePtr& scope,
    std::string& out) {
  for (const Statement& statement : block) {
    const Flow flow = execute(statement, scope, out);
    if (flow != Flow::Next) {
      return flow;
    }
  }
  return Flow::Next;
}

Interpreter::Flow Interpreter::execute_in_scope(
    const Body& body,
    const ScopePtr& inner,
    std::string& out) {
  for (const int symbol : body.undefined_first) {
    const auto index = static_cast<std::size_t>(symbol);
    const std::string& name = template_.symbols[index];
    if (data_[index] || find_global(name) != nullptr) {
      inner->assign(symbol, heap_.undefined("'" + name + "' is undefined"));
    }
  }
  return execute(body.statements, inner, out);
}

Interpreter::Flow Interpreter::execute(
    const Statement& statement,
    const ScopePtr& scope,
    std::string& out) {
  const Level level(evaluations_, kMaxEvaluations, "statements");
  budget_.work();
  line_ = statement.line;
  switch (statement.kind) {
    case StatementKind::Text:
      budget_.require_output(out.size() + statement.text.size());
      budget_.work(statement.text.size());
      out += statement.text;
      return Flow::Next;
    case StatementKind::Print:
      for (const ExpressionPtr& value : statement.expressions) {
        write(out, evaluate(*value, scope));
      }
      return Flow::Next;
    case StatementKind::If:
      return execute_if(statement, scope, out);
    case StatementKind::For: {
      const Value items = evaluate(*statement.expressions[0], scope);
      return execute_for(statement, scope, items, 0, out);
    }
    case StatementKind::Set:
      assign(
          statement.targets[0],
          scope,
          evaluate(*statement.expressions[0], scope));
      return Flow::Next;
    case StatementKind::SetBlock:
      return execute_set_block(statement, scope);
    case StatementKind::Macro:
      scope->assign(statement.symbol, define_macro(*statement.macro, scope));
      return Flow::Next;
    case StatementKind::CallBlock:
      execute_call_block(statement, scope, out);
      return Flow::Next;
    case StatementKind::FilterBlock:
      return execute_filter_block(statement, scope, out);
    case StatementKind::With:
      return execute_with(statement, scope, out);
    case StatementKind::Generation:
      return execute_in_scope(statement.body, new_scope(scope), out);
    case StatementKind::Break:
      return Flow::Break;
    case StatementKind::Continue:
      return Flow::Continue;
  }
  return Flow::Next;
}

Interpreter::Flow Interpreter::execute_if(
    const Statement& statement,
    const ScopePtr& scope,
    std::string& out) {
  for (const Branch& branch : statement.branches) {
    if (branch.condition == nullptr ||
        is_true(evaluate(*branch.condition, scope))) {
      return execute(branch.body, scope, out);
    }
  }
  return Flow::Next;
}

Interpreter::Flow Interpreter::execute_set_block(
    const Statement& statement,
    const ScopePtr& scope) {
  std::string text;
  const ScopePtr inner = new_scope(scope);
  const Flow flow = execute_in_scope(statement.body, inner, text);
  if (flow != Flow::Next) {
    return flow; // nothing is assigned
  }
  Value value = heap_.string(std::move(text));
  if (!statement.expressions.empty()) {
    value = evaluate_filter(*statement.expressions[0], inner, &value);
  }
  assign(statement.targets[0], scope, value);
  return Flow::Next;
}

Interpreter::Flow Interpreter::execute_filter_block(
    const Statement& statement,
    const ScopePtr& scope,
    std::string& out) {
  std::string text;
  const ScopePtr inner = new_scope(scope);
  const Flow flow = execute_in_scope(statement.body, inner, text);
  if (flow == Flow::Next) {
    const Value value = heap_.string(std::move(text));
    write(out, evaluate_filter(*statement.expressions[0], inner, &value));
  }
  return flow;
}

Interpreter::Flow Interpreter::execute_with(
    const Statement& statement,
    const ScopePtr& scope,
    std::string& out) {
  const ScopePtr inner = new_scope(scope);
  for (std::size_t i = 0; i < statement.targets.size(); ++i) {
    assign(
        statement.targets[i],
        inner,
        evaluate(*statement.expressions[i], scope));
  }
  return execute_in_scope(statement.body, inner, out);
}

void Interpreter::execute_call_block(
    const Statement& statement,
    const ScopePtr& scope,
    std::string& out) {
  const Value caller = define_macro(*statement.macro, scope);
  write(out, evaluate_call(*statement.expressions[0], scope, &caller));
}

// The items of a loop, those that its inline `if` drops left out.
std::vector<Value> Interpreter::loop_items(
    const Statement& statement,
    const ScopePtr& scope,
    const Value& items) {
  std::vector<Value> all = iterate(heap_, items);
  if (statement.condition == nullptr) {
    return all;
  }
  std::vector<Value> kept;
  for (Value& value : all) {
    const ScopePtr inner = new_scope(scope);
    assign(statement.targets[0], inner, value);
    if (is_true(evaluate(*statement.condition, inner))) {
      kept.push_back(std::move(value));
    }
  }
  return kept;
}

Interpreter::Flow Interpreter::execute_for(
    const Statement& statement,
    const ScopePtr& scope,
    const Value& items,
    int depth0,
    std::string& out) {
  auto loop = std::make_shared<Loop>();
  loop->items = loop_items(statement, scope, items);
  loop->depth0 = depth0;
  loop->statement = statement.is_recursive ? &statement : nullptr;
  loop->scope = scope;
  const Charge charge(&budget_, loop->items.size() * sizeof(Value));
  // A template may keep `loop` in a namespace. What it holds goes when the loop
  // ends, so that no cycle of owners is left.
  struct End {
    Loop& loop;
    ~End() {
      loop.scope.reset();
      loop.changed.clear();
      loop.statement = nullptr;
    }
  } end{*loop};
  const Value self{loop};
  if (!run_loop(statement, *loop, self, out)) {
    return execute_in_scope(statement.otherwise, new_scope(scope), out);
  }
  return Flow::Next;
}

// Whether an iteration came to its end: if none did, by `break` and `continue`
// too, jinja2 goes on with `else`.
bool Interpreter::run_loop(
    const Statement& statement,
    Loop& loop,
    const Value& self,
    std::string& out) {
  bool any_ended = false;
  for (std::size_t i = 0; i < loop.items.size(); ++i) {
    budget_.work();
    loop.index0 = static_cast<std::int64_t>(i);
    const ScopePtr inner = new_scope(loop.scope);
    if (loop_symbol_ >= 0) {
      inner->assign(loop_symbol_, self);
    }
    assign(statement.targets[0], inner, loop.items[i]);
    const Flow flow = execute_in_scope(statement.body, inner, out);
    if (flow == Flow::Break) {
      break;
    }
    any_ended |= flow == Flow::Next;
  }
  return any_ended;
}

Value Interpreter::call_loop(const Loop& loop, const Value& items) {
  if (loop.statement == nullptr) {
    fail(
        ErrorKind::InvalidInput,
        "found a call of 'loop', which only a loop marked 'recursive' allows "
        "while it runs");
  }
  const Level level(calls_, budget_.max_calls(), "recursive loops");
  std::string text;
  execute_for(*loop.statement, loop.scope, items, loop.depth0 + 1, text);
  return heap_.string(std::move(text));
}

void Interpreter::assign(
    const Target& target,
    const ScopePtr& scope,
    const Value& value) {
  switch (target.kind) {
    case Target::Kind::Name:
      scope->assign(target.symbol, value);
      return;
    case Target::Kind::Attribute: {
      const Value space = lookup(target.symbol, scope);
      if (!space.is(Type::Namespace)) {
        fail(
            ErrorKind::InvalidInput,
            "found {} to assign '.{}' to, expected a namespace",
            type_name(space),
            target.attribute);
      }
      space.name_space().assign(target.attribute, value);
      return;
    }
    case Target::Kind::Tuple:
      break;
  }
  const std::vector<Value> items = iterate(heap_, value);
  if (items.size() != target.items.size()) {
    fail(
        ErrorKind::InvalidInput,
        "found {} values to unpack, expected {}",
        items.size(),
        target.items.size());
  }
  for (std::size_t i = 0; i < items.size(); ++i) {
    assign(target.items[i], scope, items[i]);
  }
}

Value Interpreter::new_namespace(Arguments& arguments) {
  Namespace& space = namespaces_.emplace_back();
  if (arguments.positional.size() > 1) {
    fail(
        ErrorKind::InvalidInput,
        "namespace: found {} arguments, expected at most one dict",
        arguments.positional.size());
  }
  for (const Value& source : arguments.positional) {
    if (!source.is(Type::Dict)) {
      fail(
          ErrorKind::InvalidInput,
          "namespace: found a {}, expected a dict",
          type_name(source));
    }
    for (const auto& [key, value] : source.dict().items) {
      space.assign(to_text(&budget_, key), value);
    }
  }
  for (auto& [key, value] : arguments.keywords) {
    space.assign(key, value);
  }
  budget_.hold(256 + 64 * space.attributes.size()); // freed at the end
  return Value(&space);
}

Value Interpreter::define_macro(
    const MacroSource& source,
    const ScopePtr& scope) {
  budget_.hold(128); // freed at the end
  macros_.push_back({source.name, &source, scope});
  return Value(&macros_.back());
}

void Interpreter::bind_macro(
    const Macro& macro,
    Arguments& arguments,
    const ScopePtr& scope) {
  const MacroSource& source = *macro.source;
  const std::size_t n = source.parameters.size();
  const std::size_t first_default = n - source.defaults.size();
  auto& keywords = arguments.keywords;
  const auto take = [&keywords](const std::string& name) {
    std::optional<Value> value;
    for (auto at = keywords.begin(); at != keywords.end(); ++at) {
      if (at->first == name) {
        value = std::move(at->second);
        keywords.erase(at);
        break;
      }
    }
    return value;
  };
  bool has_caller_parameter = false;
  for (std::size_t i = 0; i < n; ++i) {
    const int symbol = source.parameters[i];
    const std::string& name =
        template_.symbols[static_cast<std::size_t>(symbol)];
    has_caller_parameter |= symbol == caller_symbol_;
    std::optional<Value> value;
    if (i < arguments.positional.size()) {
      value = arguments.positional[i];
    } else {
      value = take(name);
    }
    if (!value && i >= first_default) {
      value = evaluate(*source.defaults[i - first_default], scope);
    }
    scope->assign(
        symbol,
        value ? *value
              : heap_.undefined("parameter '" + name + "' was not provided"));
  }
  if (source.uses_caller && !has_caller_parameter) {
    const auto caller = take("caller");
    scope->assign(
        caller_symbol_,
        caller ? *caller : heap_.undefined("No caller defined"));
  }
  if (source.uses_kwargs) {
    std::vector<std::pair<Value, Value>> rest;
    for (auto& [key, value] : keywords) {
      rest.emplace_back(heap_.string(key), std::move(value));
    }
    scope->assign(kwargs_symbol_, heap_.dict(std::move(rest)));
  } else if (!keywords.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "macro '{}' has no parameter '{}'",
        macro.name,
        keywords[0].first);
  }
  const std::size_t used = std::min(n, arguments.positional.size());
  std::vector<Value> surplus(
      arguments.positional.begin() + static_cast<std::ptrdiff_t>(used),
      arguments.positional.end());
  if (source.uses_varargs) {
    scope->assign(varargs_symbol_, heap_.tuple(std::move(surplus)));
  } else if (!surplus.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "macro '{}': found {} arguments, expected at most {}",
        macro.name,
        arguments.positional.size(),
        n);
  }
}

Value Interpreter::call_macro(const Macro& macro, Arguments& arguments) {
  const Level level(calls_, budget_.max_calls(), "calls of macros");
  const ScopePtr scope = new_scope(macro.scope);
  bind_macro(macro, arguments, scope);
  std::string text;
  execute_in_scope(macro.source->body, scope, text);
  return heap_.string(std::move(text));
}

Value Interpreter::call(const Value& callee, Arguments& arguments) {
  switch (callee.type()) {
    case Type::Function:
      return callee.function().native(
          *this,
          callee.function().self ? *callee.function().self : Value(),
          arguments);
    case Type::Macro:
      return call_macro(callee.macro(), arguments);
    case Type::Loop: {
      Parameters parameters("loop", arguments, {"iterable"}, 1);
      return call_loop(callee.loop(), parameters[0]);
    }
    case Type::Undefined:
      fail(ErrorKind::InvalidInput, "{}", *callee.undefined().reason);
    default:
      fail(
          ErrorKind::InvalidInput,
          "'{}' object is not callable: expected a macro, function or method",
          type_name(callee));
  }
}

} // namespace optiq::text::jinja
