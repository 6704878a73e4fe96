// The format, all integers little-endian:
//
//   file    := length header data
//   length  := u64, bytes of header, at most 100 000 000
//   header  := UTF-8 JSON object, starts with '{', may end in spaces
//              { "__metadata__": null | { string: string, ... },
//                name: { "dtype": string, "shape": [u64, ...],
//                        "data_offsets": [begin, end] }, ... }
//   data    := the tensors' elements, row-major; offsets count from its start
//
// The tensors tile `data` exactly: no hole, no overlap, no byte outside.
#include "optiq/io/safetensors.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <mutex>
#include <utility>

#include <fmt/ranges.h>

#include "optiq/artifacts/json.h"
#include "optiq/base/checked.h"
#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/io/safetensors_impl.h"

namespace optiq::io {
namespace {

using artifacts::Json;

static_assert(
    std::endian::native == std::endian::little,
    "safetensors data is read in place");

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr std::size_t kMaxTensors = 1 << 17;
constexpr std::size_t kMaxTokenBytes = 4 << 20;
constexpr std::size_t kMaxAxes = 64;
// Smaller tensors are read: a mapping costs at least a page, and a process has
// 65,530 of them.
constexpr std::uint64_t kMinMappedBytes = 16u << 10;

struct DtypeRow {
  const char* name;
  mx::Dtype dtype; // for an unreadable one, what is nearest
  int bits; // of one element
  bool is_readable = true;
};

// F64 would lose precision in MLX; F8, F6 and F4 codes mean nothing without
// their scales.
constexpr DtypeRow kDtypes[] = {
    {"BOOL", mx::bool_, 8},
    {"U8", mx::uint8, 8},
    {"I8", mx::int8, 8},
    {"I16", mx::int16, 16},
    {"U16", mx::uint16, 16},
    {"F16", mx::float16, 16},
    {"BF16", mx::bfloat16, 16},
    {"I32", mx::int32, 32},
    {"U32", mx::uint32, 32},
    {"F32", mx::float32, 32},
    {"I64", mx::int64, 64},
    {"U64", mx::uint64, 64},
    {"F64", mx::float64, 64, false},
    {"C64", mx::complex64, 64, false},
    {"F8_E4M3", mx::uint8, 8, false},
    {"F8_E5M2", mx::uint8, 8, false},
    {"F8_E8M0", mx::uint8, 8, false},
    {"F8_E4M3FNUZ", mx::uint8, 8, false},
    {"F8_E5M2FNUZ", mx::uint8, 8, false},
    {"F6_E2M3", mx::uint8, 6, false},
    {"F6_E3M2", mx::uint8, 6, false},
    {"F4", mx::uint8, 4, false},
};

/** What a message is about: one tensor of one file. */
struct Culprit {
  std::string file;
  std::string tensor;
};

[[noreturn]] void
fail_tensor(ErrorKind kind, const Culprit& at, const std::string& text) {
  fail(kind, "[SafetensorsFile] {}: tensor '{}' {}", at.file, at.tensor, text);
}

const DtypeRow& parse_dtype(const Json& entry, const Culprit& at) {
  const auto found = entry.find("dtype");
  if (found == entry.end() || !found->is_string()) {
    fail_tensor(ErrorKind::Corrupt, at, "has no 'dtype' string");
  }
  const auto& name = found->get_ref<const std::string&>();
  for (const DtypeRow& row : kDtypes) {
    if (name == row.name) {
      return row;
    }
  }
  fail_tensor(
      ErrorKind::Corrupt,
      at,
      fmt::format(
          "has dtype {}, which is not a safetensors dtype",
          artifacts::describe(*found)));
}

/** A list of unsigned integers at `key`. */
std::vector<std::uint64_t>
parse_numbers(const Json& entry, const char* key, const Culprit& at) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array()) {
    fail_tensor(ErrorKind::Corrupt, at, fmt::format("has no '{}' list", key));
  }
  std::vector<std::uint64_t> numbers;
  numbers.reserve(found->size());
  for (const Json& item : *found) {
    if (!item.is_number_unsigned()) {
      fail_tensor(
          ErrorKind::Corrupt,
          at,
          fmt::format(
              "has {} in '{}', expected integers from 0 to 2^64 - 1",
              artifacts::describe(item),
              key));
    }
    numbers.push_back(item.get<std::uint64_t>());
  }
  return numbers;
}

mx::Shape to_mlx_shape(
    const std::vector<std::uint64_t>& dims,
    const Culprit& at) {
  if (dims.size() > kMaxAxes) {
    fail_tensor(
        ErrorKind::Unsupported,
        at,
        fmt::format("has {} axes, expected at most {}", dims.size(), kMaxAxes));
  }
  mx::Shape shape;
  for (const std::uint64_t dim : dims) {
    if (dim > std::numeric_limits<mx::ShapeElem>::max()) {
      fail_tensor(
          ErrorKind::Unsupported,
          at,
          fmt::format(
              "has the dimension {}, expected at most 2^31 - 1 (an MLX limit)",
              dim));
    }
    shape.push_back(static_cast<mx::ShapeElem>(dim));
  }
  return shape;
}

/** Bytes that a shape asks for; fails when its bits do not fit into 64 bits or
 * fill no whole bytes. */
std::uint64_t bytes_of_shape(
    const std::vector<std::uint64_t>& dims,
    int bits,
    const Culprit& at) {
  // The product in the order of the file, as the reference: a later 0 does
  // not excuse an overflow.
  std::optional<std::uint64_t> elements = 1;
  for (const std::uint64_t dim : dims) {
    elements = checked_mul(*elements, dim);
    if (!elements) {
      break;
    }
  }
  const auto product = elements
      ? checked_mul(*elements, static_cast<std::uint64_t>(bits))
      : std::nullopt;
  if (!product || *product % 8 != 0) {
    fail_tensor(
        ErrorKind::Corrupt,
        at,
        fmt::format(
            "has the shape [{}], whose bits {}",
            fmt::join(dims, ", "),
            product ? "fill no whole bytes" : "do not fit into 64 bits"));
  }
  return *product / 8;
}

/** One header entry; its offset still counts from the data section. */
TensorInfo parse_tensor(const Json& entry, const Culprit& at) {
  if (!entry.is_object()) {
    fail_tensor(
        ErrorKind::Corrupt,
        at,
        fmt::format("is {}, expected an object", artifacts::describe(entry)));
  }
  const DtypeRow& dtype = parse_dtype(entry, at);
  const auto dims = parse_numbers(entry, "shape", at);
  const auto offsets = parse_numbers(entry, "data_offsets", at);
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    fail_tensor(
        ErrorKind::Corrupt,
        at,
        fmt::format(
            "has data_offsets [{}], expected [begin, end] with begin <= end",
            fmt::join(offsets, ", ")));
  }
  const std::uint64_t nbytes = bytes_of_shape(dims, dtype.bits, at);
  if (offsets[1] - offsets[0] != nbytes) {
    fail_tensor(
        ErrorKind::Corrupt,
        at,
        fmt::format(
            "spans {} bytes, expected {} from its dtype and shape [{}]",
            offsets[1] - offsets[0],
            nbytes,
            fmt::join(dims, ", ")));
  }
  return {
      .name = at.tensor,
      .dtype = dtype.dtype,
      .shape = to_mlx_shape(dims, at),
      .offset = offsets[0],
      .nbytes = nbytes,
      .unreadable = dtype.is_readable ? nullptr : dtype.name};
}

std::map<std::string, std::string> parse_metadata(
    Json&& value,
    const std::string& file) {
  std::map<std::string, std::string> metadata;
  if (value.is_null()) {
    return metadata; // MLX writes null when there is none
  }
  const auto require = [&](bool is_right, const Json& found) {
    if (!is_right) {
      fail(
          ErrorKind::Corrupt,
          "[SafetensorsFile] {}: '__metadata__' is or holds {}, expected an "
          "object of strings",
          file,
          artifacts::describe(found));
    }
  };
  require(value.is_object(), value);
  for (auto& [key, item] : value.get_ref<Json::object_t&>()) {
    require(item.is_string(), item);
    metadata.emplace(key, std::move(item.get_ref<std::string&>()));
  }
  return metadata;
}

/** The parser holds a token several times over, blanks too: one as long as the
 * file would cost many times its size. Padding at the end is right. */
void refuse_long_tokens(std::string_view text, const std::string& file) {
  const std::size_t end = text.find_last_not_of(' ') + 1;
  bool is_string = false;
  std::size_t begin = 0; // of the token
  for (std::size_t at = 0; at < end; ++at) {
    const char c = text[at];
    if (is_string && c == '\\') {
      ++at; // what is escaped ends no string
    } else if (c == '"') {
      is_string = !is_string;
      begin = at + 1;
    } else if (
        !is_string &&
        std::string_view("{}[],:").find(c) != std::string_view::npos) {
      begin = at + 1;
    } else if (at - begin >= kMaxTokenBytes) {
      fail(
          ErrorKind::Corrupt,
          "[SafetensorsFile] {}: header holds a token of more than {} bytes",
          file,
          kMaxTokenBytes);
    }
  }
}

/** The header text; checks the length field against the file. */
std::string header_text(const InputFile& file) {
  const std::string name = file.path().string();
  if (file.size() < kLengthBytes) {
    fail(
        ErrorKind::Corrupt,
        "[SafetensorsFile] {}: has {} bytes, expected at least {}. "
        "Interrupted download?",
        name,
        file.size(),
        kLengthBytes);
  }
  std::uint64_t length = 0;
  file.read(0, std::as_writable_bytes(std::span(&length, 1)));
  if (length > kMaxHeaderBytes) {
    fail(
        ErrorKind::Corrupt,
        "[SafetensorsFile] {}: header of {} bytes, expected at most {}. Not a "
        "safetensors file?",
        name,
        length,
        kMaxHeaderBytes);
  }
  if (length > file.size() - kLengthBytes) {
    fail(
        ErrorKind::Corrupt,
        "[SafetensorsFile] {}: header ends at byte {}, file has {}. "
        "Interrupted download?",
        name,
        kLengthBytes + length,
        file.size());
  }
  std::string text(length, '\0');
  file.read(kLengthBytes, std::as_writable_bytes(std::span(text)));
  if (!text.starts_with('{')) {
    fail(
        ErrorKind::Corrupt,
        "[SafetensorsFile] {}: header does not start with '{{'. Not a "
        "safetensors file?",
        name);
  }
  refuse_long_tokens(text, name);
  return text;
}

/** A header of tiny entries takes many times its size in memory. */
void refuse_too_many(std::size_t n_tensors, const std::string& file) {
  if (n_tensors > kMaxTensors) {
    fail(
        ErrorKind::Unsupported,
        "[SafetensorsFile] {}: found more than {} tensors, expected at most "
        "that many in one file. Save the model in shards",
        file,
        kMaxTensors);
  }
}

void refuse_second_metadata(bool is_second, const std::string& file) {
  if (is_second) {
    fail(
        ErrorKind::Corrupt,
        "[SafetensorsFile] {}: '__metadata__' is there twice, expected it once",
        file);
  }
}

void refuse_duplicates(
    const std::vector<TensorInfo>& tensors,
    const std::string& file) {
  std::vector<std::string_view> names(tensors.size());
  std::transform(
      tensors.begin(), tensors.end(), names.begin(), [](const TensorInfo& t) {
        return std::string_view(t.name);
      });
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) {
    fail_tensor(
        ErrorKind::Corrupt,
        {file, std::string(*twice)},
        "is there twice, expected it once");
  }
}

/** Sorts by place and checks that the tensors tile [0, data_bytes). */
void check_tiling(
    std::vector<TensorInfo>& tensors,
    std::uint64_t data_bytes,
    const std::string& file) {
  // Stable, so that empty tensors at one place keep the header's order.
  std::stable_sort(
      tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
        return std::pair(a.offset, a.nbytes) < std::pair(b.offset, b.nbytes);
      });
  std::uint64_t end = 0;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.offset != end) {
      fail_tensor(
          ErrorKind::Corrupt,
          {file, tensor.name},
          fmt::format(
              "begins at byte {} of the data, expected {} ({})",
              tensor.offset,
              end,
              tensor.offset < end ? "it overlaps another tensor"
                                  : "there is a hole before it"));
    }
    end += tensor.nbytes; // no wrap: end <= 2^64 - 1 was checked per tensor
    if (end > data_bytes) {
      fail_tensor(
          ErrorKind::Corrupt,
          {file, tensor.name},
          fmt::format(
              "ends at byte {} of the data, the file has {}. Interrupted "
              "download?",
              end,
              data_bytes));
    }
  }
  if (end != data_bytes) {
    fail(
        ErrorKind::Corrupt,
        "[SafetensorsFile] {}: {} bytes of data, its tensors use {}. Found "
        "trailing bytes, expected none",
        file,
        data_bytes,
        end);
  }
}

} // namespace

const char* dtype_name(mx::Dtype dtype) {
  for (const DtypeRow& row : kDtypes) {
    if (row.is_readable && dtype == row.dtype) {
      return row.name;
    }
  }
  fail(
      ErrorKind::Unsupported,
      "[dtype_name] found a 64-bit float or complex array, expected a dtype "
      "that safetensors files here hold");
}

std::string shape_text(const mx::Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

/** What of the file is mapped, by offset. The mutex guards the map. */
struct SafetensorsFile::Mappings {
  std::mutex mutex;
  std::map<std::uint64_t, std::weak_ptr<const MappedFile>> live;
};

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile result;
  result.file_ = InputFile::open(path);
  result.mappings_ = std::make_shared<Mappings>();
  const std::string name = path.string();
  const std::string text = header_text(*result.file_);
  bool has_metadata = false;
  artifacts::parse_json_members(
      std::string_view(text).substr(0, text.find_last_not_of(' ') + 1),
      name,
      artifacts::kMemberJson,
      [&](const std::string& key, Json&& entry) {
        if (key == kMetadataKey) {
          refuse_second_metadata(std::exchange(has_metadata, true), name);
          result.metadata_ = parse_metadata(std::move(entry), name);
        } else {
          result.tensors_.push_back(parse_tensor(entry, {name, key}));
          refuse_too_many(result.tensors_.size(), name);
        }
      });
  refuse_duplicates(result.tensors_, name);
  const std::uint64_t data_begin = kLengthBytes + text.size();
  check_tiling(result.tensors_, result.file_->size() - data_begin, name);
  for (TensorInfo& tensor : result.tensors_) {
    tensor.offset += data_begin;
  }
  return result;
}

mx::array SafetensorsFile::load(const TensorInfo& tensor) const {
  if (tensor.unreadable != nullptr) {
    fail_tensor(
        ErrorKind::Unsupported,
        {file_->path().string(), tensor.name},
        fmt::format(
            "has dtype {}, expected an integer dtype, F16, BF16 or F32. "
            "Convert the model to BF16 first",
            tensor.unreadable));
  }
  const bool is_aligned = tensor.offset % mx::size_of(tensor.dtype) == 0;
  if (!is_aligned || tensor.nbytes < kMinMappedBytes) {
    mx::array copy = make_array(tensor.shape, tensor.dtype);
    const std::span bytes(copy.data<char>(), tensor.nbytes);
    file_->read(tensor.offset, std::as_writable_bytes(bytes));
    return copy;
  }
  const std::lock_guard guard(mappings_->mutex);
  std::weak_ptr<const MappedFile>& live = mappings_->live[tensor.offset];
  std::shared_ptr<const MappedFile> piece = live.lock();
  if (!piece) {
    piece = file_->map(tensor.offset, tensor.nbytes);
    live = piece;
  }
  return view_array(piece->bytes().data(), tensor.shape, tensor.dtype, piece);
}

void SafetensorsFile::drop(const TensorInfo& tensor) const {
  const std::lock_guard guard(mappings_->mutex);
  const auto found = mappings_->live.find(tensor.offset);
  if (found == mappings_->live.end()) {
    return;
  }
  if (const auto piece = found->second.lock()) {
    piece->drop_pages(0, tensor.nbytes);
  }
}

} // namespace optiq::io
