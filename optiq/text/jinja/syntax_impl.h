#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/text/jinja/value_impl.h"

namespace optiq::text::jinja {

// --- tokens ------------------------------------------------------------------

enum class TokenKind {
  Data, // text outside of tags
  VariableBegin,
  VariableEnd,
  BlockBegin,
  BlockEnd,
  Name,
  String,
  Integer,
  Float,
  Operator,
  End,
};

struct Token {
  TokenKind kind;
  int line;
  std::string text; // of Data and String: unescaped; of Operator: the sign
};

/** Cuts a template into tokens, white space control applied. Throws Corrupt,
 * naming `where` and the line. */
std::vector<Token>
tokenize(std::string_view source, const std::string& where, Budget& budget);

// --- expressions -------------------------------------------------------------

enum class ExpressionKind {
  Constant,
  Name,
  List,
  Tuple,
  Dict, // children: key, value, key, value ...
  Not,
  Negate,
  Plus,
  Binary, // operators[0] on two children
  And,
  Or,
  Concat,
  Compare, // children n + 1, operators n
  Conditional, // condition, then, else (null: undefined)
  Attribute, // child . name
  Subscript, // child [ child ]
  Slice, // child [ start : stop : step ], each may be null
  Call, // child ( arguments )
  Filter, // child (null in blocks) | name ( arguments )
  Test, // child is name ( arguments )
};

enum class Operator {
  Add,
  Subtract,
  Multiply,
  Divide,
  FloorDivide,
  Modulo,
  Power,
  Equal,
  NotEqual,
  Less,
  LessEqual,
  Greater,
  GreaterEqual,
  In,
  NotIn,
};

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Argument {
  enum class Kind { Positional, Keyword, Star, DoubleStar };
  Kind kind;
  std::string name; // of Keyword
  ExpressionPtr value;
};

struct Expression {
  ExpressionKind kind;
  int line = 0;
  int depth = 1; // of the tree below
  std::string name; // Name, Attribute, Filter, Test
  int symbol = -1; // Name: index into Template::symbols
  Value constant;
  std::vector<Operator> operators;
  std::vector<ExpressionPtr> children;
  std::vector<Argument> arguments;
};

// --- statements --------------------------------------------------------------

/** What `set` and `for` assign to. */
struct Target {
  enum class Kind { Name, Attribute, Tuple };
  Kind kind = Kind::Name;
  int line = 0;
  int symbol = -1; // Name, Attribute
  std::string attribute; // of a namespace
  std::vector<Target> items; // Tuple
};

enum class StatementKind {
  Text,
  Print,
  If,
  For,
  Set,
  SetBlock,
  Macro,
  CallBlock,
  FilterBlock,
  With,
  Do,
  Autoescape,
  Block,
  Generation,
  Break,
  Continue,
};

struct Statement;
using Block = std::vector<Statement>;

/** A scope's body. `undefined_first` are the names that it assigns before it
 * reads them and that no scope around it knows: they hide the variables of the
 * data from its start on, as in jinja2, which decides this when compiling. */
struct Body {
  Block statements;
  std::vector<int> undefined_first;
};

struct Branch {
  ExpressionPtr condition; // null: else
  Block body;
};

/** Parameters and body of a macro or of a call block's `caller`. */
struct MacroSource {
  std::string name; // empty for a caller
  std::vector<int> parameters; // symbols
  std::vector<ExpressionPtr> defaults; // of the last parameters
  Body body;
  bool uses_varargs = false;
  bool uses_kwargs = false;
  bool uses_caller = false;
};

struct Statement {
  StatementKind kind = StatementKind::Text;
  int line = 0;
  std::string text; // Text
  std::vector<ExpressionPtr> expressions; // Print, Do, Autoescape; Set, For,
                                          // With: values; CallBlock: call;
                                          // FilterBlock, SetBlock: filter or
                                          // nothing
  std::vector<Target> targets; // Set, SetBlock, For: one; With: many
  std::vector<Branch> branches; // If
  ExpressionPtr condition; // For: of the inline `if`
  bool is_recursive = false; // For
  bool is_scoped = false; // Block: sees the variables around it
  Body body; // For, SetBlock, FilterBlock, With, Autoescape, Block, Generation
  Body otherwise; // For: else
  std::unique_ptr<MacroSource> macro; // Macro, CallBlock
  int symbol = -1; // Macro: the name it defines
};

/** A parsed template; immutable. */
struct Template {
  std::string where;
  Body body;
  std::vector<std::string> symbols; // names of variables
};

/** Throws Corrupt (syntax), Unsupported (construct) or Exhausted (the budget),
 * with the line. */
Template parse_template(
    std::string_view source,
    const std::string& where,
    const RenderBudget& limits = {});

/** Fills `undefined_first` of every body. */
void resolve_scopes(Template& parsed, Budget& budget);

} // namespace optiq::text::jinja
