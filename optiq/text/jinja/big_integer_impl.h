#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace optiq::text::jinja {

/**
 * An integer of any length: Python's int where 64 bits are not enough. The
 * algorithms are those of pencil and paper; callers bound the lengths.
 */
class BigInteger {
 public:
  BigInteger() = default;
  explicit BigInteger(std::int64_t value);
  /** Of a finite float, its fraction cut off. */
  explicit BigInteger(double value);
  /** Digits of a base from 2 to 36 and nothing else; nothing when there is
   * another character, or none. */
  static std::optional<BigInteger> parse(std::string_view digits, int base);

  bool is_negative() const {
    return is_negative_;
  }
  bool is_zero() const {
    return limbs_.empty();
  }
  /** Limbs of 32 bits. */
  std::size_t size() const {
    return limbs_.size();
  }
  std::size_t bit_length() const;
  std::optional<std::int64_t> to_int64() const;
  /** Rounded to nearest, ties to even; infinite when too large. */
  double to_double() const;
  /** Digits of the magnitude, lower case. */
  std::string digits(int base) const;

  BigInteger negated() const;
  BigInteger shifted_left(std::size_t bits) const;
  /** -1, 0 or 1. */
  static int compare(const BigInteger& a, const BigInteger& b);
  static BigInteger add(const BigInteger& a, const BigInteger& b);
  static BigInteger multiply(const BigInteger& a, const BigInteger& b);
  /** Quotient rounded down and remainder of the divisor's sign, as Python's
   * divmod; the divisor is not 0. */
  static std::pair<BigInteger, BigInteger> divide(
      const BigInteger& a,
      const BigInteger& b);
  /** a / b rounded to nearest; infinite when too large. */
  static double ratio(const BigInteger& a, const BigInteger& b);

 private:
  using Limbs = std::vector<std::uint32_t>; // least first, no leading zero
  BigInteger(Limbs limbs, bool is_negative);

  Limbs limbs_;
  bool is_negative_ = false;
};

} // namespace optiq::text::jinja
