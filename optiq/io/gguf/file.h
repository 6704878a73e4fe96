#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/base/file.h"

namespace optiq::io {

/** Types of metadata values, as the file numbers them. */
enum class GgufValueType : std::uint32_t {
  UInt8 = 0,
  Int8 = 1,
  UInt16 = 2,
  Int16 = 3,
  UInt32 = 4,
  Int32 = 5,
  Float32 = 6,
  Bool = 7,
  String = 8,
  Array = 9,
  UInt64 = 10,
  Int64 = 11,
  Float64 = 12,
};

// NOLINTBEGIN(readability-identifier-naming): the format's own names.
/** Types of tensor elements that OptIQ reads, as the file numbers them. */
enum class GgufType : std::uint32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q2_K = 10,
  Q3_K = 11,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  IQ4_NL = 20,
  IQ4_XS = 23,
  BF16 = 30,
  MXFP4 = 39,
};
// NOLINTEND(readability-identifier-naming)

/** "Q4_K". */
const char* name_of(GgufType type);
/** Elements that are encoded together. */
int block_elements(GgufType type);
/** Bytes of one block. */
int block_bytes(GgufType type);

struct GgufTensor {
  std::string name;
  GgufType type = GgufType::F32;
  std::vector<std::int32_t> shape; // row-major: the last axis is contiguous
  std::uint64_t offset = 0; // from the start of the file, bytes
  std::uint64_t nbytes = 0;
  std::size_t part = 0; // which file of a split model
};

/**
 * A mapped GGUF file, or the files of a model that llama.cpp's gguf-split
 * divided: version 2 or 3, little-endian. Opening checks every
 * count, length, product and offset before it is used: unique names, known
 * types, whole blocks per row, tensors that follow each other inside the file.
 * The header is copied, in at most twice the file's size and 64 MiB of memory.
 * Metadata are those of the first part.
 */
class GgufFile {
 public:
  /** Any part of a split model opens all of it. Throws NotFound (a part too),
   * Denied, Io, Corrupt, or Unsupported naming the tensor and its type. */
  static GgufFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const {
    return files_.front()->path();
  }
  /** Of all parts. */
  std::uint64_t file_bytes() const;
  /** In the order of the data sections. */
  const std::vector<GgufTensor>& tensors() const {
    return tensors_;
  }
  /** The encoded bytes of a tensor. */
  std::span<const std::byte> bytes(const GgufTensor& tensor) const {
    return mapping(tensor)->bytes().subspan(tensor.offset, tensor.nbytes);
  }
  /** What a view of the tensor's bytes must keep alive. */
  const std::shared_ptr<const MappedFile>& mapping(
      const GgufTensor& tensor) const {
    return files_[tensor.part];
  }

  bool has(const std::string& key) const {
    return values_.contains(key);
  }
  /** Metadata by key; nothing when the key is absent. Throws Corrupt, naming
   * the key, for a value of another type. */
  std::optional<std::string> text(const std::string& key) const;
  std::optional<bool> boolean(const std::string& key) const;
  std::optional<std::uint64_t> integer(const std::string& key) const;
  std::optional<double> number(const std::string& key) const;
  std::optional<std::vector<std::string_view>> texts(
      const std::string& key) const;
  /** Of Int32, UInt32 or Bool items. */
  std::optional<std::vector<std::int64_t>> integers(
      const std::string& key) const;
  /** Of Int8 or UInt8 items. */
  std::optional<std::string_view> byte_items(const std::string& key) const;
  /** Of Float32 items. */
  std::optional<std::vector<float>> numbers(const std::string& key) const;
  /** Keys that start with a prefix, sorted. */
  std::vector<std::string> keys(const std::string& prefix) const;

 private:
  /** A value, checked, and copied: the file may change under its mapping. */
  struct Value {
    GgufValueType type = GgufValueType::UInt8; // of the items of an array
    bool is_array = false;
    std::uint64_t count = 1;
    std::vector<std::byte> bytes; // of all items
  };
  class Parser;

  static GgufFile open_one(const std::filesystem::path& path);
  void append_part(GgufFile part, int number, int count);
  const Value* find(const std::string& key) const;
  [[noreturn]] void fail_value(
      const std::string& key,
      const Value& found,
      const char* expected) const;

  std::vector<std::shared_ptr<const MappedFile>> files_;
  std::map<std::string, Value> values_;
  std::vector<GgufTensor> tensors_;
};

} // namespace optiq::io
