// Which variables a scope hides from its start on. jinja2 decides when it
// compiles whether a name in a scope (template, loop body, macro ...) is first
// read, and then looks outside, or first assigned, and then is undefined until
// the assignment runs: in
//     {% for m in messages %}{{ x }}{% endfor %}{% set x = 1 %}
// x prints nothing, even if the data has an x. This pass repeats its rules.
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "optiq/text/jinja/syntax_impl.h"

namespace optiq::text::jinja {
namespace {

enum class Load { Outside, UndefinedFirst };

// What a scope knows of a name.
struct Entry {
  Load load;
  bool is_stored; // by this scope itself
};

// The names of a scope. Branches of an `if` see each other's names only after
// it, so changes are recorded and can be taken back: the work is linear in the
// number of names, however many branches there are.
class Symbols {
 public:
  explicit Symbols(const Symbols* parent) : parent_(parent) {}

  void load(int name) {
    if (!knows(name)) {
      change(name, {Load::Outside, false});
    }
  }
  void store(int name) {
    const auto at = names_.find(name);
    if (at != names_.end()) {
      change(name, {at->second.load, true});
      return;
    }
    const bool outside = parent_ != nullptr && parent_->knows(name);
    change(name, {outside ? Load::Outside : Load::UndefinedFirst, true});
  }
  void declare(int name) {
    change(name, {Load::Outside, true});
  }

  /** Where the record stands, for take_back. */
  std::size_t mark() const {
    return record_.size();
  }
  using Changes = std::unordered_map<int, Entry>;
  /** Undoes the changes since a mark; returns what they had made. */
  Changes take_back(std::size_t mark) {
    Changes made;
    while (record_.size() > mark) {
      const auto [name, before] = record_.back();
      record_.pop_back();
      const auto at = names_.find(name);
      made.try_emplace(name, at->second); // the last one counts
      if (before) {
        at->second = *before;
      } else {
        names_.erase(at);
      }
    }
    return made;
  }
  /** What branches made, joined: what one assigned may not have been assigned
   * after them. */
  void join(const std::vector<Changes>& branches) {
    std::vector<int> stored;
    for (const Changes& branch : branches) {
      for (const auto& [name, entry] : branch) {
        if (entry.is_stored && !is_stored(name)) {
          stored.push_back(name);
        }
      }
    }
    for (const Changes& branch : branches) {
      for (const auto& [name, entry] : branch) {
        change(name, {entry.load, entry.is_stored || is_stored(name)});
      }
    }
    for (const int name : stored) {
      change(name, {Load::Outside, true});
    }
  }

  std::vector<int> undefined_first() const {
    std::vector<int> names;
    for (const auto& [name, entry] : names_) {
      if (entry.load == Load::UndefinedFirst) {
        names.push_back(name);
      }
    }
    return names;
  }

 private:
  bool knows(int name) const {
    return names_.contains(name) ||
        (parent_ != nullptr && parent_->knows(name));
  }
  bool is_stored(int name) const {
    const auto at = names_.find(name);
    return at != names_.end() && at->second.is_stored;
  }
  void change(int name, Entry entry) {
    const auto at = names_.find(name);
    if (at == names_.end()) {
      record_.emplace_back(name, std::nullopt);
      names_.emplace(name, entry);
    } else if (
        at->second.load != entry.load ||
        at->second.is_stored != entry.is_stored) {
      record_.emplace_back(name, at->second);
      at->second = entry;
    }
  }

  const Symbols* parent_;
  std::unordered_map<int, Entry> names_;
  std::vector<std::pair<int, std::optional<Entry>>> record_;
};

class ScopeVisitor {
 public:
  ScopeVisitor(Symbols& symbols, Budget& budget)
      : symbols_(symbols), budget_(budget) {}

  void visit(const ExpressionPtr& node) {
    if (node == nullptr) {
      return;
    }
    budget_.work();
    if (node->kind == ExpressionKind::Name) {
      symbols_.load(node->symbol);
    }
    for (const ExpressionPtr& child : node->children) {
      visit(child);
    }
    for (const Argument& argument : node->arguments) {
      visit(argument.value);
    }
  }

  void visit(const Target& target) {
    budget_.work();
    switch (target.kind) {
      case Target::Kind::Name:
        symbols_.store(target.symbol);
        break;
      case Target::Kind::Attribute:
        symbols_.load(target.symbol);
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
    budget_.work();
    switch (statement.kind) {
      case StatementKind::If:
        visit_if(statement);
        return;
      case StatementKind::SetBlock:
        visit(statement.targets[0]);
        return;
      case StatementKind::Macro:
        symbols_.store(statement.symbol);
        return;
      case StatementKind::Autoescape:
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

  // Three branches: the body, all of `elif` together (each sees the names of
  // those before it), `else`.
  void visit_if(const Statement& statement) {
    visit(statement.branches[0].condition);
    std::vector<Symbols::Changes> parts;
    const std::size_t start = symbols_.mark();
    visit(statement.branches[0].body);
    parts.push_back(symbols_.take_back(start));
    for (std::size_t i = 1; i < statement.branches.size(); ++i) {
      const Branch& branch = statement.branches[i];
      if (branch.condition == nullptr) {
        parts.push_back(symbols_.take_back(start));
        visit(branch.body);
        break;
      }
      visit(branch.condition);
      const std::size_t before = symbols_.mark();
      visit(branch.body);
      symbols_.join({symbols_.take_back(before)});
    }
    parts.push_back(symbols_.take_back(start));
    symbols_.join(parts);
  }

  Symbols& symbols_;
  Budget& budget_;
};

class Resolver {
 public:
  Resolver(const std::vector<std::string>& names, Budget& budget)
      : budget_(budget) {
    for (std::size_t i = 0; i < names.size(); ++i) {
      numbers_[names[i]] = static_cast<int>(i);
    }
  }

  // `symbols` already has the scope's parameters.
  void resolve(Body& body, Symbols& symbols) {
    ScopeVisitor(symbols, budget_).visit(body.statements);
    body.undefined_first = symbols.undefined_first();
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
      if (statement.kind == StatementKind::Block && !statement.is_scoped) {
        Symbols apart(nullptr);
        resolve(statement.body, apart);
        continue;
      }
      Symbols inner(&around);
      if (statement.macro != nullptr) {
        enter(*statement.macro, inner);
        continue;
      }
      if (statement.kind == StatementKind::For) {
        Symbols other(&around);
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
      ScopeVisitor(inner, budget_).visit(value);
    }
    resolve(macro.body, inner);
  }

  std::unordered_map<std::string, int> numbers_;
  Budget& budget_;
};

} // namespace

void resolve_scopes(Template& parsed, Budget& budget) {
  Symbols symbols(nullptr);
  Resolver(parsed.symbols, budget).resolve(parsed.body, symbols);
}

} // namespace optiq::text::jinja
