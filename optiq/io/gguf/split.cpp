// A model in several files (llama.cpp's gguf-split): each is a GGUF file with
// metadata split.no (from 0), split.count and split.tensors.count (of all), and
// a name that says the first two; the first one has the model's metadata.
#include "optiq/io/gguf/split.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <set>

#include "optiq/base/error.h"
#include "optiq/io/gguf/file.h"

namespace optiq::io {
namespace {

constexpr std::size_t kDigits = 5;
constexpr std::string_view kOf = "-of-";
constexpr std::string_view kEnding = ".gguf";

/** Takes a number of five digits from the end of the text; 0 without one. */
int take_number(std::string_view& text) {
  if (text.size() < kDigits) {
    return 0;
  }
  const std::string_view digits = text.substr(text.size() - kDigits);
  int number = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + kDigits, number);
  if (error != std::errc() || end != digits.data() + kDigits || number < 1) {
    return 0;
  }
  text.remove_suffix(kDigits);
  return number;
}

bool take_ending(std::string_view& text, std::string_view ending) {
  if (!text.ends_with(ending)) {
    return false;
  }
  text.remove_suffix(ending.size());
  return true;
}

/** split.count of a file; 1 for a model in one file. */
int split_count(const GgufFile& file) {
  const std::uint64_t count = file.integer("split.count").value_or(1);
  return count < 2 ? 1
                   : static_cast<int>(std::min<std::uint64_t>(count, 1u << 20));
}

/** Throws Corrupt where the file is not part `number` of `count`. */
void check_part(const GgufFile& file, int number, int count) {
  const int found_count = split_count(file);
  const std::uint64_t found_number = file.integer("split.no").value_or(0) + 1;
  if (found_count != count ||
      found_number != static_cast<std::uint64_t>(number)) {
    fail(
        ErrorKind::Corrupt,
        "[GgufFile] {}: its metadata say part {} of {}, expected {} of {} by "
        "its name. Was a part renamed?",
        file.path().string(),
        found_number,
        found_count,
        number,
        count);
  }
}

void check_tensor_count(const GgufFile& file, std::size_t found) {
  const auto expected = file.integer("split.tensors.count");
  if (expected && *expected != found) {
    fail(
        ErrorKind::Corrupt,
        "[GgufFile] {}: found {} tensors in all parts, expected {} "
        "(split.tensors.count)",
        file.path().string(),
        found,
        *expected);
  }
}

} // namespace

std::optional<GgufPart> parse_gguf_part(std::string_view path) {
  GgufPart part;
  if (!take_ending(path, kEnding) || (part.count = take_number(path)) == 0 ||
      !take_ending(path, kOf) || (part.number = take_number(path)) == 0 ||
      !take_ending(path, "-") || part.number > part.count) {
    return std::nullopt;
  }
  part.stem = path;
  return part;
}

std::string gguf_part_path(const GgufPart& part, int number) {
  return fmt::format(
      "{}-{:0{}}{}{:0{}}{}",
      part.stem,
      number,
      kDigits,
      kOf,
      part.count,
      kDigits,
      kEnding);
}

bool is_later_gguf_part(std::string_view path) {
  const auto part = parse_gguf_part(path);
  return part && part->number > 1;
}

GgufFile GgufFile::open(const std::filesystem::path& path) {
  GgufFile named = open_one(path);
  const int count = split_count(named);
  if (count == 1) {
    return named;
  }
  const auto part = parse_gguf_part(path.string());
  if (!part) {
    fail(
        ErrorKind::NotFound,
        "[GgufFile] {}: is one of {} parts of a model, and its name does not "
        "say where the others are: expected it to end in -00001-of-{:05}.gguf",
        path.string(),
        count,
        count);
  }
  check_part(named, part->number, part->count);
  GgufFile all =
      part->number == 1 ? std::move(named) : open_one(gguf_part_path(*part, 1));
  check_part(all, 1, count);
  for (int number = 2; number <= count; ++number) {
    const std::string next = gguf_part_path(*part, number);
    if (!std::filesystem::exists(next)) {
      fail(
          ErrorKind::NotFound,
          "[GgufFile] {}: part {} of {} is missing: expected {}. Get all parts "
          "into one folder",
          path.string(),
          number,
          count,
          next);
    }
    all.append_part(open_one(next), number, count);
  }
  check_tensor_count(all, all.tensors_.size());
  return all;
}

void GgufFile::append_part(GgufFile part, int number, int count) {
  check_part(part, number, count);
  std::set<std::string_view> names;
  for (const GgufTensor& tensor : tensors_) {
    names.insert(tensor.name);
  }
  for (const GgufTensor& tensor : part.tensors_) {
    if (names.contains(tensor.name)) {
      fail(
          ErrorKind::Corrupt,
          "[GgufFile] {}: tensor '{}': the name is in an earlier part too, "
          "expected it once",
          part.path().string(),
          tensor.name);
    }
  }
  for (GgufTensor& tensor : part.tensors_) {
    tensor.part = files_.size();
    tensors_.push_back(std::move(tensor));
  }
  files_.push_back(std::move(part.files_.front()));
}

std::uint64_t GgufFile::file_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& file : files_) {
    bytes += file->bytes().size();
  }
  return bytes;
}

} // namespace optiq::io
