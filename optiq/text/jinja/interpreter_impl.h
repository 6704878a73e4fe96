#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "optiq/base/error.h"
#include "optiq/text/jinja/builtins_impl.h"
#include "optiq/text/jinja/syntax_impl.h"

namespace optiq::text::jinja {

/** Variables of one scope; the parent is the scope around it in the source. */
struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<int, Value>> variables; // by symbol

  const Value* find(int symbol) const;
  void assign(int symbol, Value value);
};
using ScopePtr = std::shared_ptr<Scope>;

struct Macro {
  std::string name;
  const MacroSource* source;
  ScopePtr scope; // in which it was defined
};

/** What `loop` is inside a for. */
struct Loop {
  std::vector<Value> items;
  std::int64_t index0 = -1;
  int depth0 = 0; // of recursion
  const Statement* statement; // null when not recursive
  ScopePtr scope; // around the loop; empty once it has ended
  std::vector<Value> changed; // last arguments of loop.changed()
};

// Of statements and expressions together. Each takes some hundred bytes of the
// C++ stack, several times that under a sanitizer.
constexpr int kMaxEvaluations = 1000;

/** Adds one to a counter of nesting while it lives. */
class Level {
 public:
  Level(int& counter, int limit, const char* what) : counter_(counter) {
    if (counter_ >= limit) {
      fail(
          ErrorKind::Exhausted,
          "{} are nested more than {} deep. Does a macro call itself without "
          "end?",
          what,
          limit);
    }
    ++counter_;
  }
  ~Level() {
    --counter_;
  }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

 private:
  int& counter_;
};

class Interpreter {
 public:
  Interpreter(
      const Template& parsed,
      const artifacts::Json& variables,
      const RenderBudget& limits);

  std::string run();
  /** Of the statement or expression evaluated last. */
  int line() const {
    return line_;
  }

  const Heap& heap() const {
    return heap_;
  }
  Budget& budget() {
    return budget_;
  }

  Value call(const Value& callee, Arguments& arguments);
  Value call_loop(const Loop& loop, const Value& items);
  Value filter(const std::string& name, const Value& input, Arguments&);
  bool test(const std::string& name, const Value& input, Arguments&);
  /** object.name and object[key] as the sandbox of jinja2 has them. */
  Value attribute(const Value& object, const std::string& name);
  Value item(const Value& object, const Value& key);
  /** Walks "a.b.0" (or an integer) from `object`. */
  Value path(const Value& object, const Value& attribute);
  Value new_namespace(Arguments& arguments);

 private:
  enum class Flow { Next, Break, Continue };

  Flow execute(const Block& block, const ScopePtr& scope, std::string& out);
  Flow execute(const Statement&, const ScopePtr& scope, std::string& out);
  Flow execute_if(const Statement&, const ScopePtr& scope, std::string& out);
  Flow
  execute_in_scope(const Body& body, const ScopePtr& inner, std::string& out);
  Flow execute_set_block(const Statement&, const ScopePtr& scope);
  Flow execute_filter_block(
      const Statement&,
      const ScopePtr& scope,
      std::string& out);
  Flow execute_with(const Statement&, const ScopePtr& scope, std::string& out);
  void
  execute_call_block(const Statement&, const ScopePtr& scope, std::string& out);
  Flow execute_for(
      const Statement&,
      const ScopePtr& scope,
      const Value& items,
      int depth0,
      std::string& out);
  bool
  run_loop(const Statement&, Loop& loop, const Value& self, std::string& out);
  std::vector<Value>
  loop_items(const Statement&, const ScopePtr& scope, const Value& items);
  void assign(const Target& target, const ScopePtr& scope, const Value& value);
  ScopePtr new_scope(const ScopePtr& parent) const;
  Value define_macro(const MacroSource& source, const ScopePtr& scope);
  Value call_macro(const Macro& macro, Arguments& arguments);
  void bind_macro(const Macro& macro, Arguments& arguments, const ScopePtr&);
  void write(std::string& out, const Value& value);

  Value evaluate(const Expression& node, const ScopePtr& scope);
  Value evaluate_node(const Expression& node, const ScopePtr& scope);
  Value evaluate_or_none(const ExpressionPtr& node, const ScopePtr& scope);
  Value evaluate_name(const Expression& node, const ScopePtr& scope);
  Value lookup(int symbol, const ScopePtr& scope);
  Value evaluate_dict(const Expression& node, const ScopePtr& scope);
  Value evaluate_sign(const Expression& node, const ScopePtr& scope);
  Value evaluate_concat(const Expression& node, const ScopePtr& scope);
  Value evaluate_compare(const Expression& node, const ScopePtr& scope);
  Value evaluate_conditional(const Expression& node, const ScopePtr& scope);
  Value evaluate_call(
      const Expression& node,
      const ScopePtr& scope,
      const Value* caller);
  Value evaluate_filter(
      const Expression& node,
      const ScopePtr& scope,
      const Value* block_text);
  std::vector<Value> evaluate_all(
      const std::vector<ExpressionPtr>& nodes,
      const ScopePtr& scope);
  Arguments evaluate_arguments(const Expression& node, const ScopePtr& scope);

  const Template& template_;
  Budget budget_; // outlives every value below
  Heap heap_{&budget_};
  std::vector<std::optional<Value>> data_; // by symbol: variables of the caller
  int loop_symbol_ = -1;
  int caller_symbol_ = -1;
  int varargs_symbol_ = -1;
  int kwargs_symbol_ = -1;
  std::deque<Namespace> namespaces_; // freed together at the end
  std::deque<Macro> macros_;
  int line_ = 0;
  int evaluations_ = 0; // nested at this moment
  int calls_ = 0; // nested at this moment
};

} // namespace optiq::text::jinja
