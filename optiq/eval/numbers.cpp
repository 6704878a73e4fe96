#include "optiq/eval/numbers.h"

#include <algorithm>
#include <array>

namespace optiq::eval {
namespace {

constexpr std::string_view kMinusSign = "\xE2\x88\x92"; // U+2212
constexpr std::array<std::string_view, 5> kCurrencies{
    "$",
    "\xE2\x82\xAC", // euro
    "\xC2\xA3", // pound
    "\xC2\xA5", // yen
    "\xE2\x82\xB9", // rupee
};
constexpr std::size_t kGroup = 3; // digits between thousands commas

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_word(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
      c == '_' || static_cast<unsigned char>(c) >= 0x80;
}

/** Position behind the digits that start at `at`. */
std::size_t skip_digits(std::string_view text, std::size_t at) {
  while (at < text.size() && is_digit(text[at])) {
    ++at;
  }
  return at;
}

/** Position behind ",ddd" at `at`, or `at`. */
std::size_t skip_group(std::string_view text, std::size_t at) {
  if (at < text.size() && text[at] == ',' &&
      skip_digits(text, at + 1) == at + 1 + kGroup) {
    return at + 1 + kGroup;
  }
  return at;
}

/** Removes `suffix` from the end of `text`; false when it is not there. */
bool drop_suffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) {
    return false;
  }
  text.remove_suffix(suffix.size());
  return true;
}

bool drop_currency(std::string_view& text) {
  return std::any_of(
      kCurrencies.begin(), kCurrencies.end(), [&](std::string_view sign) {
        return drop_suffix(text, sign);
      });
}

/** Whether what stands before a number makes it negative: "-", "-$", "$-". */
bool has_minus(std::string_view before) {
  const bool currency = drop_currency(before);
  if (!drop_suffix(before, "-") && !drop_suffix(before, kMinusSign)) {
    return false;
  }
  if (!currency && drop_currency(before)) {
    return true;
  }
  return before.empty() ||
      !(is_word(before.back()) || before.back() == ')' || before.back() == ']');
}

struct Unsigned {
  std::string whole;
  std::string fraction;
  std::size_t end = 0;
};

/** The number whose first digit (or decimal point) is at `at`. */
Unsigned read_unsigned(std::string_view text, std::size_t at) {
  Unsigned number;
  std::size_t end = skip_digits(text, at);
  number.whole = text.substr(at, end - at);
  if (end - at >= 1 && end - at <= kGroup && text[at] != '0') {
    for (std::size_t next = skip_group(text, end); next != end;
         next = skip_group(text, end)) {
      number.whole += text.substr(end + 1, kGroup);
      end = next;
    }
  }
  if (end < text.size() && text[end] == '.') {
    const std::size_t next = skip_digits(text, end + 1);
    if (next > end + 1) {
      number.fraction = text.substr(end + 1, next - end - 1);
      end = next;
    }
  }
  number.end = end;
  return number;
}

std::string canonical(const Unsigned& number, bool negative) {
  std::string whole = number.whole;
  whole.erase(0, std::min(whole.find_first_not_of('0'), whole.size()));
  std::string fraction = number.fraction;
  fraction.erase(fraction.find_last_not_of('0') + 1);
  if (whole.empty()) {
    whole = "0";
  }
  if (fraction.empty() && whole == "0") {
    return "0";
  }
  return (negative ? "-" : "") + whole +
      (fraction.empty() ? "" : "." + fraction);
}

/** Whether a number starts at `at`: a digit, or ".d" that ends no word. */
bool starts_number(std::string_view text, std::size_t at) {
  if (is_digit(text[at])) {
    return true;
  }
  return text[at] == '.' && at + 1 < text.size() && is_digit(text[at + 1]) &&
      (at == 0 || !(is_word(text[at - 1]) || text[at - 1] == '.'));
}

struct Found {
  std::string value;
  std::size_t begin = 0;
  std::size_t end = 0;
};

std::optional<Found> next_number(std::string_view text, std::size_t from) {
  for (std::size_t at = from; at < text.size(); ++at) {
    if (starts_number(text, at)) {
      const Unsigned number = read_unsigned(text, at);
      return Found{
          canonical(number, has_minus(text.substr(0, at))), at, number.end};
    }
  }
  return std::nullopt;
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const auto begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) {
    return {};
  }
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

} // namespace

std::optional<std::string> last_number(std::string_view text) {
  std::optional<std::string> last;
  std::optional<Found> found = next_number(text, 0);
  while (found) {
    last = std::move(found->value);
    found = next_number(text, found->end);
  }
  return last;
}

std::optional<std::string> parse_number(std::string_view text) {
  text = trim(text);
  drop_suffix(text, "%");
  const std::optional<Found> found = next_number(text, 0);
  if (!found || found->end != text.size()) {
    return std::nullopt;
  }
  std::string_view before = text.substr(0, found->begin);
  drop_currency(before);
  if (!drop_suffix(before, "-")) {
    drop_suffix(before, kMinusSign);
  }
  drop_currency(before);
  return before.empty() ? std::optional(found->value) : std::nullopt;
}

} // namespace optiq::eval
