#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "optiq/text/jinja/syntax_impl.h"

namespace optiq::text::jinja {

/** Tokens with a place in them, and the errors that name it. */
class TokenStream {
 public:
  TokenStream(std::vector<Token> tokens, const std::string& where)
      : tokens_(std::move(tokens)), where_(where) {}

  const Token& peek(std::size_t ahead = 0) const;
  const Token& next();
  bool at_name(std::string_view name, std::size_t ahead = 0) const;
  bool at_operator(std::string_view sign, std::size_t ahead = 0) const;
  bool skip_name(std::string_view name);
  bool skip_operator(std::string_view sign);
  void expect(TokenKind kind);
  void expect_operator(std::string_view sign);
  void expect_name(std::string_view name);
  std::string expect_any_name();

  /** Throws Corrupt: "found <token>, expected <what>". */
  [[noreturn]] void unexpected(const std::string& expected) const;
  [[noreturn]] void error(ErrorKind kind, int line, const std::string& message)
      const;

 private:
  std::vector<Token> tokens_;
  const std::string& where_;
  std::size_t at_ = 0;
};

/** Numbers the names of variables. */
class SymbolTable {
 public:
  int number(const std::string& name);
  std::vector<std::string> take_names() {
    return std::move(names_);
  }

 private:
  std::unordered_map<std::string, int> numbers_;
  std::vector<std::string> names_;
};

/** What the parser of expressions shares with that of statements. */
struct ParserState {
  TokenStream stream;
  Budget& budget;
  SymbolTable symbols;
  int depth = 0; // of statements and brackets that are open
  /** Inside an `if`, unknown filters fail when they run, not when parsing. */
  bool is_soft = false;
  /** Lines and descriptions of unknown filters and tests that are not inside
   * one. */
  std::vector<std::pair<int, std::string>> unknown;
  std::vector<MacroSource*> macros; // that are open, outermost first
};

/** Counts one level of nesting while it lives; throws Unsupported past the
 * limit. */
class NestingGuard {
 public:
  explicit NestingGuard(ParserState& state);
  ~NestingGuard() {
    --state_.depth;
  }
  NestingGuard(const NestingGuard&) = delete;
  NestingGuard& operator=(const NestingGuard&) = delete;

 private:
  ParserState& state_;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(ParserState& state)
      : state_(state), stream_(state.stream) {}

  ExpressionPtr expression(bool with_conditional = true);
  /** An expression, or several with commas: a tuple. Stops before the name
   * `end`. */
  ExpressionPtr tuple(
      bool with_conditional = true,
      std::string_view end = "",
      bool in_parentheses = false);
  /** `name` or `name(arguments)`, then `| name` ...; `input` may be null. */
  ExpressionPtr filters(ExpressionPtr input, bool first_is_open);
  /** Names that `set`, `for` or `with` assign to. */
  Target target(std::string_view end, bool with_attributes);

 private:
  ExpressionPtr make(ExpressionKind kind, int line) const;
  /** Appends a child and updates the depth. */
  void add(Expression& parent, ExpressionPtr child) const;
  void add_arguments(Expression& parent, std::vector<Argument> arguments) const;

  ExpressionPtr conditional();
  ExpressionPtr either();
  ExpressionPtr both();
  ExpressionPtr negation();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters);
  ExpressionPtr primary();
  ExpressionPtr literal_name(const Token& token);
  ExpressionPtr number(const Token& token);
  void note_unknown(int line, const char* kind, const std::string& name);
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr node);
  ExpressionPtr filter_tail(ExpressionPtr node);
  ExpressionPtr subscript(ExpressionPtr node);
  ExpressionPtr subscript_argument(ExpressionPtr node);
  ExpressionPtr call(ExpressionPtr callee);
  ExpressionPtr test(ExpressionPtr node);
  std::vector<Argument> call_arguments();
  Target single_target(bool with_attributes);
  std::string dotted_name();

  ParserState& state_;
  TokenStream& stream_;
};

} // namespace optiq::text::jinja
