#include <algorithm>
#include <unordered_set>

#include "optiq/base/error.h"
#include "optiq/text/jinja/parser_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::Data:
      return "text";
    case TokenKind::VariableBegin:
      return "'{{'";
    case TokenKind::VariableEnd:
      return "'}}'";
    case TokenKind::BlockBegin:
      return "'{%'";
    case TokenKind::BlockEnd:
      return "'%}'";
    case TokenKind::String:
      return "a string";
    case TokenKind::End:
      return "the end of the template";
    default:
      return "'" + shortened(token.text) + "'";
  }
}

} // namespace

const Token& TokenStream::peek(std::size_t ahead) const {
  return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
}

const Token& TokenStream::next() {
  const Token& token = peek();
  ++at_;
  return token;
}

bool TokenStream::at_name(std::string_view name, std::size_t ahead) const {
  return peek(ahead).kind == TokenKind::Name && peek(ahead).text == name;
}

bool TokenStream::at_operator(std::string_view sign, std::size_t ahead) const {
  return peek(ahead).kind == TokenKind::Operator && peek(ahead).text == sign;
}

bool TokenStream::skip_name(std::string_view name) {
  const bool found = at_name(name);
  at_ += found ? 1 : 0;
  return found;
}

bool TokenStream::skip_operator(std::string_view sign) {
  const bool found = at_operator(sign);
  at_ += found ? 1 : 0;
  return found;
}

void TokenStream::expect(TokenKind kind) {
  if (peek().kind != kind) {
    unexpected(describe({kind, 0, "a name"}));
  }
  ++at_;
}

void TokenStream::expect_operator(std::string_view sign) {
  if (!skip_operator(sign)) {
    unexpected("'" + std::string(sign) + "'");
  }
}

void TokenStream::expect_name(std::string_view name) {
  if (!skip_name(name)) {
    unexpected("'" + std::string(name) + "'");
  }
}

std::string TokenStream::expect_any_name() {
  if (peek().kind != TokenKind::Name) {
    unexpected("a name");
  }
  return next().text;
}

void TokenStream::unexpected(const std::string& expected) const {
  error(
      ErrorKind::Corrupt,
      peek().line,
      "found " + describe(peek()) + ", expected " + expected);
}

void TokenStream::error(ErrorKind kind, int line, const std::string& message)
    const {
  fail(kind, "[ChatTemplate::parse] {}:{}: {}", where_, line, message);
}

int SymbolTable::number(const std::string& name) {
  const auto [at, is_new] =
      numbers_.try_emplace(name, static_cast<int>(names_.size()));
  if (is_new) {
    names_.push_back(name);
  }
  return at->second;
}

NestingGuard::NestingGuard(ParserState& state) : state_(state) {
  // primary() within expression() within a bracket: three levels for one.
  constexpr int kLevels = 3;
  if (++state_.depth > kLevels * RenderBudget{}.depth) {
    const int line = state_.stream.peek().line;
    --state_.depth;
    state_.stream.error(
        ErrorKind::Unsupported,
        line,
        fmt::format(
            "template is nested more than {} deep", RenderBudget{}.depth));
  }
}

Target ExpressionParser::single_target(bool with_attributes) {
  const NestingGuard guard(state_);
  Target target;
  target.line = stream_.peek().line;
  if (stream_.skip_operator("(")) {
    target = this->target(")", with_attributes);
    stream_.expect_operator(")");
    return target;
  }
  const std::string name = stream_.expect_any_name();
  constexpr std::string_view kReserved[] = {
      "true", "false", "none", "True", "False", "None"};
  for (const std::string_view word : kReserved) {
    if (name == word) {
      stream_.error(
          ErrorKind::Corrupt,
          target.line,
          "found '" + name + "' to assign to, expected a name");
    }
  }
  target.symbol = state_.symbols.number(name);
  if (with_attributes && stream_.skip_operator(".")) {
    target.kind = Target::Kind::Attribute;
    target.attribute = stream_.expect_any_name();
  }
  return target;
}

Target ExpressionParser::target(std::string_view end, bool with_attributes) {
  Target first;
  first.kind = Target::Kind::Tuple;
  first.line = stream_.peek().line;
  while (true) {
    first.items.push_back(single_target(with_attributes));
    if (!stream_.skip_operator(",")) {
      if (first.items.size() == 1) {
        return Target(std::move(first.items[0]));
      }
      return first;
    }
    const bool is_end = stream_.peek().kind == TokenKind::BlockEnd ||
        stream_.at_operator(")") || (!end.empty() && stream_.at_name(end));
    if (is_end) {
      return first; // (a,) is a tuple of one
    }
  }
}

namespace {

class StatementParser {
 public:
  StatementParser(
      std::vector<Token> tokens,
      const std::string& where,
      Budget& budget)
      : state_{TokenStream(std::move(tokens), where), budget, {}, 0, false, {}, {}},
        stream_(state_.stream),
        expressions_(state_) {}

  Template run(const std::string& where) {
    Template parsed;
    parsed.where = where;
    parsed.body.statements = block({});
    if (!state_.unknown.empty()) {
      const auto& [line, what] = state_.unknown.front();
      stream_.error(ErrorKind::Unsupported, line, what);
    }
    parsed.symbols = state_.symbols.take_names();
    for (const std::string_view name : {"self", "super"}) {
      if (!blocks_.empty() &&
          std::find(parsed.symbols.begin(), parsed.symbols.end(), name) !=
              parsed.symbols.end()) {
        stream_.error(
            ErrorKind::Unsupported,
            1,
            "found '" + std::string(name) +
                "' beside blocks: templates that extend others are not read");
      }
    }
    return parsed;
  }

 private:
  using Ends = std::vector<std::string_view>;

  // Statements up to `{% end` for one of `ends`, whose name is the next token
  // then; with no ends, up to the end of the template.
  Block block(const Ends& ends) {
    Block statements;
    while (true) {
      const Token& token = stream_.next();
      switch (token.kind) {
        case TokenKind::Data: {
          Statement& text = add(statements, StatementKind::Text, token.line);
          text.text = token.text;
          break;
        }
        case TokenKind::VariableBegin: {
          ExpressionPtr value = expressions_.tuple();
          stream_.expect(TokenKind::VariableEnd);
          add(statements, StatementKind::Print, token.line)
              .expressions.push_back(std::move(value));
          break;
        }
        case TokenKind::BlockBegin:
          for (const std::string_view end : ends) {
            if (stream_.at_name(end)) {
              return statements;
            }
          }
          statement(statements);
          stream_.expect(TokenKind::BlockEnd);
          break;
        default:
          if (!ends.empty() || token.kind != TokenKind::End) {
            stream_.unexpected(
                ends.empty() ? "text or a tag"
                             : "'{% " + std::string(ends.back()) + " %}'");
          }
          return statements;
      }
    }
  }

  Statement& add(Block& block, StatementKind kind, int line) {
    count_statement();
    Statement& statement = block.emplace_back();
    statement.kind = kind;
    statement.line = line;
    return statement;
  }

  void count_statement() {
    state_.budget.work();
    state_.budget.hold(2 * sizeof(Statement)); // a vector grows by copying
  }

  // The rest of an opening tag, then statements up to an end, which stays.
  Block after_tag(const Ends& ends) {
    stream_.skip_operator(":");
    stream_.expect(TokenKind::BlockEnd);
    return block(ends);
  }

  // As after_tag, for a scope of its own with one end, which is consumed.
  Body scope(std::string_view end) {
    const bool was_soft = std::exchange(state_.is_soft, false);
    Body body;
    body.statements = after_tag({end});
    stream_.expect_name(end);
    state_.is_soft = was_soft;
    return body;
  }

  void statement(Block& out) {
    const NestingGuard guard(state_);
    using Parse = void (StatementParser::*)(Statement&);
    struct Row {
      std::string_view tag;
      StatementKind kind;
      Parse parse;
    };
    static constexpr Row kRows[] = {
        {"if", StatementKind::If, &StatementParser::parse_if},
        {"for", StatementKind::For, &StatementParser::parse_for},
        {"set", StatementKind::Set, &StatementParser::parse_set},
        {"macro", StatementKind::Macro, &StatementParser::parse_macro},
        {"call", StatementKind::CallBlock, &StatementParser::parse_call},
        {"filter", StatementKind::FilterBlock, &StatementParser::parse_filter},
        {"with", StatementKind::With, &StatementParser::parse_with},
        {"print", StatementKind::Print, &StatementParser::parse_print},
        {"do", StatementKind::Do, &StatementParser::parse_do},
        {"autoescape",
         StatementKind::Autoescape,
         &StatementParser::parse_autoescape},
        {"block", StatementKind::Block, &StatementParser::parse_block},
        {"generation",
         StatementKind::Generation,
         &StatementParser::parse_generation},
        {"break", StatementKind::Break, &StatementParser::parse_jump},
        {"continue", StatementKind::Continue, &StatementParser::parse_jump},
    };
    const Token& tag = stream_.peek();
    if (tag.kind != TokenKind::Name) {
      stream_.unexpected("the name of a statement");
    }
    for (const Row& row : kRows) {
      if (tag.text == row.tag) {
        stream_.next();
        count_statement();
        Statement parsed;
        parsed.kind = row.kind;
        parsed.line = tag.line;
        (this->*row.parse)(parsed);
        out.push_back(std::move(parsed));
        return;
      }
    }
    unknown_statement(tag);
  }

  [[noreturn]] void unknown_statement(const Token& tag) const {
    constexpr std::string_view kOfTemplateTrees[] = {
        "extends", "include", "import", "from"};
    for (const std::string_view name : kOfTemplateTrees) {
      if (tag.text == name) {
        stream_.error(
            ErrorKind::Unsupported,
            tag.line,
            "found statement '" + tag.text +
                "', which reads other files: a chat template is one file");
      }
    }
    stream_.unexpected("a statement that can stand here");
  }

  void parse_if(Statement& out) {
    const bool was_soft = std::exchange(state_.is_soft, true);
    ExpressionPtr condition = expressions_.tuple(false);
    while (true) {
      Block body = after_tag({"elif", "else", "endif"});
      out.branches.push_back({std::move(condition), std::move(body)});
      if (stream_.skip_name("elif")) {
        condition = expressions_.tuple(false);
        continue;
      }
      if (stream_.skip_name("else")) {
        out.branches.push_back({nullptr, after_tag({"endif"})});
      }
      stream_.expect_name("endif");
      break;
    }
    state_.is_soft = was_soft;
  }

  void parse_for(Statement& out) {
    const bool was_soft = state_.is_soft;
    out.targets.push_back(expressions_.target("in", false));
    require_not_loop(out.targets[0]);
    stream_.expect_name("in");
    out.expressions.push_back(expressions_.tuple(false, "recursive"));
    state_.is_soft = false;
    if (stream_.skip_name("if")) {
      out.condition = expressions_.expression();
    }
    out.is_recursive = stream_.skip_name("recursive");
    ++loops_;
    out.body.statements = after_tag({"else", "endfor"});
    --loops_;
    if (stream_.skip_name("else")) {
      out.otherwise.statements = after_tag({"endfor"});
    }
    stream_.expect_name("endfor");
    state_.is_soft = was_soft;
  }

  void require_not_loop(const Target& target) {
    for (const Target& item : target.items) {
      require_not_loop(item);
    }
    if (target.kind == Target::Kind::Name &&
        target.symbol == state_.symbols.number("loop")) {
      stream_.error(
          ErrorKind::Corrupt,
          target.line,
          "found 'loop' to assign to, expected another name: `for` sets it");
    }
  }

  void parse_set(Statement& out) {
    out.targets.push_back(expressions_.target("", true));
    if (stream_.skip_operator("=")) {
      out.expressions.push_back(expressions_.tuple());
      return;
    }
    out.kind = StatementKind::SetBlock;
    if (stream_.at_operator("|")) {
      out.expressions.push_back(expressions_.filters(nullptr, false));
    }
    out.body = scope("endset");
  }

  void signature(MacroSource& macro) {
    stream_.expect_operator("(");
    while (!stream_.at_operator(")")) {
      if (!macro.parameters.empty()) {
        stream_.expect_operator(",");
      }
      macro.parameters.push_back(
          state_.symbols.number(stream_.expect_any_name()));
      if (stream_.skip_operator("=")) {
        macro.defaults.push_back(expressions_.expression());
      } else if (!macro.defaults.empty()) {
        stream_.unexpected("'=': parameters after one with a default need one");
      }
    }
    stream_.expect_operator(")");
  }

  // Breaks inside a macro do not reach the loop around it.
  void macro_body(MacroSource& macro, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    macro.body = scope(end);
    loops_ = loops;
  }

  // A macro may name its `caller`, which only a call block gives.
  void require_default_of_caller(const MacroSource& macro, int line) {
    const std::size_t required =
        macro.parameters.size() - macro.defaults.size();
    for (std::size_t i = 0; i < required; ++i) {
      if (macro.uses_caller &&
          macro.parameters[i] == state_.symbols.number("caller")) {
        stream_.error(
            ErrorKind::Corrupt,
            line,
            "found parameter 'caller' without a default, which it needs");
      }
    }
  }

  void parse_macro(Statement& out) {
    const bool was_soft = std::exchange(state_.is_soft, false);
    out.macro = std::make_unique<MacroSource>();
    state_.macros.push_back(out.macro.get());
    out.macro->name = stream_.expect_any_name();
    out.symbol = state_.symbols.number(out.macro->name);
    signature(*out.macro);
    macro_body(*out.macro, "endmacro");
    require_default_of_caller(*out.macro, out.line);
    state_.macros.pop_back();
    state_.is_soft = was_soft;
  }

  void parse_call(Statement& out) {
    out.macro = std::make_unique<MacroSource>();
    state_.macros.push_back(out.macro.get());
    if (stream_.at_operator("(")) {
      signature(*out.macro);
    }
    state_.macros.pop_back();
    const int line = stream_.peek().line;
    out.expressions.push_back(expressions_.expression());
    if (out.expressions[0]->kind != ExpressionKind::Call) {
      stream_.error(
          ErrorKind::Corrupt, line, "found no call, expected {% call f() %}");
    }
    state_.macros.push_back(out.macro.get());
    macro_body(*out.macro, "endcall");
    state_.macros.pop_back();
  }

  void parse_filter(Statement& out) {
    out.expressions.push_back(expressions_.filters(nullptr, true));
    out.body = scope("endfilter");
  }

  void parse_with(Statement& out) {
    while (stream_.peek().kind != TokenKind::BlockEnd) {
      if (!out.targets.empty()) {
        stream_.expect_operator(",");
      }
      out.targets.push_back(expressions_.target("", false));
      stream_.expect_operator("=");
      out.expressions.push_back(expressions_.expression());
    }
    out.body = scope("endwith");
  }

  void parse_print(Statement& out) {
    while (stream_.peek().kind != TokenKind::BlockEnd) {
      if (!out.expressions.empty()) {
        stream_.expect_operator(",");
      }
      out.expressions.push_back(expressions_.expression());
    }
  }

  void parse_do(Statement& out) {
    out.expressions.push_back(expressions_.tuple());
  }

  void parse_autoescape(Statement& out) {
    out.expressions.push_back(expressions_.expression());
    out.body = scope("endautoescape");
  }

  // Without a template that extends it, a block stands where it is.
  void parse_block(Statement& out) {
    const std::string name = stream_.expect_any_name();
    if (!blocks_.insert(name).second) {
      stream_.error(
          ErrorKind::Corrupt,
          out.line,
          "found block '" + shortened(name) + "' twice, expected once");
    }
    out.is_scoped = stream_.skip_name("scoped");
    if (stream_.at_name("required")) {
      stream_.error(
          ErrorKind::Unsupported,
          out.line,
          "found a required block, which another template would have to fill");
    }
    const int loops = std::exchange(loops_, 0);
    out.body = scope("endblock");
    loops_ = loops;
    stream_.skip_name(name);
  }

  void parse_generation(Statement& out) {
    const int loops = std::exchange(loops_, 0);
    out.body = scope("endgeneration");
    loops_ = loops;
  }

  void parse_jump(Statement& out) {
    if (loops_ == 0) {
      stream_.error(
          ErrorKind::Corrupt,
          out.line,
          "found 'break' or 'continue' outside of a loop");
    }
  }

  ParserState state_;
  TokenStream& stream_;
  ExpressionParser expressions_;
  int loops_ = 0; // around this statement, in the same macro
  std::unordered_set<std::string> blocks_;
};

} // namespace

Template parse_template(
    std::string_view source,
    const std::string& where,
    const RenderBudget& limits) {
  Budget budget(limits);
  try {
    Template parsed =
        StatementParser(tokenize(source, where, budget), where, budget)
            .run(where);
    resolve_scopes(parsed, budget);
    return parsed;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Exhausted) {
      throw;
    }
    fail(
        ErrorKind::Exhausted,
        "[ChatTemplate::parse] {}: {}",
        where,
        error.what());
  }
}

} // namespace optiq::text::jinja
