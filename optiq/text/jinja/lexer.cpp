// Grammar: text, `{{ expression }}`, `{% statement %}`, `{# comment #}` and
// `{% raw %}`. A `-` inside a delimiter strips the white space next to it.
// Without a sign, white space before a block or comment that begins its line
// goes (lstrip_blocks), and so does one newline after it (trim_blocks); `+`
// prevents that.
#include <cctype>

#include "optiq/base/error.h"
#include "optiq/text/jinja/syntax_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

std::string normalize_newlines(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r') {
      out += '\n';
      i += i + 1 < text.size() && text[i + 1] == '\n' ? 1 : 0;
    } else {
      out += text[i];
    }
  }
  if (out.ends_with('\n')) {
    out.pop_back(); // one final newline never counts
  }
  return out;
}

int count_lines(std::string_view text) {
  int n = 0;
  for (const char c : text) {
    n += c == '\n';
  }
  return n;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& where, Budget& budget)
      : text_(normalize_newlines(source)), where_(where), budget_(budget) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) {
      const std::size_t tag = find_tag();
      if (tag == std::string::npos) {
        add_data(std::string_view(text_).substr(at_));
        break;
      }
      lex_tag(tag);
    }
    add(TokenKind::End, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void error(const std::string& message) const {
    fail(
        ErrorKind::Corrupt,
        "[ChatTemplate::parse] {}:{}: {}",
        where_,
        line_,
        message);
  }

  bool looking_at(std::string_view what) const {
    return text_.compare(at_, what.size(), what) == 0;
  }

  void advance(std::size_t to) {
    line_ += count_lines(std::string_view(text_).substr(at_, to - at_));
    at_ = to;
  }

  std::size_t skip_space(std::size_t at) const {
    while (at < text_.size()) {
      const CodePoint c = code_point_at(text_, at);
      if (!is_space(c.value)) {
        break;
      }
      at = c.next;
    }
    return at;
  }

  std::size_t find_tag() const {
    for (std::size_t at = text_.find('{', at_); at != std::string::npos;
         at = text_.find('{', at + 1)) {
      const char next = at + 1 < text_.size() ? text_[at + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') {
        return at;
      }
    }
    return std::string::npos;
  }

  void add(TokenKind kind, std::string text) {
    budget_.work(text.size());
    budget_.hold(2 * sizeof(Token) + text.size()); // a vector grows by copying
    tokens_.push_back({kind, line_, std::move(text)});
  }

  void add_data(std::string_view data) {
    if (!data.empty()) {
      add(TokenKind::Data, std::string(data));
    }
  }

  // Text up to `tag`, without what the tag's sign or lstrip_blocks takes.
  void add_data_before(std::size_t tag, char sign, bool is_variable) {
    std::string_view data = std::string_view(text_).substr(at_, tag - at_);
    if (sign == '-') {
      data = strip(data, Side::Right);
    } else if (sign != '+' && !is_variable) {
      const std::size_t newline = data.rfind('\n');
      const std::size_t begin =
          newline == std::string_view::npos ? 0 : newline + 1;
      const std::string_view indent = data.substr(begin);
      if ((begin > 0 || line_starts_) && strip(indent, Side::Both).empty()) {
        data = data.substr(0, begin);
      }
    }
    add_data(data);
    advance(tag);
  }

  // Moves past `close` when it is here with its sign, and past the white space
  // that it takes. False: not here.
  bool take_end(std::string_view close, bool is_variable) {
    std::size_t end = 0;
    if (looking_at("-" + std::string(close))) {
      end = skip_space(at_ + 1 + close.size());
    } else if (!is_variable && looking_at("+" + std::string(close))) {
      end = at_ + 1 + close.size();
    } else if (looking_at(close)) {
      end = at_ + close.size();
      if (!is_variable && end < text_.size() && text_[end] == '\n') {
        ++end;
      }
    } else {
      return false;
    }
    line_starts_ = text_[end - 1] == '\n';
    advance(end);
    return true;
  }

  char sign_at(std::size_t at) const {
    const char c = at < text_.size() ? text_[at] : '\0';
    return c == '-' || c == '+' ? c : '\0';
  }

  void lex_tag(std::size_t tag) {
    const char type = text_[tag + 1];
    const char sign = sign_at(tag + 2);
    const std::size_t inside = tag + 2 + (sign != '\0' ? 1 : 0);
    std::size_t raw_end = 0;
    if (type == '%' && is_raw(inside, raw_end)) {
      add_data_before(tag, sign, false);
      line_starts_ = text_[raw_end - 1] == '\n';
      advance(raw_end);
      lex_raw();
      return;
    }
    add_data_before(tag, sign, type == '{');
    if (type == '#') {
      lex_comment(inside);
      return;
    }
    const bool is_variable = type == '{';
    add(is_variable ? TokenKind::VariableBegin : TokenKind::BlockBegin, "");
    advance(inside);
    lex_inside(is_variable);
  }

  void lex_comment(std::size_t inside) {
    std::size_t end = text_.find("#}", inside);
    if (end == std::string::npos) {
      error("found no end of a comment, expected '#}'");
    }
    const bool has_sign =
        end > inside && (text_[end - 1] == '-' || text_[end - 1] == '+');
    advance(has_sign ? end - 1 : end);
    take_end("#}", false);
  }

  // Is this `raw %}`? `end` becomes the offset after it.
  bool is_raw(std::size_t at, std::size_t& end) const {
    at = skip_space(at);
    if (text_.compare(at, 3, "raw") != 0) {
      return false;
    }
    at = skip_space(at + 3);
    if (text_.compare(at, 3, "-%}") == 0) {
      end = skip_space(at + 3);
      return true;
    }
    end = at + 2;
    return text_.compare(at, 2, "%}") == 0;
  }

  void lex_raw() {
    for (std::size_t tag = text_.find("{%", at_); tag != std::string::npos;
         tag = text_.find("{%", tag + 1)) {
      const char sign = sign_at(tag + 2);
      std::size_t at = skip_space(tag + 2 + (sign != '\0' ? 1 : 0));
      if (text_.compare(at, 6, "endraw") != 0) {
        continue;
      }
      at = skip_space(at + 6);
      if (text_.compare(at, 2, "%}") != 0 && text_.compare(at, 3, "-%}") != 0 &&
          text_.compare(at, 3, "+%}") != 0) {
        continue;
      }
      add_data_before(tag, sign, false);
      advance(at);
      take_end("%}", false);
      return;
    }
    error("found no end of a raw block, expected '{% endraw %}'");
  }

  void lex_inside(bool is_variable) {
    const std::string_view close = is_variable ? "}}" : "%}";
    std::string open; // brackets that are still open
    while (at_ < text_.size()) {
      const int line = line_;
      if (open.empty() && take_end(close, is_variable)) {
        add(is_variable ? TokenKind::VariableEnd : TokenKind::BlockEnd, "");
        tokens_.back().line = line;
        return;
      }
      const CodePoint c = code_point_at(text_, at_);
      if (is_space(c.value)) {
        advance(c.next);
      } else if (std::isdigit(static_cast<unsigned char>(text_[at_])) != 0) {
        lex_number();
      } else if (is_word(c.value)) {
        lex_name();
      } else if (c.value == '\'' || c.value == '"') {
        lex_string();
      } else {
        lex_operator(open);
      }
    }
    add(TokenKind::End, "");
  }

  void lex_name() {
    std::size_t end = at_;
    while (end < text_.size()) {
      const CodePoint c = code_point_at(text_, end);
      if (!is_word(c.value)) {
        break;
      }
      end = c.next;
    }
    add(TokenKind::Name, text_.substr(at_, end - at_));
    advance(end);
  }

  // Digits with single underscores between them; the end, or `at` for none.
  std::size_t skip_digits(std::size_t at, int base = 10) const {
    const auto is_digit = [&](std::size_t i) {
      if (i >= text_.size()) {
        return false;
      }
      const char c = text_[i];
      return base == 16 ? std::isxdigit(static_cast<unsigned char>(c)) != 0
                        : c >= '0' && c < '0' + base;
    };
    if (!is_digit(at)) {
      return at;
    }
    ++at;
    while (is_digit(at) ||
           (at < text_.size() && text_[at] == '_' && is_digit(at + 1))) {
      ++at;
    }
    return at;
  }

  std::size_t end_of_float(std::size_t digits_end) const {
    std::size_t end = digits_end;
    if (end < text_.size() && text_[end] == '.' &&
        skip_digits(end + 1) > end + 1) {
      end = skip_digits(end + 1);
    }
    if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      const std::size_t sign = sign_at(end + 1) != '\0' ? 1 : 0;
      if (skip_digits(end + 1 + sign) > end + 1 + sign) {
        end = skip_digits(end + 1 + sign);
      }
    }
    return end;
  }

  void lex_number() {
    const std::size_t digits = skip_digits(at_);
    // After a dot these are an index: `rows.0.1`.
    const bool is_index = at_ > 0 && text_[at_ - 1] == '.';
    std::size_t end = is_index ? digits : end_of_float(digits);
    const bool is_float = end != digits;
    if (!is_float && text_[at_] == '0') {
      constexpr struct {
        char letter;
        int base;
      } kBases[] = {{'b', 2}, {'o', 8}, {'x', 16}};
      end = at_ + 1;
      while (end < digits && (text_[end] == '0' || text_[end] == '_')) {
        ++end;
      }
      for (const auto& row : kBases) {
        if (at_ + 1 < text_.size() && (text_[at_ + 1] | 0x20) == row.letter &&
            skip_digits(at_ + 2, row.base) > at_ + 2) {
          end = skip_digits(at_ + 2, row.base);
        }
      }
    }
    std::string number = text_.substr(at_, end - at_);
    std::erase(number, '_');
    add(is_float ? TokenKind::Float : TokenKind::Integer, std::move(number));
    advance(end);
  }

  void lex_string() {
    const char mark = text_[at_];
    std::size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != mark) {
      end += text_[end] == '\\' ? 2 : 1;
    }
    if (end >= text_.size()) {
      error("found no end of a string, expected its closing quote");
    }
    add(TokenKind::String,
        unescape(std::string_view(text_).substr(at_ + 1, end - at_ - 1)));
    advance(end + 1);
  }

  std::int32_t
  read_code(std::string_view text, std::size_t at, std::size_t digits) const {
    std::int64_t value = 0;
    for (std::size_t i = 0; i < digits; ++i) {
      const char c = at + i < text.size() ? text[at + i] : '\0';
      if (std::isxdigit(static_cast<unsigned char>(c)) == 0) {
        error(fmt::format(
            "found a short escape in a string, expected {} hexadecimal digits",
            digits));
      }
      value = value * 16 + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
      error(fmt::format(
          "found escape of U+{:X} in a string, expected a character", value));
    }
    return static_cast<std::int32_t>(value);
  }

  // Python's string escapes; unknown ones stay as they are.
  std::string unescape(std::string_view text) const {
    Text out(nullptr);
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\') {
        out.append(text[i]);
      } else {
        ++i;
        i += unescape_one(out, text, i) - 1;
      }
    }
    return out.str();
  }

  // The escape whose letter is at `i`; returns its length.
  std::size_t unescape_one(Text& out, std::string_view text, std::size_t i)
      const {
    constexpr std::string_view kLetters = "\\'\"abfnrtv";
    constexpr std::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
    const char c = text[i];
    const std::size_t known = kLetters.find(c);
    if (known != std::string_view::npos) {
      out.append(kValues[known]);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      append_utf8(out, read_code(text, i + 1, digits));
      return digits + 1;
    } else if (c >= '0' && c <= '7') {
      int value = 0;
      std::size_t n = 0;
      for (; n < 3 && i + n < text.size() && text[i + n] >= '0' &&
           text[i + n] <= '7';
           ++n) {
        value = value * 8 + (text[i + n] - '0');
      }
      append_utf8(out, value);
      return n;
    } else if (c == 'N') {
      fail(
          ErrorKind::Unsupported,
          "[ChatTemplate::parse] {}:{}: found a named escape in a string, "
          "expected \\u and its number",
          where_,
          line_);
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      // jinja2 turns the character into an escape first, whose own
      // backslash this one then quotes.
      const CodePoint p = code_point_at(text, i);
      out.append(
          p.value < 0x100         ? fmt::format("\\x{:02x}", p.value)
              : p.value < 0x10000 ? fmt::format("\\u{:04x}", p.value)
                                  : fmt::format("\\U{:08x}", p.value));
      return p.next - i;
    } else if (c != '\n') {
      out.append('\\');
      out.append(c);
    }
    return 1;
  }

  void lex_operator(std::string& open) {
    constexpr std::string_view kTwo[] = {"//", "**", "==", "!=", ">=", "<="};
    constexpr std::string_view kOne = "+-/*%~[](){}><=.:|,;";
    std::string sign;
    for (const std::string_view two : kTwo) {
      if (looking_at(two)) {
        sign = two;
      }
    }
    const char c = text_[at_];
    if (sign.empty()) {
      if (kOne.find(c) == std::string_view::npos) {
        error(fmt::format(
            "found unexpected character {}, expected an expression",
            quote(text_.substr(at_, code_point_at(text_, at_).next - at_))));
      }
      sign = c;
    }
    if (sign == "(" || sign == "[" || sign == "{") {
      open += sign == "(" ? ')' : sign == "[" ? ']' : '}';
    } else if (sign == ")" || sign == "]" || sign == "}") {
      if (open.empty() || open.back() != c) {
        error(fmt::format(
            "found '{}', expected {}",
            sign,
            open.empty() ? "no bracket to close"
                         : "'" + open.substr(open.size() - 1) + "'"));
      }
      open.pop_back();
    }
    add(TokenKind::Operator, sign);
    advance(at_ + sign.size());
  }

  std::string text_;
  const std::string& where_;
  Budget& budget_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true; // the text at `at_` begins a line
  std::vector<Token> tokens_;
};

} // namespace

std::vector<Token>
tokenize(std::string_view source, const std::string& where, Budget& budget) {
  return Lexer(source, where, budget).run();
}

} // namespace optiq::text::jinja
