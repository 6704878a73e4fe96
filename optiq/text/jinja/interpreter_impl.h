#pragma once

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "optiq/base/error.h"
#include "optiq/text/jinja/builtins_impl.h"
#include "optiq/text/jinja/syntax_impl.h"

namespace optiq::text::jinja {

/** Variables of one scope; the parent is the scope around it in the source. */
struct Scope {
  Scope(Budget* budget, std::shared_ptr<Scope> around)
      : parent(std::move(around)), charge(budget, 160) {}

  const Value* find(int symbol) const;
  void assign(int symbol, Value value);

  std::shared_ptr<Scope> parent; // as deep as the source is nested
  std::unordered_map<int, Value> variables; // by symbol
  Charge charge;
};
using ScopePtr = std::shared_ptr<Scope>;

struct Macro {
  std::string name;
  const MacroSource* source;
  ScopePtr scope; // in which it was defined
  bool autoescapes; // where it was defined
  Charge charge;
};

/** What `loop` is inside a for. */
struct Loop {
  Items items;
  std::int64_t index0 = -1;
  int depth0 = 0; // of recursion
  const Statement* statement = nullptr; // null when not recursive
  ScopePtr scope = nullptr; // around the loop; empty once it has ended
  Items changed; // last arguments of loop.changed()
  bool has_changed = false; // it was called
  Charge charge;
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

/** Gives a variable its value of now back when this ends. */
template <typename T>
class Restored {
 public:
  explicit Restored(T& variable) : variable_(variable), value_(variable) {}
  ~Restored() {
    variable_ = value_;
  }
  Restored(const Restored&) = delete;
  Restored& operator=(const Restored&) = delete;

 private:
  T& variable_;
  T value_;
};

/** Throws InvalidInput for a namespace's attribute that begins with "_", as
 * transformers does. */
void require_public(std::string_view attribute);

class Interpreter {
 public:
  Interpreter(
      const Template& parsed,
      std::vector<std::optional<Value>> variables, // by symbol
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
  /** Inside `autoescape`: what is printed is escaped unless it is markup. */
  bool autoescapes() const {
    return autoescapes_;
  }

  Value call(const Value& callee, Arguments& arguments);
  Value call_loop(const Loop& loop, const Value& items);
  /** Calls a builtin, after charging for what it is about to read. */
  Value call(const Builtin&, const Value& self, Arguments& arguments);
  Value filter(std::string_view name, const Value& input, Arguments&);
  bool test(std::string_view name, const Value& input, Arguments&);
  Value new_namespace(const Arguments& arguments);

 private:
  enum class Flow { Next, Break, Continue };

  Flow execute(const Block& block, const ScopePtr& scope, Text& out);
  Flow execute(const Statement&, const ScopePtr& scope, Text& out);
  Flow execute_scoped(const Statement&, const ScopePtr& scope, Text& out);
  Flow execute_if(const Statement&, const ScopePtr& scope, Text& out);
  Flow execute_in_scope(const Body& body, const ScopePtr& inner, Text& out);
  Flow execute_set_block(const Statement&, const ScopePtr& scope);
  Flow execute_filter_block(const Statement&, const ScopePtr&, Text& out);
  Flow execute_with(const Statement&, const ScopePtr& scope, Text& out);
  Flow execute_autoescape(const Statement&, const ScopePtr& scope, Text& out);
  void execute_call_block(const Statement&, const ScopePtr& scope, Text& out);
  Flow execute_for(
      const Statement&,
      const ScopePtr& scope,
      const Value& items,
      int depth0,
      Text& out);
  bool run_loop(const Statement&, Loop& loop, const Value& self, Text& out);
  Items loop_items(const Statement&, const ScopePtr& scope, const Value& items);
  void assign(const Target& target, const ScopePtr& scope, const Value& value);
  ScopePtr new_scope(const ScopePtr& parent);
  Value define_macro(const MacroSource& source, const ScopePtr& scope);
  Value call_macro(const Macro& macro, Arguments& arguments);
  void bind_macro(const Macro& macro, Arguments& arguments, const ScopePtr&);
  void bind_surplus(const Macro& macro, const Arguments&, const ScopePtr&);
  void write(Text& out, const Value& value);
  void write_block(Text& out, const Value& value);
  /** Of a block that was rendered: markup inside `autoescape`. */
  Value rendered(Text text) const;

  Value evaluate(const Expression& node, const ScopePtr& scope);
  Value evaluate_node(const Expression& node, const ScopePtr& scope);
  Value evaluate_or_none(const ExpressionPtr& node, const ScopePtr& scope);
  Value evaluate_name(const Expression& node, const ScopePtr& scope);
  Value lookup(int symbol, const ScopePtr& scope);
  Value evaluate_dict(const Expression& node, const ScopePtr& scope);
  Value evaluate_sign(const Expression& node, const ScopePtr& scope);
  Value evaluate_binary(const Expression& node, const ScopePtr& scope);
  Value evaluate_slice(const Expression& node, const ScopePtr& scope);
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
      const Value& block_text);
  Items evaluate_all(
      const std::vector<ExpressionPtr>& nodes,
      const ScopePtr& scope);
  Arguments evaluate_arguments(const Expression& node, const ScopePtr& scope);
  void evaluate_argument(
      const Argument& argument,
      const ScopePtr& scope,
      Arguments& out,
      std::unordered_set<std::string>& names);

  const Template& template_;
  Budget budget_; // outlives every value below
  Heap heap_{&budget_};
  std::vector<std::optional<Value>> data_; // by symbol: variables of the caller
  ScopePtr root_; // of the template itself
  int loop_symbol_ = -1;
  int caller_symbol_ = -1;
  int varargs_symbol_ = -1;
  int kwargs_symbol_ = -1;
  std::deque<Namespace> namespaces_; // freed together at the end
  std::deque<Macro> macros_;
  bool autoescapes_ = false;
  int line_ = 0;
  int evaluations_ = 0; // nested at this moment
  int calls_ = 0; // nested at this moment
};

} // namespace optiq::text::jinja
