#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

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
    const auto at = scope->variables.find(symbol);
    if (at != scope->variables.end()) {
      return &at->second;
    }
  }
  return nullptr;
}

void Scope::assign(int symbol, Value value) {
  const auto [at, is_new] = variables.try_emplace(symbol);
  if (is_new) {
    charge.grow(80); // a node and its place in the table
  }
  at->second = std::move(value);
}

Interpreter::Interpreter(
    const Template& parsed,
    std::vector<std::optional<Value>> variables,
    const RenderBudget& limits)
    : template_(parsed),
      budget_(limits),
      data_(std::move(variables)),
      loop_symbol_(number_of(parsed, "loop")),
      caller_symbol_(number_of(parsed, "caller")),
      varargs_symbol_(number_of(parsed, "varargs")),
      kwargs_symbol_(number_of(parsed, "kwargs")) {}

std::string Interpreter::run() {
  Text out(&budget_);
  root_ = new_scope(nullptr);
  execute_in_scope(template_.body, root_, out);
  return out.take().first;
}

ScopePtr Interpreter::new_scope(const ScopePtr& parent) {
  return std::make_shared<Scope>(&budget_, parent);
}

void Interpreter::write(Text& out, const Value& value) {
  const Value shown = autoescapes_ ? escaped(heap_, value) : value;
  budget_.require_output(
      out.size() + (shown.is_string() ? shown.text().size() : 0));
  write_text(out, shown);
  budget_.require_output(out.size());
}

Value Interpreter::rendered(Text text) const {
  return heap_.string(std::move(text), autoescapes_);
}

Interpreter::Flow
Interpreter::execute(const Block& block, const ScopePtr& scope, Text& out) {
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
    Text& out) {
  for (const int symbol : body.undefined_first) {
    const std::string& name =
        template_.symbols[static_cast<std::size_t>(symbol)];
    inner->assign(
        symbol, heap_.undefined("'" + shortened(name) + "' is undefined"));
  }
  return execute(body.statements, inner, out);
}

Interpreter::Flow Interpreter::execute(
    const Statement& statement,
    const ScopePtr& scope,
    Text& out) {
  const Level level(evaluations_, kMaxEvaluations, "statements");
  budget_.work();
  line_ = statement.line;
  switch (statement.kind) {
    case StatementKind::Text:
      budget_.require_output(out.size() + statement.text.size());
      out.append(statement.text);
      return Flow::Next;
    case StatementKind::Print:
      for (const ExpressionPtr& value : statement.expressions) {
        write(out, evaluate(*value, scope));
      }
      return Flow::Next;
    case StatementKind::Do:
      evaluate(*statement.expressions[0], scope);
      return Flow::Next;
    case StatementKind::Set:
      assign(
          statement.targets[0],
          scope,
          evaluate(*statement.expressions[0], scope));
      return Flow::Next;
    case StatementKind::Macro:
      scope->assign(statement.symbol, define_macro(*statement.macro, scope));
      return Flow::Next;
    case StatementKind::CallBlock:
      execute_call_block(statement, scope, out);
      return Flow::Next;
    case StatementKind::Break:
      return Flow::Break;
    case StatementKind::Continue:
      return Flow::Continue;
    default:
      return execute_scoped(statement, scope, out);
  }
}

// Statements with bodies.
Interpreter::Flow Interpreter::execute_scoped(
    const Statement& statement,
    const ScopePtr& scope,
    Text& out) {
  switch (statement.kind) {
    case StatementKind::If:
      return execute_if(statement, scope, out);
    case StatementKind::For: {
      const Value items = evaluate(*statement.expressions[0], scope);
      return execute_for(statement, scope, items, 0, out);
    }
    case StatementKind::SetBlock:
      return execute_set_block(statement, scope);
    case StatementKind::FilterBlock:
      return execute_filter_block(statement, scope, out);
    case StatementKind::With:
      return execute_with(statement, scope, out);
    case StatementKind::Autoescape:
      return execute_autoescape(statement, scope, out);
    case StatementKind::Block:
      return execute_in_scope(
          statement.body, new_scope(statement.is_scoped ? scope : root_), out);
    default: // Generation
      return execute_in_scope(statement.body, new_scope(scope), out);
  }
}

Interpreter::Flow Interpreter::execute_if(
    const Statement& statement,
    const ScopePtr& scope,
    Text& out) {
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
  Text text(&budget_);
  const ScopePtr inner = new_scope(scope);
  const Flow flow = execute_in_scope(statement.body, inner, text);
  if (flow != Flow::Next) {
    return flow; // nothing is assigned
  }
  Value value = rendered(std::move(text));
  if (!statement.expressions.empty()) {
    value = evaluate_filter(*statement.expressions[0], inner, value);
    if (autoescapes_) {
      const Value shown = as_text(heap_, value);
      value = heap_.string(shown.text(), true);
    }
  }
  assign(statement.targets[0], scope, value);
  return Flow::Next;
}

Interpreter::Flow Interpreter::execute_filter_block(
    const Statement& statement,
    const ScopePtr& scope,
    Text& out) {
  Text text(&budget_);
  const ScopePtr inner = new_scope(scope);
  const Flow flow = execute_in_scope(statement.body, inner, text);
  if (flow == Flow::Next) {
    const Value value = rendered(std::move(text));
    write_block(out, evaluate_filter(*statement.expressions[0], inner, value));
  }
  return flow;
}

// What a filter or call block gives is text already, and not escaped again.
void Interpreter::write_block(Text& out, const Value& value) {
  if (!value.is_string()) {
    fail(
        ErrorKind::InvalidInput,
        "found a {} as the result of a filter or call block, expected text",
        type_name(value));
  }
  budget_.require_output(out.size() + value.text().size());
  out.append(value.text());
}

Interpreter::Flow Interpreter::execute_with(
    const Statement& statement,
    const ScopePtr& scope,
    Text& out) {
  const ScopePtr inner = new_scope(scope);
  for (std::size_t i = 0; i < statement.targets.size(); ++i) {
    assign(
        statement.targets[i],
        inner,
        evaluate(*statement.expressions[i], scope));
  }
  return execute_in_scope(statement.body, inner, out);
}

Interpreter::Flow Interpreter::execute_autoescape(
    const Statement& statement,
    const ScopePtr& scope,
    Text& out) {
  const ScopePtr inner = new_scope(scope);
  const Restored<bool> before(autoescapes_);
  autoescapes_ = is_true(evaluate(*statement.expressions[0], inner));
  return execute_in_scope(statement.body, inner, out);
}

void Interpreter::execute_call_block(
    const Statement& statement,
    const ScopePtr& scope,
    Text& out) {
  const Value caller = define_macro(*statement.macro, scope);
  write_block(out, evaluate_call(*statement.expressions[0], scope, &caller));
}

// The items of a loop, those that its inline `if` drops left out.
Items Interpreter::loop_items(
    const Statement& statement,
    const ScopePtr& scope,
    const Value& items) {
  Items all = iterate(heap_, items);
  if (statement.condition == nullptr) {
    return all;
  }
  Items kept = heap_.items();
  for (Value& value : all) {
    const ScopePtr inner = new_scope(scope);
    assign(statement.targets[0], inner, value);
    if (is_true(evaluate(*statement.condition, inner))) {
      kept.push(std::move(value));
    }
  }
  return kept;
}

Interpreter::Flow Interpreter::execute_for(
    const Statement& statement,
    const ScopePtr& scope,
    const Value& items,
    int depth0,
    Text& out) {
  auto loop = std::make_shared<Loop>(Loop{
      .items = loop_items(statement, scope, items),
      .depth0 = depth0,
      .statement = statement.is_recursive ? &statement : nullptr,
      .scope = scope,
      .changed = heap_.items(),
      .charge = Charge(&budget_, sizeof(Loop))});
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
    Text& out) {
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
      require_public(target.attribute);
      space.name_space().assign(target.attribute, value);
      return;
    }
    case Target::Kind::Tuple:
      break;
  }
  const Items items = iterate(heap_, value);
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

} // namespace optiq::text::jinja
