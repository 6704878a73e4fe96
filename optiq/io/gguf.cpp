// The format (github.com/ggml-org/ggml, docs/gguf.md), integers little-endian:
//
//   file    := "GGUF" version:u32 n_tensors:u64 n_values:u64
//              value{n_values} tensor{n_tensors} padding data
//   value   := key:string type:u32 payload
//   payload := a number of that type | a byte 0 or 1 (Bool) | string
//            | item_type:u32 n_items:u64 payload{n_items}            (Array)
//   string  := n:u64 byte{n}
//   tensor  := name:string n_axes:u32 axis:u64{n_axes} type:u32 offset:u64
//              (the first axis is the contiguous one; offsets count from data)
//   data    := the encoded tensors, one after another, each padded to the
//              alignment (general.alignment, 32 without it), as is its start
#include "optiq/io/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include "optiq/artifacts/json.h"
#include "optiq/base/checked.h"
#include "optiq/base/error.h"
#include "optiq/io/gguf_impl.h"

namespace optiq::io {
namespace {

static_assert(
    std::endian::native == std::endian::little,
    "GGUF data is read in place");

constexpr std::uint32_t kMagic = 0x46554747; // "GGUF"
constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::uint64_t kMaxAlignment = 1u << 20;
constexpr std::uint64_t kMaxNameBytes = 65535;
constexpr std::uint32_t kMaxAxes = 4;
// The least that a value and a tensor of the header take: what bounds a count.
constexpr std::uint64_t kMinValueBytes = 8 + 4 + 1;
constexpr std::uint64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;

struct TypeRow {
  std::uint32_t id;
  const char* name;
  int elements; // of a block; 0: OptIQ does not read this type
  int bytes;
};

constexpr TypeRow kTypes[] = {
    {0, "F32", 1, 4},       {1, "F16", 1, 2},       {2, "Q4_0", 32, 18},
    {3, "Q4_1", 32, 20},    {6, "Q5_0", 32, 22},    {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},    {9, "Q8_1", 0, 0},      {10, "Q2_K", 0, 0},
    {11, "Q3_K", 0, 0},     {12, "Q4_K", 256, 144}, {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210}, {15, "Q8_K", 0, 0},     {16, "IQ2_XXS", 0, 0},
    {17, "IQ2_XS", 0, 0},   {18, "IQ3_XXS", 0, 0},  {19, "IQ1_S", 0, 0},
    {20, "IQ4_NL", 0, 0},   {21, "IQ3_S", 0, 0},    {22, "IQ2_S", 0, 0},
    {23, "IQ4_XS", 0, 0},   {24, "I8", 0, 0},       {25, "I16", 0, 0},
    {26, "I32", 0, 0},      {27, "I64", 0, 0},      {28, "F64", 0, 0},
    {29, "IQ1_M", 0, 0},    {30, "BF16", 1, 2},     {34, "TQ1_0", 0, 0},
    {35, "TQ2_0", 0, 0},    {39, "MXFP4", 0, 0},    {40, "NVFP4", 0, 0},
    {41, "Q1_0", 0, 0},
};

const TypeRow* find_type(std::uint32_t id) {
  const auto* row =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeRow& r) {
        return r.id == id;
      });
  return row == std::end(kTypes) ? nullptr : row;
}

const TypeRow& row_of(GgufType type) {
  return *find_type(static_cast<std::uint32_t>(type));
}

struct ValueTypeRow {
  const char* name;
  std::uint64_t bytes; // of one value; the length field of a string
};

constexpr ValueTypeRow kValueTypes[] = {
    {"UInt8", 1},
    {"Int8", 1},
    {"UInt16", 2},
    {"Int16", 2},
    {"UInt32", 4},
    {"Int32", 4},
    {"Float32", 4},
    {"Bool", 1},
    {"String", 8},
    {"Array", 12},
    {"UInt64", 8},
    {"Int64", 8},
    {"Float64", 8},
};

const ValueTypeRow& row_of(GgufValueType type) {
  return kValueTypes[static_cast<std::size_t>(type)];
}

template <typename T>
T read(std::span<const std::byte> bytes, std::uint64_t index = 0) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

} // namespace

bool append_json_string(std::string_view text, std::string& out) {
  try {
    out += artifacts::Json(text).dump();
    return true;
  } catch (const artifacts::Json::exception&) {
    return false;
  }
}

const char* name_of(GgufType type) {
  return row_of(type).name;
}

int block_elements(GgufType type) {
  return row_of(type).elements;
}

int block_bytes(GgufType type) {
  return row_of(type).bytes;
}

/** Reads the header front to back; nothing is used before it is checked. */
class GgufFile::Parser {
 public:
  explicit Parser(GgufFile& file)
      : file_(file), all_(file.file_->bytes()), culprit_("the header") {}

  void run() {
    check_start();
    const auto n_tensors = take<std::uint64_t>("the number of tensors");
    const auto n_values = take<std::uint64_t>("the number of metadata values");
    check_count(n_values, kMinValueBytes, "metadata values");
    for (std::uint64_t i = 0; i < n_values; ++i) {
      culprit_ = fmt::format("metadata value {} of {}", i + 1, n_values);
      parse_value();
    }
    culprit_ = "the header";
    check_count(n_tensors, kMinTensorBytes, "tensors");
    for (std::uint64_t i = 0; i < n_tensors; ++i) {
      culprit_ = fmt::format("tensor {} of {}", i + 1, n_tensors);
      parse_tensor();
    }
    culprit_ = "key 'general.alignment'";
    place_tensors(parse_alignment());
  }

 private:
  template <typename... Args>
  [[noreturn]] void reject(fmt::format_string<Args...> format, Args&&... args)
      const {
    fail(
        ErrorKind::Corrupt,
        "[GgufFile] {}: {}: {}",
        file_.path().string(),
        culprit_,
        fmt::format(format, std::forward<Args>(args)...));
  }

  std::span<const std::byte> take_bytes(std::uint64_t n, const char* what) {
    const std::uint64_t left = all_.size() - at_;
    if (n > left) {
      reject(
          "{} takes {} bytes, but {} are left at byte {}. Interrupted download?",
          what,
          n,
          left,
          at_);
    }
    const auto bytes = all_.subspan(at_, n);
    at_ += n;
    return bytes;
  }

  template <typename T>
  T take(const char* what) {
    return read<T>(take_bytes(sizeof(T), what));
  }

  std::string_view take_text(const char* what) {
    const auto n = take<std::uint64_t>(what);
    return as_text(take_bytes(n, what));
  }

  /** A key or a tensor's name: short UTF-8. */
  std::string take_name(const char* what) {
    const std::string_view name = take_text(what);
    std::string json;
    if (name.empty() || name.size() > kMaxNameBytes ||
        !append_json_string(name, json)) {
      reject(
          "{} has {} bytes, expected 1 to {} bytes of UTF-8",
          what,
          name.size(),
          kMaxNameBytes);
    }
    return std::string(name);
  }

  void check_start() {
    const auto magic = take<std::uint32_t>("the magic number");
    if (magic != kMagic) {
      reject("the file does not start with 'GGUF'. Is it a GGUF file?");
    }
    const auto version = take<std::uint32_t>("the version");
    if (version == 2 || version == 3) {
      return;
    }
    const bool swapped = version != 0 && (version & 0xffff) == 0;
    fail(
        ErrorKind::Unsupported,
        "[GgufFile] {}: {}, expected version 2 or 3, little-endian. Convert "
        "the model with current tools",
        file_.path().string(),
        swapped ? "found a big-endian file"
                : fmt::format("found version {}", version));
  }

  void check_count(
      std::uint64_t count,
      std::uint64_t least_bytes,
      const char* what) const {
    const std::uint64_t left = all_.size() - at_;
    if (count > left / least_bytes) {
      reject(
          "{} {} need at least {} bytes each, but {} bytes are left",
          count,
          what,
          least_bytes,
          left);
    }
  }

  GgufValueType take_value_type() {
    const auto id = take<std::uint32_t>("the type");
    if (id >= std::size(kValueTypes)) {
      reject("found value type {}, expected 0 to 12", id);
    }
    return static_cast<GgufValueType>(id);
  }

  void parse_value() {
    const std::string key = take_name("the key");
    culprit_ = fmt::format("key '{}'", key);
    Value value{.type = take_value_type(), .bytes = {}};
    if (value.type == GgufValueType::Array) {
      value.is_array = true;
      value.type = take_value_type();
      if (value.type == GgufValueType::Array) {
        reject("found an array of arrays, expected an array of plain values");
      }
      value.count = take<std::uint64_t>("the number of items");
      check_count(value.count, row_of(value.type).bytes, "items");
    }
    value.bytes = take_items(value);
    if (!file_.values_.emplace(key, value).second) {
      reject("the key is there twice, expected it once");
    }
  }

  std::span<const std::byte> take_items(const Value& value) {
    const std::uint64_t start = at_;
    if (value.type == GgufValueType::String) {
      for (std::uint64_t i = 0; i < value.count; ++i) {
        take_text("a string");
      }
      return all_.subspan(start, at_ - start);
    }
    // check_count has bounded the product for arrays.
    const auto items = take_bytes(
        value.count * row_of(value.type).bytes,
        value.is_array ? "the items" : "the value");
    if (value.type == GgufValueType::Bool) {
      for (const std::byte item : items) {
        if (std::to_integer<int>(item) > 1) {
          reject(
              "found a truth value {}, expected 0 or 1",
              std::to_integer<int>(item));
        }
      }
    }
    return items;
  }

  void parse_tensor() {
    GgufTensor tensor;
    tensor.name = take_name("the name");
    culprit_ = fmt::format("tensor '{}'", tensor.name);
    if (!names_.insert(tensor.name).second) {
      reject("the name is there twice, expected it once");
    }
    const auto n_axes = take<std::uint32_t>("the number of axes");
    if (n_axes < 1 || n_axes > kMaxAxes) {
      reject("found {} axes, expected 1 to {}", n_axes, kMaxAxes);
    }
    std::uint64_t elements = 1;
    for (std::uint32_t i = 0; i < n_axes; ++i) {
      const auto axis = take<std::uint64_t>("an axis");
      const auto product = checked_mul(elements, axis);
      if (axis < 1 || axis > std::numeric_limits<std::int32_t>::max() ||
          !product) {
        reject(
            "axis {} has length {}, expected 1 to 2^31 - 1 and a product of "
            "all axes below 2^64",
            i,
            axis);
      }
      elements = *product;
      tensor.shape.insert(
          tensor.shape.begin(), static_cast<std::int32_t>(axis));
    }
    const TypeRow& type = take_tensor_type();
    tensor.type = static_cast<GgufType>(type.id);
    if (tensor.shape.back() % type.elements != 0) {
      reject(
          "rows of {} elements, expected a multiple of {}, the block of {}",
          tensor.shape.back(),
          type.elements,
          type.name);
    }
    const auto nbytes = checked_mul(
        elements / static_cast<std::uint64_t>(type.elements),
        static_cast<std::uint64_t>(type.bytes));
    if (!nbytes) {
      reject("{} elements of {} exceed 2^64 bytes", elements, type.name);
    }
    tensor.nbytes = *nbytes;
    tensor.offset = take<std::uint64_t>("the offset");
    file_.tensors_.push_back(std::move(tensor));
  }

  const TypeRow& take_tensor_type() {
    const auto id = take<std::uint32_t>("the type");
    const TypeRow* row = find_type(id);
    if (row != nullptr && row->elements != 0) {
      return *row;
    }
    fail(
        ErrorKind::Unsupported,
        "[GgufFile] {}: {}: found type {}{}, expected one of F32, F16, BF16, "
        "Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K. Get the model in one "
        "of these",
        file_.path().string(),
        culprit_,
        id,
        row == nullptr ? "" : fmt::format(" ({})", row->name));
  }

  std::uint64_t parse_alignment() const {
    const auto found = file_.values_.find("general.alignment");
    if (found == file_.values_.end()) {
      return kDefaultAlignment;
    }
    const Value& value = found->second;
    if (value.is_array || value.type != GgufValueType::UInt32) {
      reject("found another type, expected a UInt32");
    }
    const std::uint64_t alignment = read<std::uint32_t>(value.bytes);
    if (!std::has_single_bit(alignment) || alignment > kMaxAlignment) {
      reject(
          "found {}, expected a power of two up to {}",
          alignment,
          kMaxAlignment);
    }
    return alignment;
  }

  /** Offsets become places in the file: the tensors follow each other, padded
   * to the alignment, and the last one ends inside the file's last padding. */
  void place_tensors(std::uint64_t alignment) {
    const auto padded = [&](std::uint64_t n) {
      return (n + alignment - 1) / alignment * alignment;
    };
    std::vector<GgufTensor>& tensors = file_.tensors_;
    std::stable_sort(
        tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
          return a.offset < b.offset;
        });
    const std::uint64_t start = padded(at_);
    std::uint64_t expected = start;
    std::uint64_t end = at_;
    for (GgufTensor& tensor : tensors) {
      culprit_ = fmt::format("tensor '{}'", tensor.name);
      const auto offset = checked_add(start, tensor.offset);
      if (!offset || *offset != expected) {
        reject(
            "starts at byte {} of the data, expected {}: one tensor after "
            "another, at multiples of {}",
            tensor.offset,
            expected - start,
            alignment);
      }
      if (expected > all_.size() || tensor.nbytes > all_.size() - expected) {
        reject(
            "{} bytes at byte {} end after the file, which has {}. Interrupted "
            "download?",
            tensor.nbytes,
            expected,
            all_.size());
      }
      tensor.offset = expected;
      end = expected + tensor.nbytes;
      expected = padded(end);
    }
    culprit_ = "the end of the file";
    if (all_.size() > expected) {
      reject(
          "{} bytes after the last tensor, expected padding to {} at most",
          all_.size() - end,
          alignment);
    }
  }

  GgufFile& file_;
  std::span<const std::byte> all_;
  std::uint64_t at_ = 0;
  std::string culprit_;
  std::set<std::string> names_;
};

GgufFile GgufFile::open(const std::filesystem::path& path) {
  GgufFile file;
  file.file_ = MappedFile::open(path);
  Parser(file).run();
  return file;
}

const GgufFile::Value* GgufFile::find(const std::string& key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

void GgufFile::fail_value(
    const std::string& key,
    const Value& found,
    const char* expected) const {
  fail(
      ErrorKind::Corrupt,
      "[GgufFile] {}: key '{}': found {}{}, expected {}",
      path().string(),
      key,
      found.is_array ? "an array of " : "a value of type ",
      row_of(found.type).name,
      expected);
}

std::optional<std::string> GgufFile::text(const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->is_array || value->type != GgufValueType::String) {
    fail_value(key, *value, "a String");
  }
  const std::string_view text = as_text(value->bytes.subspan(8));
  std::string json;
  if (!append_json_string(text, json)) {
    fail_value(key, *value, "UTF-8");
  }
  return std::string(text);
}

std::optional<bool> GgufFile::boolean(const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->is_array || value->type != GgufValueType::Bool) {
    fail_value(key, *value, "a Bool");
  }
  return read<std::uint8_t>(value->bytes) == 1;
}

std::optional<std::uint64_t> GgufFile::integer(const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_array) {
    switch (value->type) {
      case GgufValueType::UInt8:
        return read<std::uint8_t>(value->bytes);
      case GgufValueType::UInt16:
        return read<std::uint16_t>(value->bytes);
      case GgufValueType::UInt32:
        return read<std::uint32_t>(value->bytes);
      case GgufValueType::UInt64:
        return read<std::uint64_t>(value->bytes);
      case GgufValueType::Int32:
        if (read<std::int32_t>(value->bytes) >= 0) {
          return read<std::uint32_t>(value->bytes);
        }
        break;
      default:
        break;
    }
  }
  fail_value(key, *value, "an integer that is not negative");
}

std::optional<double> GgufFile::number(const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->is_array ||
      (value->type != GgufValueType::Float32 &&
       value->type != GgufValueType::Float64)) {
    fail_value(key, *value, "a Float32 or Float64");
  }
  return value->type == GgufValueType::Float32
      ? static_cast<double>(read<float>(value->bytes))
      : read<double>(value->bytes);
}

std::optional<std::vector<std::string_view>> GgufFile::texts(
    const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_array || value->type != GgufValueType::String) {
    fail_value(key, *value, "an array of String");
  }
  std::vector<std::string_view> texts;
  texts.reserve(value->count);
  std::span<const std::byte> rest = value->bytes;
  for (std::uint64_t i = 0; i < value->count; ++i) {
    const auto n = read<std::uint64_t>(rest);
    texts.push_back(as_text(rest.subspan(8, n)));
    rest = rest.subspan(8 + n);
  }
  return texts;
}

std::optional<std::vector<std::int64_t>> GgufFile::integers(
    const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_array ||
      (value->type != GgufValueType::Int32 &&
       value->type != GgufValueType::UInt32 &&
       value->type != GgufValueType::Bool)) {
    fail_value(key, *value, "an array of Int32, UInt32 or Bool");
  }
  std::vector<std::int64_t> items(value->count);
  for (std::uint64_t i = 0; i < value->count; ++i) {
    items[i] = value->type == GgufValueType::Int32
        ? std::int64_t{read<std::int32_t>(value->bytes, i)}
        : value->type == GgufValueType::UInt32
        ? std::int64_t{read<std::uint32_t>(value->bytes, i)}
        : std::int64_t{value->bytes[i] != std::byte{0}};
  }
  return items;
}

std::optional<std::vector<float>> GgufFile::numbers(
    const std::string& key) const {
  const Value* value = find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_array || value->type != GgufValueType::Float32) {
    fail_value(key, *value, "an array of Float32");
  }
  std::vector<float> items(value->count);
  std::memcpy(items.data(), value->bytes.data(), value->bytes.size());
  return items;
}

std::vector<std::string> GgufFile::keys(const std::string& prefix) const {
  std::vector<std::string> keys;
  for (auto at = values_.lower_bound(prefix);
       at != values_.end() && at->first.starts_with(prefix);
       ++at) {
    keys.push_back(at->first);
  }
  return keys;
}

} // namespace optiq::io
