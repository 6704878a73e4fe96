// Numbers and padding, for both of Python's ways to format; and strftime.
#include <cmath>
#include <ctime>

#include "optiq/base/error.h"
#include "optiq/text/jinja/builtins_impl.h"
#include "optiq/text/jinja/text_impl.h"

namespace optiq::text::jinja {
namespace {

// Digits in groups, with as many zeros before them as `least` characters need.
void write_grouped(
    Text& out,
    const std::string& digits,
    char mark,
    std::size_t every,
    std::size_t least) {
  const auto grouped = [every](std::size_t n) { return n + (n - 1) / every; };
  std::size_t n = digits.size();
  if (grouped(n) < least) {
    n = least - least / (every + 1);
    n += grouped(n) < least ? 1 : 0;
  }
  out.reserve_more(grouped(n));
  for (std::size_t left = n; left > 0; --left) {
    out.append(left > digits.size() ? '0' : digits[digits.size() - left]);
    if (left > 1 && (left - 1) % every == 0) {
      out.append(mark);
    }
  }
}

// Digits up to a dot, an exponent or the end in groups, then the rest.
void write_number(
    Text& out,
    const FormatSpec& spec,
    const std::string& sign,
    const std::string& body,
    std::size_t every) {
  if (spec.grouping == '\0') {
    write_padded(out, spec, sign, body, '>');
    return;
  }
  const bool is_hexadecimal = every == 4;
  const std::size_t end = is_hexadecimal
      ? body.size()
      : std::min(body.find_first_not_of("0123456789"), body.size());
  const std::size_t around = sign.size() + body.size() - end;
  const auto width = static_cast<std::size_t>(spec.width);
  const bool fills = spec.fill == "0" && spec.align == '=' && width > around;
  Text grouped(out.budget());
  if (end > 0) {
    write_grouped(
        grouped,
        body.substr(0, end),
        spec.grouping,
        every,
        fills ? width - around : 0);
  }
  grouped.append(std::string_view(body).substr(end));
  write_padded(out, spec, sign, grouped.str(), '>');
}

std::string sign_of(const FormatSpec& spec, bool is_negative) {
  const bool is_plain = spec.sign == '\0' || spec.sign == '-';
  return is_negative ? "-" : is_plain ? "" : std::string(1, spec.sign);
}

std::string print(const std::string& pattern, int precision, double value) {
  const int size = std::snprintf(nullptr, 0, pattern.c_str(), precision, value);
  std::string out(static_cast<std::size_t>(size) + 1, '\0');
  std::snprintf(out.data(), out.size(), pattern.c_str(), precision, value);
  out.pop_back();
  return out;
}

// Without a type: as repr() when there is no precision, else as 'g' with a
// digit after the dot always, and an exponent one digit earlier.
std::string general(double value, int precision, bool alternate) {
  if (precision < 0 || !std::isfinite(value)) {
    std::string text = repr(value);
    if (alternate && text.find_first_of(".in") == std::string::npos) {
      text.insert(text.find('e'), 1, '.');
    }
    return text;
  }
  precision = std::max(precision, 1);
  std::string text = print("%.*e", precision - 1, value);
  const std::size_t e = text.find('e');
  const int exponent = std::atoi(text.c_str() + e + 1);
  const bool is_scientific = exponent < -4 || exponent >= precision - 1;
  std::string digits = is_scientific
      ? text.substr(0, e)
      : print("%.*f", precision - 1 - exponent, value);
  if (alternate) { // keeps its zeros, and has a dot
    digits += digits.find('.') == std::string::npos ? "." : "";
  } else if (digits.find('.') != std::string::npos) {
    digits.resize(digits.find_last_not_of('0') + 1);
    digits += digits.back() == '.' && !is_scientific ? "0" : "";
    digits.resize(digits.size() - (digits.back() == '.' ? 1 : 0));
  } else if (!is_scientific) {
    digits += ".0";
  }
  return is_scientific ? digits + text.substr(e) : digits;
}

std::string float_body(const FormatSpec& spec, double magnitude) {
  const int precision = static_cast<int>(spec.precision);
  if (spec.type == '\0') {
    return general(magnitude, precision, spec.alternate);
  }
  const bool is_percent = spec.type == '%';
  const char type = is_percent ? 'f' : spec.type == 'n' ? 'g' : spec.type;
  const std::string pattern =
      std::string(spec.alternate ? "%#.*" : "%.*") + type;
  const std::string body = print(
      pattern,
      spec.precision < 0 ? 6 : precision,
      is_percent ? magnitude * 100 : magnitude);
  return is_percent ? body + "%" : body;
}

} // namespace

void bad_format(const std::string& what) {
  fail(ErrorKind::InvalidInput, "format: {}", what);
}

std::int64_t read_number(std::string_view text, std::size_t& at) {
  std::int64_t value = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    if (__builtin_mul_overflow(value, 10, &value) ||
        __builtin_add_overflow(value, text[at] - '0', &value)) {
      bad_format("found a number of more than 64 bits");
    }
    ++at;
  }
  return value;
}

void write_padded(
    Text& out,
    const FormatSpec& spec,
    std::string_view sign,
    std::string_view body,
    char default_align) {
  const auto length = static_cast<std::int64_t>(
      count_code_points(sign) + count_code_points(body));
  const std::int64_t n = std::max<std::int64_t>(spec.width - length, 0);
  const char align = spec.align == '\0' ? default_align : spec.align;
  const std::int64_t left = align == '<' ? 0 : align == '^' ? n / 2 : n;
  if (align == '=') {
    out.append(sign);
  }
  out.append_times(spec.fill, static_cast<std::size_t>(left));
  if (align != '=') {
    out.append(sign);
  }
  out.append(body);
  out.append_times(spec.fill, static_cast<std::size_t>(n - left));
}

void write_integer(Text& out, const FormatSpec& spec, const Value& value) {
  const BigInteger number = value.big();
  std::string prefix = sign_of(spec, number.is_negative());
  const bool is_hexadecimal = spec.type == 'x' || spec.type == 'X';
  const int base = is_hexadecimal ? 16
      : spec.type == 'o'          ? 8
      : spec.type == 'b'          ? 2
                                  : 10;
  const Charge charge(out.budget(), base == 10 ? 0 : 2 * number.bit_length());
  std::string digits = base == 10
      ? decimal(value).substr(number.is_negative() ? 1 : 0)
      : number.digits(base);
  if (base != 10 && spec.alternate) {
    prefix += std::string("0") + spec.type;
  }
  if (spec.type == 'X') {
    for (char& c : digits) {
      c = c >= 'a' ? static_cast<char>(c - 'a' + 'A') : c;
    }
  }
  write_number(out, spec, prefix, digits, base == 10 ? 3 : 4);
}

void write_float(Text& out, const FormatSpec& spec, double value) {
  if (spec.precision > INT32_MAX) {
    bad_format("found a precision of more than 31 bits");
  }
  // Digits before the dot and after it, printed twice.
  const std::size_t most =
      320 + static_cast<std::size_t>(std::max<std::int64_t>(spec.precision, 0));
  const Charge charge(out.budget(), 4 * most);
  meter(out.budget(), 16 * most); // exact digits take long to find
  std::string body = float_body(spec, std::abs(value));
  const bool is_zero = body.find_first_of("123456789nN") == std::string::npos;
  const bool is_negative = std::signbit(value) && !std::isnan(value) &&
      !(spec.no_negative_zero && is_zero);
  write_number(out, spec, sign_of(spec, is_negative), body, 3);
}

std::string format_now(std::string_view format) {
  timespec now{};
  std::timespec_get(&now, TIME_UTC);
  tm local{};
  localtime_r(&now.tv_sec, &local);
  // A Python datetime without a zone prints %z and %Z as nothing, and knows %f.
  std::string prepared;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      prepared += format[i];
      continue;
    }
    const char type = format[++i];
    if (type == 'f') {
      prepared += fmt::format("{:06d}", now.tv_nsec / 1000);
    } else if (type != 'z' && type != 'Z') {
      prepared += '%';
      prepared += type;
    }
  }
  prepared += '.'; // tells an empty result from one that did not fit
  std::string out(prepared.size() * 4 + 256, '\0');
  out.resize(std::strftime(out.data(), out.size(), prepared.c_str(), &local));
  if (out.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "strftime_now: found format {}, which gives no text",
        quote(format));
  }
  out.pop_back();
  return out;
}

} // namespace optiq::text::jinja
