#include "optiq/artifacts/size.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <string_view>

#include "optiq/base/checked.h"
#include "optiq/base/error.h"

namespace optiq::artifacts {
namespace {

struct Unit {
  std::string_view name; // lower case
  std::uint64_t bytes;
};

constexpr Unit kUnits[] = {
    {"", 1},
    {"b", 1},
    {"kb", 1'000},
    {"mb", 1'000'000},
    {"gb", 1'000'000'000},
    {"tb", 1'000'000'000'000},
    {"kib", 1ull << 10},
    {"mib", 1ull << 20},
    {"gib", 1ull << 30},
    {"tib", 1ull << 40},
};

// Keeps the fraction's products inside 64 bits for every unit.
constexpr std::size_t kMaxFractionDigits = 6;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

[[noreturn]] void refuse_size(const std::string& text) {
  fail(
      ErrorKind::InvalidInput,
      "[parse_size] '{}': expected a size such as 600MB (10^6 bytes), 1.5GiB "
      "(2^30) or 123456 (bytes)",
      text);
}

/** Reads decimal digits from the front of `rest`. */
std::optional<std::uint64_t> take_digits(std::string_view& rest) {
  std::uint64_t value = 0;
  while (!rest.empty() && is_digit(rest.front())) {
    const auto tenfold = checked_mul(value, 10);
    const auto next =
        tenfold ? checked_add(*tenfold, rest.front() - '0') : std::nullopt;
    if (!next) {
      return std::nullopt;
    }
    value = *next;
    rest.remove_prefix(1);
  }
  return value;
}

std::optional<std::uint64_t> unit_bytes(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  });
  for (const Unit& unit : kUnits) {
    if (unit.name == lower) {
      return unit.bytes;
    }
  }
  return std::nullopt;
}

} // namespace

double file_bpw(std::uint64_t bytes, std::uint64_t parameters) {
  return parameters == 0
      ? 0.0
      : 8.0 * static_cast<double>(bytes) / static_cast<double>(parameters);
}

std::uint64_t
quantized_bytes(std::uint64_t out, std::uint64_t in, int bits, int group_size) {
  const std::uint64_t code_bytes = in * static_cast<std::uint64_t>(bits) / 8;
  const std::uint64_t groups = in / static_cast<std::uint64_t>(group_size);
  return out * (code_bytes + groups * 2 * sizeof(std::uint16_t));
}

std::uint64_t parse_size(const std::string& text) {
  std::string_view rest = text;
  if (rest.empty() || !is_digit(rest.front())) {
    refuse_size(text);
  }
  const auto whole = take_digits(rest);
  std::uint64_t fraction = 0;
  std::uint64_t scale = 1;
  if (!rest.empty() && rest.front() == '.') {
    rest.remove_prefix(1);
    const std::size_t before = rest.size();
    const auto digits = take_digits(rest);
    const std::size_t n_digits = before - rest.size();
    if (!digits || n_digits == 0 || n_digits > kMaxFractionDigits) {
      refuse_size(text);
    }
    fraction = *digits;
    for (std::size_t i = 0; i < n_digits; ++i) {
      scale *= 10;
    }
  }
  if (rest.size() > 1 && rest.front() == ' ') {
    rest.remove_prefix(1); // between number and unit
  }
  const auto unit = unit_bytes(rest);
  const auto product = whole && unit ? checked_mul(*whole, *unit) : whole;
  if (!whole || !unit || !product) {
    refuse_size(text);
  }
  const auto sum = checked_add(*product, fraction * *unit / scale);
  if (!sum) {
    refuse_size(text);
  }
  return *sum;
}

std::string format_size(std::uint64_t bytes) {
  constexpr const char* kNames[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
  if (bytes < 1000) {
    return fmt::format("{} B", bytes);
  }
  double value = static_cast<double>(bytes) / 1000;
  std::size_t unit = 0;
  while (value >= 999.95 && unit + 1 < std::size(kNames)) {
    value /= 1000; // 999.95 would print as 1000.0
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kNames[unit]);
}

} // namespace optiq::artifacts
