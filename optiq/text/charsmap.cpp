#include <utf8proc.h>

#include "optiq/base/error.h"
#include "optiq/text/charsmap_impl.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {
namespace {

constexpr std::uint32_t kValueBit = 1u << 31;

std::uint32_t read_u32(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    value |= std::uint32_t{static_cast<unsigned char>(bytes[at + i])}
        << (8 * i);
  }
  return value;
}

std::uint32_t offset_of(std::uint32_t unit) {
  return unit >> 10 << ((unit & 1u << 9) >> 6);
}

bool has_label(std::uint32_t unit, std::uint32_t label) {
  return (unit & (kValueBit | 0xFF)) == label;
}

bool ends_string(std::uint32_t unit) {
  return (unit >> 8 & 1) != 0;
}

bool is_inside_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

template <typename... Args>
[[noreturn]] void reject(
    const std::string& where,
    fmt::format_string<Args...> format,
    Args&&... args) {
  fail(
      ErrorKind::Corrupt,
      "[CharsMap] {}: {}. Fetch the file again",
      where,
      fmt::format(format, std::forward<Args>(args)...));
}

/** Bytes of the grapheme cluster that begins at `at`. */
std::size_t cluster_size(std::string_view text, std::size_t at) {
  const auto code_point = [&](std::size_t place) {
    return static_cast<utf8proc_int32_t>(
        decode_character(text.data() + place).code_point);
  };
  const auto size = [&](std::size_t place) {
    return std::size_t{decode_character(text.data() + place).length};
  };
  utf8proc_int32_t state = 0;
  utf8proc_int32_t last = code_point(at);
  std::size_t end = at + size(at);
  while (end < text.size()) {
    const utf8proc_int32_t next = code_point(end);
    if (utf8proc_grapheme_break_stateful(last, next, &state) != 0) {
      break;
    }
    last = next;
    end += size(end);
  }
  return end - at;
}

} // namespace

CharsMap CharsMap::parse(std::string_view bytes, const std::string& where) {
  if (bytes.size() < 4) {
    reject(where, "found {} bytes, expected a double array", bytes.size());
  }
  const std::uint32_t array_bytes = read_u32(bytes, 0);
  if (array_bytes % 4 != 0 || array_bytes == 0 ||
      array_bytes > bytes.size() - 4) {
    reject(
        where,
        "found a double array of {} bytes, expected a multiple of 4 up to {}",
        array_bytes,
        bytes.size() - 4);
  }
  CharsMap map;
  map.units_.reserve(array_bytes / 4);
  for (std::size_t at = 4; at < 4 + std::size_t{array_bytes}; at += 4) {
    map.units_.push_back(read_u32(bytes, at));
  }
  map.texts_ = bytes.substr(4 + std::size_t{array_bytes});
  map.check(where);
  return map;
}

/** That every rule which can be found has a text. Every place is visited once:
 * strings may share their ends, and broken arrays may have cycles. */
void CharsMap::check(const std::string& where) const {
  if (!texts_.ends_with('\0') || !is_valid_utf8(texts_)) {
    reject(
        where,
        "found {} bytes of texts, expected UTF-8 that ends in a NUL",
        texts_.size());
  }
  std::vector<bool> seen(units_.size());
  std::vector<std::uint32_t> bases{offset_of(units_[0])};
  while (!bases.empty()) {
    const std::uint32_t base = bases.back();
    bases.pop_back();
    for (std::uint32_t label = 1; label < 256; ++label) {
      const std::uint32_t at = base ^ label;
      if (at >= units_.size() || !has_label(units_[at], label) || seen[at]) {
        continue;
      }
      seen[at] = true;
      const std::uint32_t next = at ^ offset_of(units_[at]);
      bases.push_back(next);
      if (!ends_string(units_[at])) {
        continue;
      }
      const std::uint32_t place =
          next < units_.size() ? units_[next] ^ kValueBit : kValueBit;
      if (place >= texts_.size() || is_inside_character(texts_[place])) {
        reject(
            where,
            "unit {} has no text, expected the place of one within {} bytes",
            at,
            texts_.size());
      }
    }
  }
}

/** Calls visit(rule) for each beginning of `text` that has one, the shortest
 * first, until it returns false. */
template <typename Visit>
void CharsMap::for_each_rule(std::string_view text, Visit visit) const {
  std::uint32_t base = offset_of(units_[0]);
  for (std::size_t i = 0; i < text.size() && text[i] != '\0'; ++i) {
    const auto label = static_cast<unsigned char>(text[i]);
    const std::uint32_t at = base ^ label;
    if (at >= units_.size() || !has_label(units_[at], label)) {
      return;
    }
    base = at ^ offset_of(units_[at]);
    const bool is_whole =
        i + 1 == text.size() || !is_inside_character(text[i + 1]);
    if (ends_string(units_[at]) && is_whole &&
        !visit(Rule{i + 1, content_at(units_[base] ^ kValueBit)})) {
      return;
    }
  }
}

std::optional<CharsMap::Rule> CharsMap::longest_rule(
    std::string_view text) const {
  std::optional<Rule> found;
  for_each_rule(text, [&](const Rule& rule) {
    found = rule;
    return true;
  });
  return found;
}

std::optional<CharsMap::Rule> CharsMap::shortest_rule(
    std::string_view text) const {
  std::optional<Rule> found;
  for_each_rule(text, [&](const Rule& rule) {
    found = rule;
    return false;
  });
  return found;
}

std::string apply_charsmap(const CharsMap& map, std::string_view text) {
  constexpr std::size_t kLongestCluster = 5;
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t cluster = cluster_size(text, at);
    const auto whole = cluster <= kLongestCluster
        ? map.shortest_rule(text.substr(at, cluster))
        : std::nullopt;
    if (whole) {
      out += whole->content;
      at += cluster;
      continue;
    }
    for (const std::size_t end = at + cluster; at < end;) {
      const std::string_view character =
          text.substr(at, decode_character(text.data() + at).length);
      const auto rule = map.shortest_rule(character);
      out += rule ? rule->content : character;
      at += character.size();
    }
  }
  return out;
}

} // namespace optiq::text
