// Which variables a scope hides from its start on. jinja2 decides when it
// compiles whether a name in a scope (template, loop body, macro ...) is first
// read, and then looks outside, or first assigned, and then is undefined until
// the assignment runs: in
//     {% for m in messages %}{{ x }}{% endfor %}{% set x = 1 %}
// x prints nothing, even if the data has an x. This pass repeats its rules.
#include <map>
#include <set>

#include "optiq/text/jinja/syntax_impl.h"

namespace optiq::text::jinja {
namespace {

enum class Load { Outside, UndefinedFirst };

struct Symbols {
  const Symbols* parent = nullptr;
  std::map<int, Load> names;
  std::set<int> stored;

  bool knows(int name) const {
    return names.contains(name) || (parent != nullptr && parent->knows(name));
  }
  void load(int name) {
    if (!knows(name)) {
      names[name] = Load::Outside;
    }
  }
  void store(int name) {
    stored.insert(name);
    const bool outside = parent != nullptr && parent->knows(name);
    names.try_emplace(name, outside ? Load::Outside : Load::UndefinedFirst);
  }
  void declare(int name) {
    stored.insert(name);
    names[name] = Load::Outside;
  }
};

class ScopeVisitor {
 public:
  explicit ScopeVisitor(Symbols& symbols) : symbols_(&symbols) {}

  void visit(const ExpressionPtr& node) {
    if (node == nullptr) {
      return;
    }
    if (node->kind == ExpressionKind::Name) {
      symbols_->load(node->symbol);
    }
    for (const ExpressionPtr& child : node->children) {
      visit(child);
    }
    for (const Argument& argument : node->arguments) {
      visit(argument.value);
    }
  }

  void visit(const Target& target) {
    switch (target.kind) {
      case Target::Kind::Name:
        symbols_->store(target.symbol);
        break;
      case Target::Kind::Attribute:
        symbols_->load(target.symbol);
        break;
      case Target::Kind::Tuple:
        for (const Target& item : target.items) {
          visit(item);
        }
        break;
    }
  }

  void visit(const Block& block) {
    for (const Statement& statement : block) {
      visit(statement);
    }
  }

 private:
  // Bodies with a scope of their own are not entered.
  void visit(const Statement& statement) {
    switch (statement.kind) {
      case StatementKind::If:
        visit_if(statement);
        return;
      case StatementKind::SetBlock:
        visit(statement.targets[0]);
        return;
      case StatementKind::Macro:
        symbols_->store(statement.symbol);
        return;
      default:
        break;
    }
    for (const ExpressionPtr& value : statement.expressions) {
      visit(value);
    }
    if (statement.kind == StatementKind::Set) {
      visit(statement.targets[0]);
    }
  }

  // What a branch assigns may not have been assigned after the `if`.
  void visit_if(const Statement& statement) {
    visit(statement.branches[0].condition);
    Symbols* whole = symbols_;
    std::vector<Symbols> parts(3, *whole); // if, all elifs, else
    symbols_ = &parts[0];
    visit(statement.branches[0].body);
    for (std::size_t i = 1; i < statement.branches.size(); ++i) {
      const Branch& branch = statement.branches[i];
      symbols_ = &parts[branch.condition != nullptr ? 1 : 2];
      if (branch.condition == nullptr) {
        visit(branch.body);
        continue;
      }
      Symbols& elifs = parts[1];
      visit(branch.condition);
      Symbols one = elifs;
      symbols_ = &one;
      visit(branch.body);
      merge(elifs, {one});
    }
    symbols_ = whole;
    merge(*whole, parts);
  }

  static void merge(Symbols& into, const std::vector<Symbols>& branches) {
    std::set<int> stored;
    for (const Symbols& branch : branches) {
      stored.insert(branch.stored.begin(), branch.stored.end());
    }
    for (const int name : into.stored) {
      stored.erase(name);
    }
    for (const Symbols& branch : branches) {
      for (const auto& [name, load] : branch.names) {
        into.names[name] = load;
      }
      into.stored.insert(branch.stored.begin(), branch.stored.end());
    }
    for (const int name : stored) {
      into.names[name] = Load::Outside;
    }
  }

  Symbols* symbols_;
};

class Resolver {
 public:
  explicit Resolver(const std::vector<std::string>& names) {
    for (std::size_t i = 0; i < names.size(); ++i) {
      numbers_[names[i]] = static_cast<int>(i);
    }
  }

  // `symbols` already has the scope's parameters.
  void resolve(Body& body, Symbols& symbols) {
    ScopeVisitor(symbols).visit(body.statements);
    for (const auto& [name, load] : symbols.names) {
      if (load == Load::UndefinedFirst) {
        body.undefined_first.push_back(name);
      }
    }
    enter(body.statements, symbols);
  }

 private:
  void declare(Symbols& symbols, const std::string& name) {
    const auto at = numbers_.find(name);
    if (at != numbers_.end()) {
      symbols.declare(at->second);
    }
  }

  static void declare(Symbols& symbols, const Target& target) {
    if (target.kind == Target::Kind::Name) {
      symbols.declare(target.symbol);
    }
    for (const Target& item : target.items) {
      declare(symbols, item);
    }
  }

  void enter(Block& block, const Symbols& around) {
    for (Statement& statement : block) {
      for (Branch& branch : statement.branches) {
        enter(branch.body, around);
      }
      Symbols inner{&around, {}, {}};
      if (statement.macro != nullptr) {
        enter(*statement.macro, inner);
        continue;
      }
      if (statement.kind == StatementKind::For) {
        Symbols other{&around, {}, {}};
        resolve(statement.otherwise, other);
        declare(inner, "loop");
      }
      if (statement.kind == StatementKind::For ||
          statement.kind == StatementKind::With) {
        for (const Target& target : statement.targets) {
          declare(inner, target);
        }
      }
      resolve(statement.body, inner);
    }
  }

  void enter(MacroSource& macro, Symbols& inner) {
    for (const int parameter : macro.parameters) {
      inner.declare(parameter);
    }
    if (macro.uses_varargs) {
      declare(inner, "varargs");
    }
    if (macro.uses_kwargs) {
      declare(inner, "kwargs");
    }
    if (macro.uses_caller) {
      declare(inner, "caller");
    }
    for (const ExpressionPtr& value : macro.defaults) {
      ScopeVisitor(inner).visit(value);
    }
    resolve(macro.body, inner);
  }

  std::map<std::string, int> numbers_;
};

} // namespace

void resolve_scopes(Template& parsed) {
  Symbols symbols;
  Resolver(parsed.symbols).resolve(parsed.body, symbols);
}

} // namespace optiq::text::jinja
