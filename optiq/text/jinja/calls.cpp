// Calls of macros, loops and builtins; namespaces.
#include <algorithm>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

/** The keyword arguments of a call, of which each is taken once. */
class Keywords {
 public:
  explicit Keywords(Arguments& arguments) : arguments_(arguments) {
    for (std::size_t i = 0; i < arguments.keywords.size(); ++i) {
      places_.emplace(arguments.keywords[i].first, i);
    }
  }

  std::optional<Value> take(std::string_view name) {
    const auto at = places_.find(name);
    if (at == places_.end()) {
      return std::nullopt;
    }
    const std::size_t place = at->second;
    places_.erase(at);
    return arguments_.keywords[place].second;
  }
  /** In the order of the call. */
  template <typename Visit>
  void for_each_left(Visit visit) const {
    for (const auto& [name, value] : arguments_.keywords) {
      if (places_.contains(name)) {
        visit(name, value);
      }
    }
  }

 private:
  Arguments& arguments_;
  std::unordered_map<std::string_view, std::size_t> places_;
};

} // namespace

void require_public(std::string_view attribute) {
  if (attribute.starts_with('_')) {
    fail(
        ErrorKind::InvalidInput,
        "found attribute {} of a namespace, expected a name that does not "
        "begin with an underscore",
        quote(attribute));
  }
}

Value Interpreter::call_loop(const Loop& loop, const Value& items) {
  if (loop.statement == nullptr) {
    fail(
        ErrorKind::InvalidInput,
        "found a call of 'loop', which only a loop marked 'recursive' allows "
        "while it runs");
  }
  const Level level(calls_, budget_.max_calls(), "recursive loops");
  Text text(&budget_);
  execute_for(*loop.statement, loop.scope, items, loop.depth0 + 1, text);
  return rendered(std::move(text));
}

Value Interpreter::new_namespace(const Arguments& arguments) {
  const Value attributes = make_dict("namespace", heap_, arguments);
  Namespace& space = namespaces_.emplace_back(&budget_);
  for (const auto& [key, value] : attributes.dict().items()) {
    const Text name = to_text(&budget_, key);
    require_public(name.str());
    space.assign(name.str(), value);
  }
  return Value(&space);
}

Value Interpreter::define_macro(
    const MacroSource& source,
    const ScopePtr& scope) {
  // Freed at the end.
  macros_.push_back(
      {source.name, &source, scope, autoescapes_, Charge(&budget_, 160)});
  return Value(&macros_.back());
}

void Interpreter::bind_macro(
    const Macro& macro,
    Arguments& arguments,
    const ScopePtr& scope) {
  const MacroSource& source = *macro.source;
  const std::size_t n = source.parameters.size();
  const std::size_t first_default = n - source.defaults.size();
  Keywords keywords(arguments);
  bool has_caller_parameter = false;
  for (std::size_t i = 0; i < n; ++i) {
    const int symbol = source.parameters[i];
    const std::string& name =
        template_.symbols[static_cast<std::size_t>(symbol)];
    has_caller_parameter |= symbol == caller_symbol_;
    std::optional<Value> value = i < arguments.positional.size()
        ? arguments.positional[i]
        : keywords.take(name);
    if (!value && i >= first_default) {
      value = evaluate(*source.defaults[i - first_default], scope);
    }
    scope->assign(
        symbol,
        value ? *value
              : heap_.undefined(
                    "parameter '" + shortened(name) + "' was not provided"));
  }
  if (source.uses_caller && !has_caller_parameter) {
    const auto caller = keywords.take("caller");
    scope->assign(
        caller_symbol_,
        caller ? *caller : heap_.undefined("No caller defined"));
  }
  if (source.uses_kwargs) {
    auto rest = heap_.dict();
    keywords.for_each_left([&](const std::string& name, const Value& value) {
      rest->set(heap_.string(name), value);
    });
    scope->assign(kwargs_symbol_, Value(std::move(rest)));
  } else {
    keywords.for_each_left([&](const std::string& name, const Value&) {
      fail(
          ErrorKind::InvalidInput,
          "macro '{}' has no parameter {}",
          shortened(macro.name),
          quote(name));
    });
  }
  bind_surplus(macro, arguments, scope);
}

void Interpreter::bind_surplus(
    const Macro& macro,
    const Arguments& arguments,
    const ScopePtr& scope) {
  const std::size_t n = macro.source->parameters.size();
  if (macro.source->uses_varargs) {
    Items surplus = heap_.items();
    if (arguments.positional.size() > n) {
      surplus.append(arguments.positional, n);
    }
    scope->assign(varargs_symbol_, heap_.tuple(std::move(surplus)));
  } else if (arguments.positional.size() > n) {
    fail(
        ErrorKind::InvalidInput,
        "macro '{}': found {} arguments, expected at most {}",
        shortened(macro.name),
        arguments.positional.size(),
        n);
  }
}

Value Interpreter::call_macro(const Macro& macro, Arguments& arguments) {
  const Level level(calls_, budget_.max_calls(), "calls of macros");
  const ScopePtr scope = new_scope(macro.scope);
  Text text(&budget_);
  {
    const Restored<bool> callers(autoescapes_);
    autoescapes_ = macro.autoescapes;
    bind_macro(macro, arguments, scope);
    execute_in_scope(macro.source->body, scope, text);
  }
  return rendered(std::move(text));
}

Value Interpreter::call(const Value& callee, Arguments& arguments) {
  switch (callee.type()) {
    case Type::Function:
      return call(
          *callee.function().builtin, callee.function().self, arguments);
    case Type::Macro:
      return call_macro(callee.macro(), arguments);
    case Type::Loop: {
      const Parameters parameters("loop", arguments, {"iterable"}, 1);
      return call_loop(callee.loop(), parameters[0]);
    }
    case Type::Joiner: {
      const Parameters none("joiner", arguments, {});
      return std::exchange(callee.joiner().is_used, true)
          ? callee.joiner().separator
          : heap_.string("");
    }
    case Type::Undefined:
      fail(ErrorKind::InvalidInput, "{}", callee.reason());
    default:
      fail(
          ErrorKind::InvalidInput,
          "'{}' object is not callable: expected a macro, function or method",
          type_name(callee));
  }
}

Value Interpreter::call(
    const Builtin& builtin,
    const Value& self,
    Arguments& arguments) {
  std::size_t bytes = 0;
  if (builtin.reads == Reads::All) {
    bytes = bytes_of(self);
    for (const Value& value : arguments.positional) {
      bytes += bytes_of(value);
    }
    for (const auto& [name, value] : arguments.keywords) {
      bytes += bytes_of(value);
    }
  }
  budget_.work(bytes);
  return builtin.native(*this, self, arguments);
}

Value Interpreter::filter(
    std::string_view name,
    const Value& input,
    Arguments& arguments) {
  const Builtin* builtin = filters().find(name);
  if (builtin == nullptr) {
    fail(ErrorKind::Unsupported, "{}", unknown_builtin("filter", name));
  }
  return call(*builtin, input, arguments);
}

bool Interpreter::test(
    std::string_view name,
    const Value& input,
    Arguments& arguments) {
  const Builtin* builtin = tests().find(name);
  if (builtin == nullptr) {
    fail(ErrorKind::Unsupported, "{}", unknown_builtin("test", name));
  }
  return is_true(call(*builtin, input, arguments));
}

} // namespace optiq::text::jinja
