#include <csignal>
#include <cstring>

#include <gtest/gtest.h>
#include <mlx/ops.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/expect_error.h"
#include "support/scratch_folder.h"

#include "optiq/artifacts/json.h"
#include "optiq/io/array.h"
#include "optiq/io/safetensors.h"

namespace optiq::io {
namespace {

using test::expect_error;
using test::ScratchFolder;

/** A tensor whose bytes count up from `first`. */
TensorToWrite counting(
    const std::string& name,
    mx::Dtype dtype,
    const mx::Shape& shape,
    int first = 0) {
  return {name, dtype, shape, [=] {
            mx::array array = make_array(shape, dtype);
            for (std::size_t i = 0; i < array.nbytes(); ++i) {
              array.data<char>()[i] =
                  static_cast<char>(first + static_cast<int>(i));
            }
            return array;
          }};
}

std::vector<TensorToWrite> every_dtype() {
  std::vector<TensorToWrite> tensors;
  int n = 0;
  for (const mx::Dtype dtype :
       {mx::bool_,
        mx::uint8,
        mx::int8,
        mx::int16,
        mx::uint16,
        mx::float16,
        mx::bfloat16,
        mx::int32,
        mx::uint32,
        mx::float32,
        mx::int64,
        mx::uint64}) {
    tensors.push_back(
        counting("t" + std::to_string(12 - n), dtype, {3, n % 3}, n));
    tensors.push_back(counting("s" + std::to_string(n), dtype, {}, n));
    ++n;
  }
  return tensors;
}

TEST(SafetensorsWriter, WhatIsWrittenReadsBackEqual) {
  const ScratchFolder folder;
  const auto path = folder / "all.safetensors";
  const auto tensors = every_dtype();
  const std::map<std::string, std::string> metadata = {
      {"format", "mlx"}, {"quote\"\n", "\xc3\xa9"}};
  write_safetensors(path, tensors, metadata);
  EXPECT_EQ(
      std::filesystem::file_size(path), safetensors_bytes(tensors, metadata));

  const SafetensorsFile file = SafetensorsFile::open(path);
  EXPECT_EQ(file.metadata(), metadata);
  ASSERT_EQ(file.tensors().size(), tensors.size());
  std::map<std::string, TensorInfo> found;
  for (const TensorInfo& tensor : file.tensors()) {
    found.emplace(tensor.name, tensor);
  }
  for (const TensorToWrite& tensor : tensors) {
    const TensorInfo& info = found.at(tensor.name);
    EXPECT_EQ(info.dtype, tensor.dtype) << tensor.name;
    EXPECT_EQ(info.shape, tensor.shape) << tensor.name;
    const mx::array expected = tensor.make();
    const mx::array array = file.load(info);
    ASSERT_EQ(array.nbytes(), expected.nbytes());
    EXPECT_TRUE(
        expected.nbytes() == 0 ||
        std::memcmp(
            array.data<char>(), expected.data<char>(), array.nbytes()) == 0)
        << tensor.name;
  }
}

TEST(SafetensorsWriter, KeepsTheOrderAndPadsTheHeader) {
  const ScratchFolder folder;
  for (const char* name : {"z", "zz", "zzz", "zzzzzzzz"}) {
    const auto path = folder / (std::string(name) + ".safetensors");
    write_safetensors(
        path,
        {counting(name, mx::uint8, {3}), counting("a", mx::float32, {1})},
        {});
    const SafetensorsFile file = SafetensorsFile::open(path);
    EXPECT_EQ(file.tensors()[0].name, name);
    EXPECT_EQ(file.tensors()[0].offset % 8, 0u);
    EXPECT_EQ(file.tensors()[1].name, "a");
  }
}

TEST(SafetensorsWriter, TwoWritesAreByteEqual) {
  const ScratchFolder folder;
  write_safetensors(folder / "a", every_dtype(), {{"x", "1"}, {"a", "2"}});
  write_safetensors(folder / "b", every_dtype(), {{"a", "2"}, {"x", "1"}});
  EXPECT_EQ(test::read_file(folder / "a"), test::read_file(folder / "b"));
}

TEST(SafetensorsWriter, StridedArraysAreWrittenRowMajor) {
  const ScratchFolder folder;
  const auto path = folder / "strided.safetensors";
  const TensorToWrite transposed = {
      "t", mx::int32, {3, 2}, [] {
        return mx::transpose(
            mx::array({0, 1, 2, 3, 4, 5}, mx::Shape{2, 3}), {1, 0});
      }};
  write_safetensors(path, {transposed}, {});
  const SafetensorsFile file = SafetensorsFile::open(path);
  const mx::array array = file.load(file.tensors()[0]);
  const std::vector<std::int32_t> expected = {0, 3, 1, 4, 2, 5};
  EXPECT_EQ(
      std::vector<std::int32_t>(
          array.data<std::int32_t>(), array.data<std::int32_t>() + 6),
      expected);
}

TEST(SafetensorsWriter, HoldsOneTensorAtATime) {
  const ScratchFolder folder;
  int alive = 0;
  int peak = 0;
  std::vector<TensorToWrite> tensors;
  for (int i = 0; i < 5; ++i) {
    tensors.push_back({std::to_string(i), mx::uint8, {8}, [&] {
                         static const char bytes[16] = {};
                         peak = std::max(peak, ++alive);
                         return view_array(
                             bytes + 8,
                             {8},
                             mx::uint8,
                             std::shared_ptr<const void>(
                                 bytes, [&](const void*) { --alive; }));
                       }});
  }
  write_safetensors(folder / "one", tensors, {});
  EXPECT_EQ(peak, 1);
  EXPECT_EQ(alive, 0);
}

TEST(SafetensorsWriter, RefusesWhatDoesNotMatchAndLeavesNothing) {
  const ScratchFolder folder;
  const auto path = folder / "bad.safetensors";
  TensorToWrite wrong_shape = counting("w", mx::float32, {2});
  wrong_shape.shape = {3};
  TensorToWrite wrong_dtype = counting("w", mx::float32, {2});
  wrong_dtype.dtype = mx::int32;
  for (const TensorToWrite& tensor : {wrong_shape, wrong_dtype}) {
    expect_error(ErrorKind::InvalidInput, {"'w'", "F32"}, [&] {
      write_safetensors(path, {counting("v", mx::uint8, {1}), tensor}, {});
    });
    EXPECT_FALSE(std::filesystem::exists(path));
  }
  expect_error(ErrorKind::InvalidInput, {"'w'", "twice"}, [&] {
    write_safetensors(
        path,
        {counting("w", mx::uint8, {1}), counting("w", mx::uint8, {1})},
        {});
  });
  expect_error(ErrorKind::InvalidInput, {"'__metadata__'"}, [&] {
    write_safetensors(path, {counting("__metadata__", mx::uint8, {1})}, {});
  });
  expect_error(ErrorKind::Unsupported, {"complex"}, [&] {
    write_safetensors(path, {counting("c", mx::complex64, {1})}, {});
  });
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(SafetensorsWriter, RefusesMoreThanTheDiskHoldsBeforeMakingAnything) {
  const ScratchFolder folder;
  const TensorToWrite huge = {
      "h", mx::float32, {2147483647, 1 << 20}, []() -> mx::array {
        throw std::logic_error("made");
      }};
  // 2147483647 * 2^20 * 4 data bytes and a 72-byte header.
  const auto bytes = safetensors_bytes({huge}, {});
  EXPECT_GT(bytes, 9007199250546688ull);
  expect_error(
      ErrorKind::Exhausted,
      {"huge.safetensors", std::to_string(bytes), "free"},
      [&] { write_safetensors(folder / "huge.safetensors", {huge}, {}); });
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(SafetensorsWriter, AFullDiskLeavesNoPartialFile) {
  // RLIMIT_FSIZE stands in for the full disk: a write fails in the middle.
  const ScratchFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit { 4096, 4096 };
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_safetensors(
          folder / "full", {counting("t", mx::uint8, {100'000})}, {});
      ::_exit(1);
    } catch (const Error& error) {
      const std::string message = error.what();
      const bool is_right = error.kind() == ErrorKind::Exhausted &&
          message.find("full") != std::string::npos &&
          message.find(" needs 1000") != std::string::npos;
      ::_exit(is_right ? 0 : 2);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

std::vector<TensorToWrite> n_tensors(int n) {
  std::vector<TensorToWrite> tensors;
  for (int i = 0; i < n; ++i) {
    tensors.push_back(
        counting("layer." + std::to_string(9 - i), mx::uint8, {100}, i));
  }
  return tensors;
}

TEST(ModelShards, FillGreedilyInOrder) {
  // Bytes allowed in a shard, and the shards that 5 tensors of 100 make.
  const std::pair<std::uint64_t, std::size_t> cases[] = {
      {500, 1},
      {499, 2},
      {400, 2},
      {300, 2},
      {299, 3},
      {200, 3},
      {100, 5},
      {99, 5},
      {1, 5}};
  for (const auto& [limit, count] : cases) {
    const ScratchFolder folder;
    const std::uint64_t bytes =
        write_model_shards(folder.path(), n_tensors(5), 777, limit);
    const auto index =
        artifacts::read_json_file(folder / "model.safetensors.index.json");
    EXPECT_EQ(index.at("metadata").at("total_size"), 500);
    EXPECT_EQ(index.at("metadata").at("total_parameters"), 777);
    std::vector<std::string> in_order;
    std::uint64_t found_bytes = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string name = count == 1
          ? "model.safetensors"
          : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, count);
      const SafetensorsFile file = SafetensorsFile::open(folder / name);
      EXPECT_EQ(file.metadata().at("format"), "mlx");
      found_bytes += std::filesystem::file_size(folder / name);
      for (const TensorInfo& tensor : file.tensors()) {
        EXPECT_EQ(index.at("weight_map").at(tensor.name), name);
        in_order.push_back(tensor.name);
      }
    }
    EXPECT_EQ(bytes, found_bytes) << limit;
    const std::vector<std::string> expected = {
        "layer.9", "layer.8", "layer.7", "layer.6", "layer.5"};
    EXPECT_EQ(in_order, expected);
  }
}

TEST(ModelShards, TheIndexIsSortedAndIndentedByFour) {
  const ScratchFolder folder;
  write_model_shards(folder.path(), n_tensors(2), 200, 100);
  EXPECT_EQ(
      test::read_file(folder / "model.safetensors.index.json"),
      "{\n"
      "    \"metadata\": {\n"
      "        \"total_size\": 200,\n"
      "        \"total_parameters\": 200\n"
      "    },\n"
      "    \"weight_map\": {\n"
      "        \"layer.8\": \"model-00002-of-00002.safetensors\",\n"
      "        \"layer.9\": \"model-00001-of-00002.safetensors\"\n"
      "    }\n"
      "}\n");
}

} // namespace
} // namespace optiq::io
