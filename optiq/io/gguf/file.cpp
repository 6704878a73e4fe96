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
#include "optiq/io/gguf/file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include "optiq/artifacts/json.h"
#include "optiq/base/checked.h"
#include "optiq/base/error.h"
#include "optiq/io/gguf/values_impl.h"

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
// Small entries take many times their size in memory. The largest models have
// some thousand tensors, the largest vocabularies half a million merges.
constexpr std::uint64_t kMaxValues = 1u << 16;
constexpr std::uint64_t kMaxTensors = 1u << 17;
constexpr std::uint64_t kMaxTexts = 4u << 20;
constexpr std::uint64_t kMaxItemsBytes = 256u << 20; // of one value
constexpr std::uint64_t kWindowBytes = 1u << 20;

struct TypeRow {
  std::uint32_t id;
  const char* name;
  int elements; // of a block; 0: OptIQ does not read this type
  int bytes;
};

constexpr TypeRow kTypes[] = {
    {0, "F32", 1, 4},         {1, "F16", 1, 2},       {2, "Q4_0", 32, 18},
    {3, "Q4_1", 32, 20},      {6, "Q5_0", 32, 22},    {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},      {9, "Q8_1", 0, 0},      {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144}, {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 0, 0},     {16, "IQ2_XXS", 0, 0},
    {17, "IQ2_XS", 0, 0},     {18, "IQ3_XXS", 0, 0},  {19, "IQ1_S", 0, 0},
    {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 0, 0},    {22, "IQ2_S", 0, 0},
    {23, "IQ4_XS", 256, 136}, {24, "I8", 0, 0},       {25, "I16", 0, 0},
    {26, "I32", 0, 0},        {27, "I64", 0, 0},      {28, "F64", 0, 0},
    {29, "IQ1_M", 0, 0},      {30, "BF16", 1, 2},     {34, "TQ1_0", 0, 0},
    {35, "TQ2_0", 0, 0},      {39, "MXFP4", 32, 17},  {40, "NVFP4", 0, 0},
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

} // namespace

const GgufValueRow& row_of(GgufValueType type) {
  static constexpr GgufValueRow kRows[] = {
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
  return kRows[static_cast<std::size_t>(type)];
}

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

/** Reads the header front to back; nothing is used before it is checked, and
 * nothing is read twice. */
class GgufFile::Parser {
 public:
  Parser(const InputFile& input, GgufFile& file)
      : input_(input), file_(file), culprit_("the header") {}

  void run() {
    check_start();
    const auto n_tensors = take<std::uint64_t>("the number of tensors");
    const auto n_values = take<std::uint64_t>("the number of metadata values");
    check_count(n_values, kMinValueBytes, kMaxValues, "metadata values");
    for (std::uint64_t i = 0; i < n_values; ++i) {
      culprit_ = fmt::format("metadata value {} of {}", i + 1, n_values);
      parse_value();
    }
    culprit_ = "the header";
    check_count(n_tensors, kMinTensorBytes, kMaxTensors, "tensors");
    file_.tensors_.reserve(n_tensors); // names_ refers to them
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
        input_.path().string(),
        culprit_,
        fmt::format(format, std::forward<Args>(args)...));
  }

  /** The place of the next n bytes, which are in the file. */
  std::uint64_t advance(std::uint64_t n, const char* what) {
    const std::uint64_t left = input_.size() - at_;
    if (n > left) {
      reject(
          "{} takes {} bytes, but {} are left at byte {}. Interrupted download?",
          what,
          n,
          left,
          at_);
    }
    return std::exchange(at_, at_ + n);
  }

  /** At most kWindowBytes; good until the next call. */
  std::span<const std::byte> take_bytes(std::uint64_t n, const char* what) {
    const std::uint64_t place = advance(n, what);
    if (at_ > window_at_ + window_.size()) {
      window_.resize(
          std::min<std::uint64_t>(kWindowBytes, input_.size() - place));
      window_at_ = place;
      input_.read(place, window_);
    }
    return std::span<const std::byte>(window_).subspan(place - window_at_, n);
  }

  std::vector<std::byte> copy_bytes(std::uint64_t n, const char* what) {
    const std::uint64_t place = advance(n, what);
    if (n > kMaxItemsBytes) {
      reject("{} takes {} bytes, expected at most {}", what, n, kMaxItemsBytes);
    }
    std::vector<std::byte> bytes(n);
    input_.read(place, bytes);
    return bytes;
  }

  template <typename T>
  T take(const char* what) {
    return read_number<T>(take_bytes(sizeof(T), what));
  }

  /** A key or a tensor's name: short UTF-8. */
  std::string take_name(const char* what) {
    const auto n = take<std::uint64_t>(what);
    std::string name;
    std::string json;
    if (n <= kMaxNameBytes) {
      name = as_text(take_bytes(n, what));
    }
    if (name.empty() || !append_json_string(name, json)) {
      reject(
          "{} has {} bytes, expected 1 to {} bytes of UTF-8",
          what,
          n,
          kMaxNameBytes);
    }
    return name;
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
        input_.path().string(),
        swapped ? "found a big-endian file"
                : fmt::format("found version {}", version));
  }

  void check_count(
      std::uint64_t count,
      std::uint64_t least_bytes,
      std::uint64_t most,
      const char* what) const {
    const std::uint64_t left = input_.size() - at_;
    if (count > left / least_bytes) {
      reject(
          "{} {} need at least {} bytes each, but {} bytes are left",
          count,
          what,
          least_bytes,
          left);
    }
    if (count > most) {
      reject("{} {}, expected at most {}", count, what, most);
    }
  }

  GgufValueType take_value_type() {
    const auto id = take<std::uint32_t>("the type");
    if (id > static_cast<std::uint32_t>(GgufValueType::Float64)) {
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
      check_count(
          value.count,
          row_of(value.type).bytes,
          value.type == GgufValueType::String ? kMaxTexts : ~std::uint64_t{0},
          "items");
    }
    value.bytes = take_items(value);
    if (!file_.values_.emplace(key, std::move(value)).second) {
      reject("the key is there twice, expected it once");
    }
  }

  std::vector<std::byte> take_items(const Value& value) {
    if (value.type == GgufValueType::String) {
      return take_texts(value.count);
    }
    // check_count has bounded the product for arrays.
    auto items = copy_bytes(
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

  /** Strings with their lengths. Those are read to find the end, and checked
   * once more in the copy, as the file may have changed in between. */
  std::vector<std::byte> take_texts(std::uint64_t count) {
    const std::uint64_t start = at_;
    for (std::uint64_t i = 0; i < count; ++i) {
      advance(take<std::uint64_t>("a string"), "a string");
    }
    const std::uint64_t n = std::exchange(at_, start) - start;
    auto texts = copy_bytes(n, "the strings");
    std::span<const std::byte> rest = texts;
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto length = rest.size() < sizeof(std::uint64_t)
          ? ~std::uint64_t{0}
          : read_number<std::uint64_t>(rest);
      if (length > rest.size() - sizeof(length)) {
        reject("the strings changed while they were read");
      }
      rest = rest.subspan(sizeof(length) + length);
    }
    return texts;
  }

  void parse_tensor() {
    GgufTensor tensor;
    tensor.name = take_name("the name");
    culprit_ = fmt::format("tensor '{}'", tensor.name);
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
    if (!names_.insert(file_.tensors_.back().name).second) {
      reject("the name is there twice, expected it once");
    }
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
        "Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL, IQ4_XS, MXFP4. Get "
        "the model in one of these",
        input_.path().string(),
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
    const std::uint64_t alignment = read_number<std::uint32_t>(value.bytes);
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
      if (expected > input_.size() ||
          tensor.nbytes > input_.size() - expected) {
        reject(
            "{} bytes at byte {} end after the file, which has {}. Interrupted "
            "download?",
            tensor.nbytes,
            expected,
            input_.size());
      }
      tensor.offset = expected;
      end = expected + tensor.nbytes;
      expected = padded(end);
    }
    culprit_ = "the end of the file";
    if (input_.size() > expected) {
      reject(
          "{} bytes after the last tensor, expected padding to {} at most",
          input_.size() - end,
          alignment);
    }
  }

  const InputFile& input_;
  GgufFile& file_;
  std::uint64_t at_ = 0;
  std::vector<std::byte> window_; // of the file, from window_at_ on
  std::uint64_t window_at_ = 0;
  std::string culprit_;
  std::set<std::string_view> names_;
};

GgufFile GgufFile::open_one(const std::filesystem::path& path) {
  GgufFile file;
  const auto input = InputFile::open(path);
  Parser(*input, file).run();
  file.files_ = {input->map(0, input->size())};
  return file;
}

} // namespace optiq::io
