#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "optiq/base/error.h"

/** Handcrafted GGUF files: the unit test and the oracle share them. */
namespace optiq::test {

template <typename T>
std::string raw(T value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}
inline std::string u32(std::uint64_t value) {
  return raw(static_cast<std::uint32_t>(value));
}
inline std::string u64(std::uint64_t value) {
  return raw(value);
}
inline std::string gguf_string(const std::string& text) {
  return u64(text.size()) + text;
}

/** Parts of a GGUF file, any of which a case may get wrong. */
struct GgufParts {
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::vector<std::string> values;
  std::vector<std::string> tensors;
  std::uint64_t n_values = ~0ull; // ~0: as many as there are
  std::uint64_t n_tensors = ~0ull;
  std::string data = std::string(32, '\0');
  std::size_t alignment = 32;

  std::string bytes() const {
    std::string out = magic + u32(version) +
        u64(n_tensors == ~0ull ? tensors.size() : n_tensors) +
        u64(n_values == ~0ull ? values.size() : n_values);
    for (const auto* parts : {&values, &tensors}) {
      for (const std::string& part : *parts) {
        out += part;
      }
    }
    out.resize((out.size() + alignment - 1) / alignment * alignment, '\0');
    return out + data;
  }
};

inline std::string gguf_value(
    const std::string& key,
    std::uint32_t type,
    const std::string& payload) {
  return gguf_string(key) + u32(type) + payload;
}
inline std::string gguf_text(const std::string& key, const std::string& text) {
  return gguf_value(key, 8, gguf_string(text));
}
inline std::string gguf_u32(const std::string& key, std::uint32_t value) {
  return gguf_value(key, 4, u32(value));
}
inline std::string gguf_array(
    const std::string& key,
    std::uint32_t item_type,
    std::uint64_t count,
    const std::string& items) {
  return gguf_value(key, 9, u32(item_type) + u64(count) + items);
}
inline std::string gguf_texts(
    const std::string& key,
    const std::vector<std::string>& texts) {
  std::string items;
  for (const std::string& text : texts) {
    items += gguf_string(text);
  }
  return gguf_array(key, 8, texts.size(), items);
}

/** Axes as the file has them: the contiguous one first. */
inline std::string gguf_tensor(
    const std::string& name,
    const std::vector<std::uint64_t>& axes,
    std::uint32_t type,
    std::uint64_t offset) {
  std::string out = gguf_string(name) + u32(axes.size());
  for (const std::uint64_t axis : axes) {
    out += u64(axis);
  }
  return out + u32(type) + u64(offset);
}

struct BrokenGguf {
  friend void PrintTo(const BrokenGguf& file, std::ostream* out) {
    *out << file.name;
  }

  std::string name;
  std::string bytes;
  std::string culprit; // what the message must name
  ErrorKind kind = ErrorKind::Corrupt;
  bool reference_accepts = false; // we are stricter on purpose
};

/** A file with one F32 tensor "t" of 8 numbers and one key "k", changed. */
inline std::string changed_gguf(const std::function<void(GgufParts&)>& change) {
  GgufParts parts;
  parts.values = {gguf_u32("k", 7)};
  parts.tensors = {gguf_tensor("t", {8}, 0, 0)};
  change(parts);
  return parts.bytes();
}

inline std::string gguf_with_value(const std::string& value) {
  return changed_gguf([&](GgufParts& p) { p.values = {value}; });
}

inline std::string gguf_with_tensor(const std::string& tensor) {
  return changed_gguf([&](GgufParts& p) { p.tensors = {tensor}; });
}

inline std::string gguf_with_tensors(
    std::vector<std::string> tensors,
    std::size_t n_data) {
  return changed_gguf([&](GgufParts& p) {
    p.tensors = std::move(tensors);
    p.data = std::string(n_data, '\0');
  });
}

inline constexpr std::uint64_t kHuge = std::uint64_t{1} << 62;

inline std::vector<BrokenGguf> broken_gguf_frames() {
  const std::string good = changed_gguf([](GgufParts&) {});
  return {
      {"empty", "", "the header"},
      {"only_magic", "GGUF", "the header"},
      {"magic_lower_case",
       changed_gguf([](GgufParts& p) { p.magic = "gguf"; }),
       "the header"},
      {"magic_of_ggml",
       changed_gguf([](GgufParts& p) { p.magic = "lmgg"; }),
       "the header"},
      {"version_0",
       changed_gguf([](GgufParts& p) { p.version = 0; }),
       "version 0",
       ErrorKind::Unsupported},
      {"version_1",
       changed_gguf([](GgufParts& p) { p.version = 1; }),
       "version 1",
       ErrorKind::Unsupported},
      {"version_4",
       changed_gguf([](GgufParts& p) { p.version = 4; }),
       "version 4",
       ErrorKind::Unsupported},
      {"big_endian",
       changed_gguf([](GgufParts& p) { p.version = 3u << 24; }),
       "big-endian",
       ErrorKind::Unsupported},
      {"ends_in_counts", good.substr(0, 20), "the header"},
      {"ends_in_values", good.substr(0, 30), "metadata value"},
      {"tensors_2_to_40",
       changed_gguf([](GgufParts& p) { p.n_tensors = 1ull << 40; }),
       "the header"},
      {"tensors_2_to_64_minus_2",
       changed_gguf([](GgufParts& p) { p.n_tensors = ~1ull; }),
       "the header"},
      {"one_tensor_too_many",
       changed_gguf([](GgufParts& p) { p.n_tensors = 2; }),
       "tensor 2 of 2"},
      {"values_2_to_62",
       changed_gguf([](GgufParts& p) { p.n_values = kHuge; }),
       "the header"},
      {"one_value_too_many",
       changed_gguf([](GgufParts& p) { p.n_values = 2; }),
       "tensor 1 of 1",
       ErrorKind::Corrupt,
       true},
      {"trailing_bytes",
       changed_gguf([](GgufParts& p) { p.data += std::string(40, 'x'); }),
       "the end of the file",
       ErrorKind::Corrupt,
       true},
  };
}

inline std::vector<BrokenGguf> broken_gguf_values() {
  const auto stricter =
      [](std::string name, std::string bytes, std::string culprit) {
        return BrokenGguf{
            std::move(name),
            std::move(bytes),
            std::move(culprit),
            ErrorKind::Corrupt,
            true};
      };
  return {
      {"key_length_2_to_62",
       gguf_with_value(u64(kHuge) + "k"),
       "metadata value 1"},
      {"key_twice",
       changed_gguf([](GgufParts& p) { p.values.push_back(p.values[0]); }),
       "'k'"},
      {"key_not_utf8",
       gguf_with_value(gguf_u32("\xff\xfe", 1)),
       "metadata value 1"},
      stricter("key_empty", gguf_with_value(gguf_u32("", 1)), "value 1"),
      stricter(
          "key_too_long",
          gguf_with_value(gguf_u32(std::string(70000, 'k'), 1)),
          "metadata value 1"),
      {"value_type_13", gguf_with_value(gguf_value("k", 13, u32(1))), "'k'"},
      {"value_type_2_to_32_minus_1",
       gguf_with_value(gguf_value("k", ~0u, u32(1))),
       "'k'"},
      stricter(
          "truth_value_2", gguf_with_value(gguf_value("k", 7, "\2")), "'k'"),
      {"string_longer_than_the_file",
       gguf_with_value(gguf_value("k", 8, u64(1 << 20) + "abc")),
       "'k'"},
      {"string_length_2_to_64_minus_1",
       gguf_with_value(gguf_value("k", 8, u64(~0ull) + "abc")),
       "'k'"},
      {"array_count_2_to_61",
       gguf_with_value(gguf_array("k", 4, kHuge / 2, u32(1))),
       "'k'"},
      {"array_bytes_wrap_to_4",
       gguf_with_value(gguf_array("k", 4, kHuge + 1, u32(1))),
       "'k'"},
      {"array_of_strings_2_to_62",
       gguf_with_value(gguf_array("k", 8, kHuge, gguf_string("a"))),
       "'k'"},
      {"array_item_too_long",
       gguf_with_value(gguf_array("k", 8, 1, u64(kHuge) + "a")),
       "'k'"},
      {"array_item_type_99",
       gguf_with_value(gguf_array("k", 99, 1, u32(1))),
       "'k'"},
      stricter(
          "array_item_type_99_without_items",
          gguf_with_value(gguf_array("k", 99, 0, "")),
          "'k'"),
      stricter(
          "array_of_arrays",
          gguf_with_value(gguf_array("k", 9, 1, u32(4) + u64(1) + u32(1))),
          "'k'"),
      {"alignment_0",
       gguf_with_value(gguf_u32("general.alignment", 0)),
       "general.alignment"},
      {"alignment_24",
       gguf_with_value(gguf_u32("general.alignment", 24)),
       "general.alignment"},
      {"alignment_of_another_type",
       gguf_with_value(gguf_value("general.alignment", 10, u64(32))),
       "general.alignment"},
      {"alignment_2_to_31",
       gguf_with_value(gguf_u32("general.alignment", 1u << 31)),
       "general.alignment"},
  };
}

inline std::vector<BrokenGguf> broken_gguf_tensors() {
  const auto unsupported = [](std::string name,
                              std::uint32_t type,
                              std::string culprit,
                              bool reference_accepts) {
    return BrokenGguf{
        std::move(name),
        gguf_with_tensors({gguf_tensor("t", {256}, type, 0)}, 4096),
        std::move(culprit),
        ErrorKind::Unsupported,
        reference_accepts};
  };
  const std::string t = gguf_tensor("t", {8}, 0, 0);
  return {
      {"name_length_2_to_62", gguf_with_tensor(u64(kHuge) + "t"), "tensor 1"},
      {"name_not_utf8",
       gguf_with_tensor(gguf_tensor("\xc3", {8}, 0, 0)),
       "tensor 1"},
      {"name_twice",
       gguf_with_tensors({t, gguf_tensor("t", {8}, 0, 32)}, 64),
       "'t'"},
      {"axes_100",
       gguf_with_tensor(gguf_string("t") + u32(100) + u64(8)),
       "'t'"},
      {"axes_2_to_32_minus_1",
       gguf_with_tensor(gguf_string("t") + u32(~0u) + u64(8)),
       "'t'"},
      {"axes_0",
       gguf_with_tensor(gguf_string("t") + u32(0) + u32(0) + u64(0)),
       "'t'",
       ErrorKind::Corrupt,
       true},
      {"axes_5",
       gguf_with_tensor(gguf_tensor("t", {8, 1, 1, 1, 1}, 0, 0)),
       "'t'",
       ErrorKind::Corrupt,
       true},
      {"axis_0",
       gguf_with_tensor(gguf_tensor("t", {8, 0}, 0, 0)),
       "'t'",
       ErrorKind::Corrupt,
       true},
      {"axis_2_to_62",
       gguf_with_tensor(gguf_tensor("t", {kHuge}, 0, 0)),
       "'t'"},
      {"axis_negative",
       gguf_with_tensor(gguf_tensor("t", {~0ull}, 0, 0)),
       "'t'"},
      {"product_wraps_to_0",
       gguf_with_tensor(gguf_tensor("t", {1ull << 32, 1ull << 32}, 0, 0)),
       "'t'"},
      {"product_wraps_below_2_to_31_each",
       gguf_with_tensor(
           gguf_tensor("t", {1ull << 30, 1ull << 30, 16, 1}, 0, 0)),
       "'t'"},
      {"bytes_wrap_to_0",
       gguf_with_tensor(gguf_tensor("t", {1ull << 30, 1ull << 30, 4, 1}, 0, 0)),
       "'t'"},
      {"row_is_no_whole_block",
       gguf_with_tensors({gguf_tensor("t", {48, 2}, 2, 0)}, 64),
       "'t'"},
      {"offset_past_the_end",
       gguf_with_tensor(gguf_tensor("t", {8}, 0, 64)),
       "'t'"},
      {"offset_2_to_64_minus_32",
       gguf_with_tensor(gguf_tensor("t", {8}, 0, ~31ull)),
       "'t'",
       ErrorKind::Corrupt,
       true},
      {"offset_unaligned",
       gguf_with_tensors({gguf_tensor("t", {8}, 0, 4)}, 64),
       "'t'",
       ErrorKind::Corrupt,
       true},
      {"hole",
       gguf_with_tensors({t, gguf_tensor("s", {8}, 0, 64)}, 96),
       "'s'",
       ErrorKind::Corrupt,
       true},
      {"overlap",
       gguf_with_tensors(
           {gguf_tensor("s", {16}, 0, 0), gguf_tensor("t", {8}, 0, 32)}, 64),
       "'t'",
       ErrorKind::Corrupt,
       true},
      {"same_place",
       gguf_with_tensors({t, gguf_tensor("s", {8}, 0, 0)}, 64),
       "'s'",
       ErrorKind::Corrupt,
       true},
      {"data_one_byte_short",
       changed_gguf([](GgufParts& p) { p.data.pop_back(); }),
       "'t'"},
      {"no_data", changed_gguf([](GgufParts& p) { p.data.clear(); }), "'t'"},
      {"second_tensor_short",
       gguf_with_tensors({t, gguf_tensor("s", {8}, 0, 32)}, 60),
       "'s'"},
      unsupported("type_q8_1", 9, "'t': found type 9 (Q8_1)", true),
      unsupported("type_iq2_s", 22, "'t': found type 22 (IQ2_S)", true),
      unsupported("type_i32", 26, "'t': found type 26 (I32)", true),
      unsupported("type_f64", 28, "'t': found type 28 (F64)", true),
      unsupported("type_tq1_0", 34, "'t': found type 34 (TQ1_0)", true),
      unsupported("type_4_removed", 4, "'t': found type 4,", false),
      unsupported("type_999", 999, "'t': found type 999,", false),
  };
}

inline std::vector<BrokenGguf> broken_gguf_files() {
  std::vector<BrokenGguf> all;
  for (auto& files :
       {broken_gguf_frames(), broken_gguf_values(), broken_gguf_tensors()}) {
    all.insert(all.end(), files.begin(), files.end());
  }
  return all;
}

} // namespace optiq::test
