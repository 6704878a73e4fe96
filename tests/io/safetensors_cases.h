#pragma once

#include <cstdint>
#include <cstring>
#include <ostream>
#include <string>
#include <vector>

#include "optiq/base/error.h"

/** Handcrafted safetensors files: the unit test and the oracle share them. */
namespace optiq::test {

/** What the reference implementation says of a file that we refuse. */
enum class Reference {
  Rejects,
  Accepts, // we are stricter on purpose
};

struct BrokenFile {
  friend void PrintTo(const BrokenFile& file, std::ostream* out) {
    *out << file.name;
  }

  std::string name;
  std::string bytes;
  std::string culprit; // tensor that the message must name; "" = the file
  ErrorKind kind = ErrorKind::Corrupt;
  Reference reference = Reference::Rejects;
};

inline std::string file_bytes(
    const std::string& header,
    std::size_t n_data,
    std::uint64_t length) {
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + std::string(n_data, '\x3f');
}

inline std::string file_bytes(const std::string& header, std::size_t n_data) {
  return file_bytes(header, n_data, header.size());
}

inline std::string entry(
    const std::string& name,
    const std::string& dtype,
    const std::string& shape,
    const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":" + dtype + ",\"shape\":" + shape +
      ",\"data_offsets\":" + offsets + "}";
}

/** A file with the one tensor "t". */
inline std::string one_tensor(
    const std::string& dtype,
    const std::string& shape,
    const std::string& offsets,
    std::size_t n_data) {
  return file_bytes("{" + entry("t", dtype, shape, offsets) + "}", n_data);
}

inline std::string repeat(const std::string& text, int n) {
  std::string result;
  for (int i = 0; i < n; ++i) {
    result += text;
  }
  return result;
}

/** Files whose frame (length field, JSON) is broken. */
inline std::vector<BrokenFile> broken_frames() {
  const std::string t = entry("t", "\"F32\"", "[2]", "[0,8]");
  const std::string good = "{" + t + "}";
  const std::string deep = repeat("[", 5000) + repeat("]", 5000);
  return {
      {"empty_file", "", ""},
      {"seven_bytes", std::string(7, '\0'), ""},
      {"length_zero", file_bytes("", 0), ""},
      {"length_zero_with_data", file_bytes("", 16, 0), ""},
      {"length_past_end", file_bytes(good, 8, good.size() + 9), ""},
      {"length_100_mb_plus_1", file_bytes(good, 8, 100'000'001), ""},
      {"length_2_to_62", file_bytes(good, 8, 1ull << 62), ""},
      {"length_all_ones", file_bytes(good, 8, ~0ull), ""},
      {"length_wraps_to_file", file_bytes(good, 8, ~0ull - 7), ""},
      {"length_cuts_json", file_bytes(good, 8, good.size() - 1), ""},
      {"header_is_empty_text", file_bytes("        ", 0), ""},
      {"header_starts_with_space",
       file_bytes(" " + good, 8),
       "",
       ErrorKind::Corrupt,
       Reference::Accepts},
      {"header_starts_with_bom", file_bytes("\xef\xbb\xbf" + good, 8), ""},
      {"header_is_a_list", file_bytes("[" + good + "]", 8), ""},
      {"header_is_null", file_bytes("null", 0), ""},
      {"header_not_utf8",
       file_bytes("{" + entry("t\xff", "\"F32\"", "[2]", "[0,8]") + "}", 8),
       ""},
      {"header_overlong_utf8",
       file_bytes("{" + entry("\xc0\xaf", "\"F32\"", "[2]", "[0,8]") + "}", 8),
       ""},
      {"header_lone_surrogate",
       file_bytes("{" + entry("\\ud800", "\"F32\"", "[2]", "[0,8]") + "}", 8),
       ""},
      {"header_padded_with_zeros",
       file_bytes(good + std::string(3, '\0'), 8),
       ""},
      {"header_ends_at_a_zero_byte",
       file_bytes(good + std::string(1, '\0') + "not JSON", 8),
       ""},
      {"header_second_object", file_bytes(good + "{}", 8), ""},
      {"header_trailing_comma", file_bytes("{" + t + ",}", 8), ""},
      {"header_comment", file_bytes("{/* */" + t + "}", 8), ""},
      {"header_single_quotes", file_bytes("{'t':{}}", 0), ""},
      {"header_control_character",
       file_bytes("{" + entry("a\nb", "\"F32\"", "[2]", "[0,8]") + "}", 8),
       ""},
      {"deep_lists", file_bytes("{\"t\":" + deep + "}", 0), ""},
      {"deep_objects",
       file_bytes(repeat("{\"t\":", 5000) + "1" + repeat("}", 5000), 0),
       ""},
      {"deep_unfinished", file_bytes("{\"t\":" + repeat("[", 100000), 0), ""},
      {"metadata_is_a_list",
       file_bytes("{\"__metadata__\":[\"a\"]," + t + "}", 8),
       ""},
      {"metadata_is_an_empty_list",
       file_bytes("{\"__metadata__\":[]," + t + "}", 8),
       ""},
      {"metadata_is_a_string",
       file_bytes("{\"__metadata__\":\"a\"," + t + "}", 8),
       ""},
      {"metadata_holds_a_number",
       file_bytes("{\"__metadata__\":{\"a\":1}," + t + "}", 8),
       ""},
      {"metadata_holds_null",
       file_bytes("{\"__metadata__\":{\"a\":null}," + t + "}", 8),
       ""},
      {"metadata_twice",
       file_bytes("{\"__metadata__\":{},\"__metadata__\":{}," + t + "}", 8),
       "__metadata__"},
      {"metadata_key_twice",
       file_bytes("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}," + t + "}", 8),
       "'a'",
       ErrorKind::Corrupt,
       Reference::Accepts},
      {"truncated_data", file_bytes(good, 7), "t"},
      {"no_data", file_bytes(good, 0), "t"},
      {"trailing_byte", file_bytes(good, 9), ""},
      {"trailing_bytes_without_tensors", file_bytes("{}", 8), ""},
  };
}

/** Files with a broken tensor "t" in a good frame. */
inline std::vector<BrokenFile> broken_tensors() {
  const std::string f32 = "\"F32\"";
  const auto stricter = [](std::string name,
                           std::string bytes,
                           ErrorKind kind = ErrorKind::Corrupt) {
    return BrokenFile{
        std::move(name), std::move(bytes), "t", kind, Reference::Accepts};
  };
  return {
      {"tensor_is_null", file_bytes("{\"t\":null}", 0), "t"},
      {"tensor_is_a_string", file_bytes("{\"t\":\"F32\"}", 0), "t"},
      {"tensor_is_empty", file_bytes("{\"t\":{}}", 0), "t"},
      {"no_dtype",
       file_bytes("{\"t\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8),
       "t"},
      {"no_shape",
       file_bytes("{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8),
       "t"},
      {"no_offsets",
       file_bytes("{\"t\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8),
       "t"},
      {"dtype_unknown", one_tensor("\"F33\"", "[2]", "[0,8]", 8), "t"},
      {"dtype_lower_case", one_tensor("\"f32\"", "[2]", "[0,8]", 8), "t"},
      {"dtype_is_a_number", one_tensor("32", "[2]", "[0,8]", 8), "t"},
      {"dtype_is_null", one_tensor("null", "[2]", "[0,8]", 8), "t"},
      {"dtype_wrong_width", one_tensor("\"F16\"", "[2]", "[0,8]", 8), "t"},
      {"shape_is_a_number", one_tensor(f32, "2", "[0,8]", 8), "t"},
      {"shape_is_null", one_tensor(f32, "null", "[0,8]", 8), "t"},
      {"shape_holds_a_string", one_tensor(f32, "[\"2\"]", "[0,8]", 8), "t"},
      {"shape_holds_a_float", one_tensor(f32, "[2.0]", "[0,8]", 8), "t"},
      {"shape_holds_an_exponent", one_tensor(f32, "[2e0]", "[0,8]", 8), "t"},
      {"shape_holds_null", one_tensor(f32, "[null]", "[0,8]", 8), "t"},
      {"shape_holds_true", one_tensor(f32, "[true,2]", "[0,8]", 8), "t"},
      {"shape_holds_a_list", one_tensor(f32, "[[2]]", "[0,8]", 8), "t"},
      {"shape_negative", one_tensor(f32, "[-2]", "[0,8]", 8), "t"},
      {"shape_negative_pair", one_tensor(f32, "[-1,-2]", "[0,8]", 8), "t"},
      {"shape_minus_zero", one_tensor(f32, "[-0]", "[0,0]", 0), "t"},
      {"shape_2_to_32_plus_2",
       one_tensor(f32, "[4294967298]", "[0,8]", 8),
       "t"},
      {"shape_2_to_64",
       one_tensor(f32, "[18446744073709551616]", "[0,8]", 8),
       "t"},
      {"shape_10_to_400",
       one_tensor(f32, "[1" + repeat("0", 400) + "]", "[0,8]", 8),
       ""},
      {"shape_product_wraps_to_0",
       one_tensor(f32, "[4294967296,4294967296]", "[0,0]", 0),
       "t"},
      {"shape_product_wraps_to_2",
       one_tensor(f32, "[9223372036854775809,2]", "[0,8]", 8),
       "t"},
      {"shape_product_wraps_before_0",
       one_tensor(f32, "[4294967296,4294967296,0]", "[0,0]", 0),
       "t"},
      {"bytes_wrap_to_0",
       one_tensor(f32, "[4611686018427387904]", "[0,0]", 0),
       "t"},
      {"bytes_wrap_to_8",
       one_tensor(f32, "[4611686018427387906]", "[0,8]", 8),
       "t"},
      {"scalar_without_data", one_tensor(f32, "[]", "[0,0]", 0), "t"},
      {"offsets_is_an_object", one_tensor(f32, "[2]", "{\"a\":0}", 8), "t"},
      {"offsets_empty", one_tensor(f32, "[2]", "[]", 8), "t"},
      {"offsets_one", one_tensor(f32, "[2]", "[0]", 8), "t"},
      {"offsets_three", one_tensor(f32, "[2]", "[0,8,8]", 8), "t"},
      {"offsets_swapped", one_tensor(f32, "[2]", "[8,0]", 8), "t"},
      {"offsets_strings", one_tensor(f32, "[2]", "[\"0\",\"8\"]", 8), "t"},
      {"offsets_nan", one_tensor(f32, "[2]", "[NaN,8]", 8), ""},
      {"offsets_float", one_tensor(f32, "[2]", "[0.0,8.0]", 8), "t"},
      {"offsets_negative", one_tensor(f32, "[2]", "[-8,0]", 8), "t"},
      {"offsets_2_to_64_minus_9",
       one_tensor(f32, "[2]", "[18446744073709551607,18446744073709551615]", 8),
       "t"},
      {"offsets_past_2_to_64",
       one_tensor(f32, "[2]", "[0,18446744073709551624]", 8),
       "t"},
      {"offsets_too_long", one_tensor(f32, "[2]", "[0,9]", 9), "t"},
      {"offsets_too_short", one_tensor(f32, "[2]", "[0,4]", 8), "t"},
      {"hole_before_first", one_tensor(f32, "[2]", "[8,16]", 16), "t"},
      {"hole_between",
       file_bytes(
           "{" + entry("s", f32, "[2]", "[0,8]") + "," +
               entry("t", f32, "[2]", "[9,17]") + "}",
           17),
       "t"},
      {"overlap_by_one",
       file_bytes(
           "{" + entry("s", f32, "[2]", "[0,8]") + "," +
               entry("t", f32, "[2]", "[7,15]") + "}",
           15),
       "t"},
      {"overlap_whole",
       file_bytes(
           "{" + entry("s", f32, "[2]", "[0,8]") + "," +
               entry("t", f32, "[2]", "[0,8]") + "}",
           8),
       "t"},
      {"empty_tensor_inside_another",
       file_bytes(
           "{" + entry("s", f32, "[2]", "[0,8]") + "," +
               entry("t", f32, "[0]", "[4,4]") + "}",
           8),
       "t"},
      {"second_past_end",
       file_bytes(
           "{" + entry("s", f32, "[2]", "[0,8]") + "," +
               entry("t", f32, "[2]", "[8,16]") + "}",
           12),
       "t"},
      {"field_twice",
       file_bytes(
           "{\"t\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],"
           "\"data_offsets\":[0,8]}}",
           8),
       "dtype"},
      stricter(
          "tensor_twice",
          file_bytes(
              "{" + entry("t", f32, "[1]", "[0,4]") + "," +
                  entry("t", f32, "[2]", "[0,8]") + "}",
              8)),
      stricter(
          "tensor_twice_by_escape",
          file_bytes(
              "{" + entry("t", f32, "[2]", "[0,8]") + "," +
                  entry("\\u0074", f32, "[2]", "[0,8]") + "}",
              8)),
      stricter(
          "dimension_2_to_31_of_an_empty_tensor",
          one_tensor(f32, "[2147483648,0]", "[0,0]", 0),
          ErrorKind::Unsupported),
  };
}

/** Files with a tensor that the reference reads and nothing here computes with:
 * opening is right, loading it is refused with the dtype's name. */
struct UnreadableFile {
  friend void PrintTo(const UnreadableFile& file, std::ostream* out) {
    *out << file.name;
  }

  std::string name; // the dtype's
  std::string bytes;
};

inline std::vector<UnreadableFile> unreadable_files() {
  std::vector<UnreadableFile> files;
  const auto add = [&](const char* dtype, int n_bytes) {
    const std::string end = std::to_string(n_bytes);
    files.push_back(
        {dtype,
         one_tensor(
             "\"" + std::string(dtype) + "\"",
             "[8]",
             "[0," + end + "]",
             n_bytes)});
  };
  add("F64", 64);
  add("C64", 64);
  add("F4", 4);
  for (const char* dtype :
       {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}) {
    add(dtype, 8);
  }
  return files;
}

/** Odd files that are right. */
struct OddFile {
  friend void PrintTo(const OddFile& file, std::ostream* out) {
    *out << file.name;
  }

  std::string name;
  std::string bytes;
};

inline std::vector<OddFile> odd_files() {
  const std::string f32 = "\"F32\"";
  const std::string t = entry("t", f32, "[2]", "[0,8]");
  return {
      {"no_tensors", file_bytes("{}", 0)},
      {"metadata_null", file_bytes("{\"__metadata__\":null," + t + "}", 8)},
      {"metadata_empty", file_bytes("{\"__metadata__\":{}," + t + "}", 8)},
      {"metadata_last",
       file_bytes("{" + t + ",\"__metadata__\":{\"format\":\"mlx\"}}", 8)},
      {"unaligned_header", file_bytes("{" + t + "}   ", 8)},
      {"padded_header", file_bytes("{" + t + "}\t\r\n  ", 8)},
      {"scalar", one_tensor(f32, "[]", "[0,4]", 4)},
      {"empty_tensor", one_tensor(f32, "[0,7]", "[0,0]", 0)},
      {"empty_name", file_bytes("{" + entry("", f32, "[2]", "[0,8]") + "}", 8)},
      {"odd_names",
       file_bytes(
           "{" + entry("\xc3\xa9\\n\\u0000\\\"", f32, "[1]", "[0,4]") + "," +
               entry("../t", f32, "[1]", "[4,8]") + "}",
           8)},
      {"reverse_order",
       file_bytes(
           "{" + entry("t", f32, "[1]", "[4,8]") + "," +
               entry("s", f32, "[1]", "[0,4]") + "}",
           8)},
      {"empty_tensors_at_one_place",
       file_bytes(
           "{" + entry("t", f32, "[1]", "[0,4]") + "," +
               entry("a", f32, "[0]", "[4,4]") + "," +
               entry("b", f32, "[0]", "[0,0]") + "}",
           4)},
      {"mixed_widths_unaligned",
       file_bytes(
           "{" + entry("a", "\"U8\"", "[3]", "[0,3]") + "," +
               entry("b", "\"I64\"", "[2]", "[3,19]") + "," +
               entry("c", "\"F16\"", "[1]", "[19,21]") + "}",
           21)},
      {"unknown_field",
       file_bytes(
           "{\"t\":{\"dtype\":\"F32\",\"shape\":[2],"
           "\"data_offsets\":[0,8],\"note\":[{}]}}",
           8)},
      {"forty_ones",
       one_tensor(f32, "[2" + repeat(",1", 40) + "]", "[0,8]", 8)},
  };
}

} // namespace optiq::test
