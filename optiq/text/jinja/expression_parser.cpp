#include <cctype>
#include <cstdlib>

#include "optiq/base/error.h"
#include "optiq/text/jinja/builtins_impl.h"
#include "optiq/text/jinja/parser_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

// Of chains such as a + b + c, which do not nest when parsing but do when
// evaluating.
constexpr int kMaxTreeDepth = 400;

const Heap kConstants(nullptr); // literals are not counted in a budget

struct OperatorRow {
  std::string_view sign;
  Operator op;
};
constexpr OperatorRow kComparisons[] = {
    {"==", Operator::Equal},
    {"!=", Operator::NotEqual},
    {"<", Operator::Less},
    {"<=", Operator::LessEqual},
    {">", Operator::Greater},
    {">=", Operator::GreaterEqual},
};
constexpr OperatorRow kSums[] = {
    {"+", Operator::Add},
    {"-", Operator::Subtract},
};
constexpr OperatorRow kProducts[] = {
    {"*", Operator::Multiply},
    {"/", Operator::Divide},
    {"//", Operator::FloorDivide},
    {"%", Operator::Modulo},
};

template <std::size_t N>
const OperatorRow* find_operator(
    const OperatorRow (&rows)[N],
    const TokenStream& stream) {
  for (const OperatorRow& row : rows) {
    if (stream.at_operator(row.sign)) {
      return &row;
    }
  }
  return nullptr;
}

} // namespace

ExpressionPtr ExpressionParser::make(ExpressionKind kind, int line) const {
  state_.budget.work();
  state_.budget.hold(2 * sizeof(Expression)); // and its place in the parent
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  return node;
}

void ExpressionParser::add(Expression& parent, ExpressionPtr child) const {
  if (child != nullptr) {
    parent.depth = std::max(parent.depth, child->depth + 1);
    if (parent.depth > kMaxTreeDepth) {
      stream_.error(
          ErrorKind::Unsupported,
          parent.line,
          fmt::format(
              "expression is more than {} operations deep", kMaxTreeDepth));
    }
  }
  parent.children.push_back(std::move(child));
}

void ExpressionParser::add_arguments(
    Expression& parent,
    std::vector<Argument> arguments) const {
  for (const Argument& argument : arguments) {
    parent.depth = std::max(parent.depth, argument.value->depth + 1);
  }
  parent.arguments = std::move(arguments);
}

ExpressionPtr ExpressionParser::expression(bool with_conditional) {
  const NestingGuard guard(state_);
  return with_conditional ? conditional() : either();
}

ExpressionPtr ExpressionParser::conditional() {
  const int line = stream_.peek().line;
  const std::size_t unknown_before = state_.unknown.size();
  ExpressionPtr value = either();
  while (stream_.skip_name("if")) {
    ExpressionPtr node = make(ExpressionKind::Conditional, line);
    add(*node, either());
    add(*node, std::move(value));
    add(*node, stream_.skip_name("else") ? expression() : nullptr);
    value = std::move(node);
    state_.unknown.resize(unknown_before); // any part of it may never run
  }
  return value;
}

ExpressionPtr ExpressionParser::either() {
  ExpressionPtr left = both();
  while (stream_.at_name("or")) {
    ExpressionPtr node = make(ExpressionKind::Or, stream_.next().line);
    add(*node, std::move(left));
    add(*node, both());
    left = std::move(node);
  }
  return left;
}

ExpressionPtr ExpressionParser::both() {
  ExpressionPtr left = negation();
  while (stream_.at_name("and")) {
    ExpressionPtr node = make(ExpressionKind::And, stream_.next().line);
    add(*node, std::move(left));
    add(*node, negation());
    left = std::move(node);
  }
  return left;
}

ExpressionPtr ExpressionParser::negation() {
  if (!stream_.at_name("not")) {
    return comparison();
  }
  const NestingGuard guard(state_);
  ExpressionPtr node = make(ExpressionKind::Not, stream_.next().line);
  add(*node, negation());
  return node;
}

ExpressionPtr ExpressionParser::comparison() {
  ExpressionPtr node = make(ExpressionKind::Compare, stream_.peek().line);
  add(*node, sum());
  while (true) {
    const OperatorRow* row = find_operator(kComparisons, stream_);
    if (row != nullptr) {
      stream_.next();
      node->operators.push_back(row->op);
    } else if (stream_.skip_name("in")) {
      node->operators.push_back(Operator::In);
    } else if (stream_.at_name("not") && stream_.at_name("in", 1)) {
      stream_.next();
      stream_.next();
      node->operators.push_back(Operator::NotIn);
    } else {
      break;
    }
    add(*node, sum());
  }
  return node->operators.empty() ? std::move(node->children[0])
                                 : std::move(node);
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr left = concatenation();
  while (const OperatorRow* row = find_operator(kSums, stream_)) {
    ExpressionPtr node = make(ExpressionKind::Binary, stream_.next().line);
    node->operators.push_back(row->op);
    add(*node, std::move(left));
    add(*node, concatenation());
    left = std::move(node);
  }
  return left;
}

ExpressionPtr ExpressionParser::concatenation() {
  ExpressionPtr first = product();
  if (!stream_.at_operator("~")) {
    return first;
  }
  ExpressionPtr node = make(ExpressionKind::Concat, stream_.peek().line);
  add(*node, std::move(first));
  while (stream_.skip_operator("~")) {
    add(*node, product());
  }
  return node;
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr left = power();
  while (const OperatorRow* row = find_operator(kProducts, stream_)) {
    ExpressionPtr node = make(ExpressionKind::Binary, stream_.next().line);
    node->operators.push_back(row->op);
    add(*node, std::move(left));
    add(*node, power());
    left = std::move(node);
  }
  return left;
}

ExpressionPtr ExpressionParser::power() {
  ExpressionPtr left = unary(true);
  while (stream_.at_operator("**")) {
    ExpressionPtr node = make(ExpressionKind::Binary, stream_.next().line);
    node->operators.push_back(Operator::Power);
    add(*node, std::move(left));
    add(*node, unary(true));
    left = std::move(node);
  }
  return left;
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  ExpressionPtr node;
  if (stream_.at_operator("-") || stream_.at_operator("+")) {
    const NestingGuard guard(state_);
    const Token& sign = stream_.next();
    node = make(
        sign.text == "-" ? ExpressionKind::Negate : ExpressionKind::Plus,
        sign.line);
    add(*node, unary(false));
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filters ? filter_tail(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::literal_name(const Token& token) {
  const std::string& name = token.text;
  ExpressionPtr node = make(ExpressionKind::Constant, token.line);
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    node->constant = Value(name == "true" || name == "True");
  } else if (name != "none" && name != "None") {
    node->kind = ExpressionKind::Name;
    node->name = name;
    node->symbol = state_.symbols.number(name);
    for (MacroSource* macro : state_.macros) {
      macro->uses_varargs |= name == "varargs";
      macro->uses_kwargs |= name == "kwargs";
      macro->uses_caller |= name == "caller";
    }
  }
  return node;
}

ExpressionPtr ExpressionParser::number(const Token& token) {
  ExpressionPtr node = make(ExpressionKind::Constant, token.line);
  if (token.kind == TokenKind::Float) {
    node->constant = Value(std::strtod(token.text.c_str(), nullptr));
    return node;
  }
  const bool has_base = token.text.size() > 2 && token.text[0] == '0' &&
      std::isalpha(static_cast<unsigned char>(token.text[1])) != 0;
  const char letter = has_base ? static_cast<char>(token.text[1] | 0x20) : '\0';
  const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : has_base ? 2 : 10;
  const auto value = parse_integer(token.text, base);
  if (!value) {
    stream_.error(
        ErrorKind::Corrupt,
        token.line,
        "found integer " + shortened(token.text) +
            ", expected at most 4300 digits");
  }
  node->constant = kConstants.integer(*value);
  return node;
}

ExpressionPtr ExpressionParser::primary() {
  const NestingGuard guard(state_);
  const Token& token = stream_.peek();
  switch (token.kind) {
    case TokenKind::Name:
      stream_.next();
      return literal_name(token);
    case TokenKind::String: {
      std::string text;
      while (stream_.peek().kind == TokenKind::String) {
        text += stream_.next().text;
      }
      ExpressionPtr node = make(ExpressionKind::Constant, token.line);
      node->constant = kConstants.string(text);
      return node;
    }
    case TokenKind::Integer:
    case TokenKind::Float:
      stream_.next();
      return number(token);
    default:
      break;
  }
  if (stream_.skip_operator("(")) {
    ExpressionPtr node = tuple(true, "", true);
    stream_.expect_operator(")");
    return node;
  }
  if (stream_.at_operator("[")) {
    return list();
  }
  if (stream_.at_operator("{")) {
    return dict();
  }
  stream_.unexpected("an expression");
}

ExpressionPtr ExpressionParser::tuple(
    bool with_conditional,
    std::string_view end,
    bool in_parentheses) {
  ExpressionPtr node = make(ExpressionKind::Tuple, stream_.peek().line);
  bool is_tuple = false;
  while (true) {
    if (stream_.peek().kind == TokenKind::VariableEnd ||
        stream_.peek().kind == TokenKind::BlockEnd ||
        stream_.at_operator(")") || (!end.empty() && stream_.at_name(end))) {
      break;
    }
    add(*node, expression(with_conditional));
    if (!stream_.skip_operator(",")) {
      break;
    }
    is_tuple = true;
  }
  if (is_tuple || (in_parentheses && node->children.empty())) {
    return node;
  }
  if (node->children.empty()) {
    stream_.unexpected("an expression");
  }
  return std::move(node->children[0]);
}

ExpressionPtr ExpressionParser::list() {
  ExpressionPtr node = make(ExpressionKind::List, stream_.next().line);
  while (!stream_.at_operator("]")) {
    if (!node->children.empty()) {
      stream_.expect_operator(",");
      if (stream_.at_operator("]")) {
        break;
      }
    }
    add(*node, expression());
  }
  stream_.expect_operator("]");
  return node;
}

ExpressionPtr ExpressionParser::dict() {
  ExpressionPtr node = make(ExpressionKind::Dict, stream_.next().line);
  while (!stream_.at_operator("}")) {
    if (!node->children.empty()) {
      stream_.expect_operator(",");
      if (stream_.at_operator("}")) {
        break;
      }
    }
    add(*node, expression());
    stream_.expect_operator(":");
    add(*node, expression());
  }
  stream_.expect_operator("}");
  return node;
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr node) {
  while (true) {
    if (stream_.at_operator(".") || stream_.at_operator("[")) {
      node = subscript(std::move(node));
    } else if (stream_.at_operator("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::filter_tail(ExpressionPtr node) {
  while (true) {
    if (stream_.at_operator("|")) {
      node = filters(std::move(node), false);
    } else if (stream_.at_name("is")) {
      node = test(std::move(node));
    } else if (stream_.at_operator("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr node) {
  const Token& token = stream_.next();
  if (token.text == ".") {
    const Token& name = stream_.peek();
    if (name.kind == TokenKind::Name) {
      stream_.next();
      ExpressionPtr attribute = make(ExpressionKind::Attribute, token.line);
      attribute->name = name.text;
      add(*attribute, std::move(node));
      return attribute;
    }
    if (name.kind != TokenKind::Integer) {
      stream_.unexpected("a name or a number after '.'");
    }
    stream_.next();
    ExpressionPtr item = make(ExpressionKind::Subscript, token.line);
    add(*item, std::move(node));
    add(*item, number(name));
    return item;
  }
  ExpressionPtr item = subscript_argument(std::move(node));
  stream_.expect_operator("]");
  return item;
}

// The inside of `node[...]`: an index, a slice, or a tuple of indices.
ExpressionPtr ExpressionParser::subscript_argument(ExpressionPtr node) {
  const int line = stream_.peek().line;
  const auto part = [this]() -> ExpressionPtr {
    return stream_.at_operator(":") || stream_.at_operator("]") ? nullptr
                                                                : expression();
  };
  ExpressionPtr first = part();
  if (stream_.at_operator(":")) {
    ExpressionPtr slice = make(ExpressionKind::Slice, line);
    add(*slice, std::move(node));
    add(*slice, std::move(first));
    stream_.expect_operator(":");
    add(*slice, part());
    add(*slice, stream_.skip_operator(":") ? part() : nullptr);
    return slice;
  }
  ExpressionPtr item = make(ExpressionKind::Subscript, line);
  add(*item, std::move(node));
  if (first != nullptr && !stream_.at_operator(",")) {
    add(*item, std::move(first));
    return item;
  }
  ExpressionPtr indices = make(ExpressionKind::Tuple, line);
  if (first != nullptr) {
    add(*indices, std::move(first));
  }
  while (stream_.skip_operator(",")) {
    add(*indices, expression());
  }
  add(*item, std::move(indices));
  return item;
}

ExpressionPtr ExpressionParser::call(ExpressionPtr callee) {
  ExpressionPtr node = make(ExpressionKind::Call, stream_.peek().line);
  add(*node, std::move(callee));
  add_arguments(*node, call_arguments());
  return node;
}

std::vector<Argument> ExpressionParser::call_arguments() {
  using Kind = Argument::Kind;
  const int line = stream_.peek().line;
  stream_.expect_operator("(");
  std::vector<Argument> arguments;
  Kind last = Kind::Positional;
  while (!stream_.at_operator(")")) {
    if (!arguments.empty()) {
      stream_.expect_operator(",");
      if (stream_.at_operator(")")) {
        break;
      }
    }
    state_.budget.hold(2 * sizeof(Argument));
    Argument argument{Kind::Positional, "", nullptr};
    if (stream_.skip_operator("*")) {
      argument.kind = Kind::Star;
    } else if (stream_.skip_operator("**")) {
      argument.kind = Kind::DoubleStar;
    } else if (
        stream_.peek().kind == TokenKind::Name && stream_.at_operator("=", 1)) {
      argument.kind = Kind::Keyword;
      argument.name = stream_.next().text;
      stream_.next();
    }
    // Positional, keyword, one *list, keyword, one **dict: never backwards,
    // but keywords may follow a *list.
    const bool in_order = argument.kind >= last ||
        (argument.kind == Kind::Keyword && last == Kind::Star);
    const bool repeats = argument.kind == last &&
        (last == Kind::Star || last == Kind::DoubleStar);
    if (!in_order || repeats) {
      stream_.error(
          ErrorKind::Corrupt,
          line,
          "found the arguments of a call out of order, expected positional, "
          "keyword, *list, **dict");
    }
    last = std::max(last, argument.kind);
    argument.value = expression();
    arguments.push_back(std::move(argument));
  }
  stream_.expect_operator(")");
  return arguments;
}

std::string ExpressionParser::dotted_name() {
  std::string name = stream_.expect_any_name();
  while (stream_.skip_operator(".")) {
    name += "." + stream_.expect_any_name();
  }
  return name;
}

void ExpressionParser::note_unknown(
    int line,
    const char* kind,
    const std::string& name) {
  if (!state_.is_soft) {
    state_.unknown.emplace_back(line, unknown_builtin(kind, name));
  }
}

ExpressionPtr ExpressionParser::filters(
    ExpressionPtr input,
    bool first_is_open) {
  while (first_is_open || stream_.skip_operator("|")) {
    first_is_open = false;
    ExpressionPtr node = make(ExpressionKind::Filter, stream_.peek().line);
    node->name = dotted_name();
    add(*node, std::move(input));
    if (stream_.at_operator("(")) {
      add_arguments(*node, call_arguments());
    }
    if (jinja::filters().find(node->name) == nullptr) {
      note_unknown(node->line, "filter", node->name);
    }
    input = std::move(node);
  }
  return input;
}

ExpressionPtr ExpressionParser::test(ExpressionPtr input) {
  const int line = stream_.next().line;
  const bool is_negated = stream_.skip_name("not");
  ExpressionPtr node = make(ExpressionKind::Test, line);
  node->name = dotted_name();
  add(*node, std::move(input));
  const Token& next = stream_.peek();
  if (stream_.at_operator("(")) {
    add_arguments(*node, call_arguments());
  } else if (
      next.kind == TokenKind::String || next.kind == TokenKind::Integer ||
      next.kind == TokenKind::Float || stream_.at_operator("[") ||
      stream_.at_operator("{") ||
      (next.kind == TokenKind::Name && next.text != "else" &&
       next.text != "or" && next.text != "and")) {
    if (stream_.at_name("is")) {
      stream_.unexpected("one test only: `is` cannot be chained");
    }
    std::vector<Argument> one;
    one.push_back({Argument::Kind::Positional, "", postfix(primary())});
    add_arguments(*node, std::move(one));
  }
  if (tests().find(node->name) == nullptr) {
    note_unknown(line, "test", node->name);
  }
  if (!is_negated) {
    return node;
  }
  ExpressionPtr negated = make(ExpressionKind::Not, line);
  add(*negated, std::move(node));
  return negated;
}

} // namespace optiq::text::jinja
