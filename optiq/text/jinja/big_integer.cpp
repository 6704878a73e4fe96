#include <algorithm>
#include <bit>
#include <cmath>

#include "optiq/text/jinja/big_integer_impl.h"

namespace optiq::text::jinja {
namespace {

using Limbs = std::vector<std::uint32_t>;

void trim(Limbs& limbs) {
  while (!limbs.empty() && limbs.back() == 0) {
    limbs.pop_back();
  }
}

int compare_limbs(const Limbs& a, const Limbs& b) {
  if (a.size() != b.size()) {
    return a.size() < b.size() ? -1 : 1;
  }
  for (std::size_t i = a.size(); i-- > 0;) {
    if (a[i] != b[i]) {
      return a[i] < b[i] ? -1 : 1;
    }
  }
  return 0;
}

Limbs add_limbs(const Limbs& a, const Limbs& b) {
  const Limbs& longer = a.size() < b.size() ? b : a;
  const Limbs& shorter = a.size() < b.size() ? a : b;
  Limbs sum(longer.size() + 1);
  std::uint64_t carry = 0;
  for (std::size_t i = 0; i < longer.size(); ++i) {
    carry += longer[i];
    carry += i < shorter.size() ? shorter[i] : 0;
    sum[i] = static_cast<std::uint32_t>(carry);
    carry >>= 32;
  }
  sum.back() = static_cast<std::uint32_t>(carry);
  trim(sum);
  return sum;
}

// a - b, for a >= b.
Limbs subtract_limbs(const Limbs& a, const Limbs& b) {
  Limbs difference(a.size());
  std::int64_t borrow = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::int64_t limb = borrow + a[i];
    limb -= i < b.size() ? b[i] : 0;
    difference[i] = static_cast<std::uint32_t>(limb);
    borrow = limb >> 32;
  }
  trim(difference);
  return difference;
}

// Divides in place; returns the remainder.
std::uint32_t divide_by_limb(Limbs& a, std::uint32_t divisor) {
  std::uint64_t rest = 0;
  for (std::size_t i = a.size(); i-- > 0;) {
    rest = (rest << 32) | a[i];
    a[i] = static_cast<std::uint32_t>(rest / divisor);
    rest %= divisor;
  }
  trim(a);
  return static_cast<std::uint32_t>(rest);
}

Limbs shift_left(const Limbs& a, std::size_t bits) {
  if (a.empty()) {
    return {};
  }
  const std::size_t whole = bits / 32;
  Limbs out(whole + a.size() + 1);
  for (std::size_t i = 0; i < a.size(); ++i) {
    const std::uint64_t part = static_cast<std::uint64_t>(a[i]) << (bits % 32);
    out[whole + i] |= static_cast<std::uint32_t>(part);
    out[whole + i + 1] = static_cast<std::uint32_t>(part >> 32);
  }
  trim(out);
  return out;
}

Limbs shift_right(const Limbs& a, std::size_t bits) {
  const std::size_t whole = std::min(bits / 32, a.size());
  Limbs out(a.begin() + static_cast<std::ptrdiff_t>(whole), a.end());
  const std::size_t rest = bits % 32;
  for (std::size_t i = 0; rest != 0 && i < out.size(); ++i) {
    const std::uint64_t above = i + 1 < out.size() ? out[i + 1] : 0;
    out[i] = static_cast<std::uint32_t>(((above << 32) | out[i]) >> rest);
  }
  trim(out);
  return out;
}

// Knuth's algorithm D (The Art of Computer Programming, 4.3.1): `a` becomes the
// remainder, the quotient is returned. The divisor has two limbs or more.
Limbs divide_limbs(Limbs& a, const Limbs& divisor) {
  const auto shift = static_cast<std::size_t>(std::countl_zero(divisor.back()));
  const Limbs b = shift_left(divisor, shift);
  a = shift_left(a, shift);
  const std::size_t n = b.size();
  if (a.size() < n) {
    a = shift_right(a, shift);
    return {};
  }
  a.push_back(0);
  Limbs quotient(a.size() - n);
  for (std::size_t j = quotient.size(); j-- > 0;) {
    const std::uint64_t top =
        (static_cast<std::uint64_t>(a[j + n]) << 32) | a[j + n - 1];
    std::uint64_t guess = top / b[n - 1];
    std::uint64_t rest = top % b[n - 1];
    while (guess >> 32 != 0 ||
           guess * b[n - 2] > ((rest << 32) | a[j + n - 2])) {
      --guess;
      rest += b[n - 1];
      if (rest >> 32 != 0) {
        break;
      }
    }
    std::int64_t borrow = 0;
    std::uint64_t carry = 0;
    for (std::size_t i = 0; i < n; ++i) {
      carry += guess * b[i];
      const std::int64_t limb = borrow + a[i + j] -
          static_cast<std::int64_t>(static_cast<std::uint32_t>(carry));
      carry >>= 32;
      a[i + j] = static_cast<std::uint32_t>(limb);
      borrow = limb >> 32;
    }
    const std::int64_t limb =
        borrow + a[j + n] - static_cast<std::int64_t>(carry);
    a[j + n] = static_cast<std::uint32_t>(limb);
    if (limb < 0) { // the guess was one too large
      --guess;
      std::uint64_t sum = 0;
      for (std::size_t i = 0; i < n; ++i) {
        sum += static_cast<std::uint64_t>(a[i + j]) + b[i];
        a[i + j] = static_cast<std::uint32_t>(sum);
        sum >>= 32;
      }
      a[j + n] += static_cast<std::uint32_t>(sum);
    }
    quotient[j] = static_cast<std::uint32_t>(guess);
  }
  trim(quotient);
  trim(a);
  a = shift_right(a, shift);
  return quotient;
}

std::size_t bit_length_of(const Limbs& limbs) {
  return limbs.empty() ? 0
                       : 32 * limbs.size() -
          static_cast<std::size_t>(std::countl_zero(limbs.back()));
}

// The 64 highest bits, the lowest of them set when a bit below them is. Two
// bits more than a double holds, so that rounding happens once.
std::uint64_t top_bits(const Limbs& limbs) {
  const std::size_t bits = bit_length_of(limbs);
  const Limbs top = bits > 64 ? shift_right(limbs, bits - 64) : limbs;
  std::uint64_t value = 0;
  for (std::size_t i = top.size(); i-- > 0;) {
    value = (value << 32) | top[i];
  }
  if (bits > 64) {
    const Limbs back = shift_left(top, bits - 64);
    value |= compare_limbs(back, limbs) != 0 ? 1 : 0;
  }
  return value;
}

int digit_of(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'z' ? lower - 'a' + 10 : 36;
}

bool is_power_of_two(int base) {
  return std::has_single_bit(static_cast<unsigned>(base));
}

std::size_t bits_of_digit(int base) {
  return static_cast<std::size_t>(std::bit_width(static_cast<unsigned>(base))) -
      1;
}

// For bases that are powers of two, in linear time.
Limbs parse_bits(std::string_view text, int base) {
  const std::size_t width = bits_of_digit(base);
  Limbs limbs(text.size() * width / 32 + 1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t bit = i * width;
    const std::uint64_t part =
        static_cast<std::uint64_t>(digit_of(text[text.size() - 1 - i]))
        << (bit % 32);
    limbs[bit / 32] |= static_cast<std::uint32_t>(part);
    if (part >> 32 != 0) {
      limbs[bit / 32 + 1] |= static_cast<std::uint32_t>(part >> 32);
    }
  }
  trim(limbs);
  return limbs;
}

Limbs parse_digits(std::string_view text, int base) {
  Limbs limbs;
  for (const char c : text) {
    auto carry = static_cast<std::uint64_t>(digit_of(c));
    for (std::uint32_t& limb : limbs) {
      carry += static_cast<std::uint64_t>(limb) * static_cast<unsigned>(base);
      limb = static_cast<std::uint32_t>(carry);
      carry >>= 32;
    }
    if (carry != 0) {
      limbs.push_back(static_cast<std::uint32_t>(carry));
    }
  }
  return limbs;
}

constexpr const char* kDigits = "0123456789abcdefghijklmnopqrstuvwxyz";

// Digits, the last one first, for bases that are powers of two.
std::string reversed_bits(const Limbs& limbs, int base) {
  const std::size_t width = bits_of_digit(base);
  const std::size_t n = (bit_length_of(limbs) + width - 1) / width;
  std::string out;
  out.reserve(n);
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t bit = i * width;
    std::uint64_t part = limbs[bit / 32];
    if (bit / 32 + 1 < limbs.size()) {
      part |= static_cast<std::uint64_t>(limbs[bit / 32 + 1]) << 32;
    }
    out += kDigits[(part >> (bit % 32)) & (static_cast<unsigned>(base) - 1)];
  }
  return out;
}

std::string reversed_digits(const Limbs& limbs, int base) {
  // As many digits at once as a limb holds.
  const auto b = static_cast<std::uint32_t>(base);
  std::uint32_t unit = b;
  int n_digits = 1;
  while ((static_cast<std::uint64_t>(unit) * b) >> 32 == 0) {
    unit *= b;
    ++n_digits;
  }
  std::string out;
  for (Limbs rest = limbs; !rest.empty();) {
    std::uint32_t part = divide_by_limb(rest, unit);
    for (int i = 0; i < n_digits && (part != 0 || !rest.empty()); ++i) {
      out += kDigits[part % b];
      part /= b;
    }
  }
  return out;
}

} // namespace

BigInteger::BigInteger(Limbs limbs, bool is_negative)
    : limbs_(std::move(limbs)), is_negative_(is_negative && !limbs_.empty()) {}

BigInteger::BigInteger(std::int64_t value) : is_negative_(value < 0) {
  auto magnitude = static_cast<std::uint64_t>(value);
  for (magnitude = value < 0 ? 0 - magnitude : magnitude; magnitude != 0;
       magnitude >>= 32) {
    limbs_.push_back(static_cast<std::uint32_t>(magnitude));
  }
}

BigInteger::BigInteger(double value) {
  int exponent = 0;
  const double fraction = std::frexp(std::trunc(std::abs(value)), &exponent);
  // 53 bits of an integer times a power of two.
  const BigInteger mantissa(static_cast<std::int64_t>(fraction * 0x1p53));
  limbs_ = exponent >= 53
      ? shift_left(mantissa.limbs_, static_cast<std::size_t>(exponent - 53))
      : shift_right(mantissa.limbs_, static_cast<std::size_t>(53 - exponent));
  is_negative_ = value < 0 && !limbs_.empty();
}

std::optional<BigInteger> BigInteger::parse(std::string_view text, int base) {
  if (text.empty() || std::any_of(text.begin(), text.end(), [base](char c) {
        return digit_of(c) >= base;
      })) {
    return std::nullopt;
  }
  return BigInteger(
      is_power_of_two(base) ? parse_bits(text, base) : parse_digits(text, base),
      false);
}

std::size_t BigInteger::bit_length() const {
  return bit_length_of(limbs_);
}

std::optional<std::int64_t> BigInteger::to_int64() const {
  if (limbs_.size() > 2) {
    return std::nullopt;
  }
  const std::uint64_t magnitude = top_bits(limbs_);
  const std::uint64_t most = std::uint64_t{1} << 63;
  if (magnitude > most || (magnitude == most && !is_negative_)) {
    return std::nullopt;
  }
  return static_cast<std::int64_t>(is_negative_ ? 0 - magnitude : magnitude);
}

double BigInteger::to_double() const {
  const std::size_t bits = bit_length();
  const int exponent = bits > 64 ? static_cast<int>(bits - 64) : 0;
  const double magnitude =
      std::ldexp(static_cast<double>(top_bits(limbs_)), exponent);
  return is_negative_ ? -magnitude : magnitude;
}

std::string BigInteger::digits(int base) const {
  std::string out = is_power_of_two(base) ? reversed_bits(limbs_, base)
                                          : reversed_digits(limbs_, base);
  std::reverse(out.begin(), out.end());
  return out.empty() ? "0" : out;
}

BigInteger BigInteger::negated() const {
  return BigInteger(limbs_, !is_negative_);
}

BigInteger BigInteger::shifted_left(std::size_t bits) const {
  return BigInteger(shift_left(limbs_, bits), is_negative_);
}

int BigInteger::compare(const BigInteger& a, const BigInteger& b) {
  if (a.is_negative_ != b.is_negative_) {
    return a.is_negative_ ? -1 : 1;
  }
  const int order = compare_limbs(a.limbs_, b.limbs_);
  return a.is_negative_ ? -order : order;
}

BigInteger BigInteger::add(const BigInteger& a, const BigInteger& b) {
  if (a.is_negative_ == b.is_negative_) {
    return BigInteger(add_limbs(a.limbs_, b.limbs_), a.is_negative_);
  }
  return compare_limbs(a.limbs_, b.limbs_) >= 0
      ? BigInteger(subtract_limbs(a.limbs_, b.limbs_), a.is_negative_)
      : BigInteger(subtract_limbs(b.limbs_, a.limbs_), b.is_negative_);
}

BigInteger BigInteger::multiply(const BigInteger& a, const BigInteger& b) {
  Limbs product(a.size() + b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::uint64_t carry = 0;
    for (std::size_t j = 0; j < b.size(); ++j) {
      carry += static_cast<std::uint64_t>(a.limbs_[i]) * b.limbs_[j] +
          product[i + j];
      product[i + j] = static_cast<std::uint32_t>(carry);
      carry >>= 32;
    }
    product[i + b.size()] = static_cast<std::uint32_t>(carry);
  }
  trim(product);
  return BigInteger(std::move(product), a.is_negative_ != b.is_negative_);
}

std::pair<BigInteger, BigInteger> BigInteger::divide(
    const BigInteger& a,
    const BigInteger& b) {
  Limbs rest = a.limbs_;
  Limbs quotient;
  if (b.size() == 1) {
    quotient = rest;
    const std::uint32_t remainder = divide_by_limb(quotient, b.limbs_[0]);
    rest = Limbs(remainder != 0 ? 1 : 0, remainder);
  } else {
    quotient = divide_limbs(rest, b.limbs_);
  }
  const bool is_negative = a.is_negative_ != b.is_negative_;
  if (is_negative && !rest.empty()) { // towards minus infinity
    quotient = add_limbs(quotient, {1});
    rest = subtract_limbs(b.limbs_, rest);
  }
  return {
      BigInteger(std::move(quotient), is_negative),
      BigInteger(std::move(rest), b.is_negative_)};
}

double BigInteger::ratio(const BigInteger& a, const BigInteger& b) {
  // A quotient of at least 65 bits, and one below them for what it leaves out.
  const auto surplus = static_cast<std::int64_t>(a.bit_length()) -
      static_cast<std::int64_t>(b.bit_length());
  const std::int64_t shift = 66 - surplus;
  const Limbs divisor = shift < 0
      ? shift_left(b.limbs_, static_cast<std::size_t>(-shift))
      : b.limbs_;
  Limbs rest = shift > 0 ? shift_left(a.limbs_, static_cast<std::size_t>(shift))
                         : a.limbs_;
  Limbs quotient;
  if (divisor.size() == 1) {
    quotient = rest;
    const std::uint32_t remainder = divide_by_limb(quotient, divisor[0]);
    rest = Limbs(remainder != 0 ? 1 : 0, remainder);
  } else {
    quotient = divide_limbs(rest, divisor);
  }
  if (quotient.empty()) {
    return a.is_negative_ != b.is_negative_ ? -0.0 : 0.0;
  }
  quotient[0] |= rest.empty() ? 0U : 1U;
  const std::int64_t exponent = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(bit_length_of(quotient)) - 64 - shift,
      -5000,
      5000);
  const double magnitude = std::ldexp(
      static_cast<double>(top_bits(quotient)), static_cast<int>(exponent));
  return a.is_negative_ != b.is_negative_ ? -magnitude : magnitude;
}

} // namespace optiq::text::jinja
