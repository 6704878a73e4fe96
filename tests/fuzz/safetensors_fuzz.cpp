// "<JSON>\0<n:u16>" becomes a safetensors file of that header, with the right
// length field and n bytes of data. Behind a first byte 0, the input is a whole
// file.
#include <cstring>

#include "fuzz/fuzz_support.h"

#include "optiq/io/safetensors.h"

namespace optiq::fuzz {
namespace {

std::string file_of(std::string_view input) {
  if (input.starts_with('\0')) {
    return std::string(input.substr(1));
  }
  const auto [header, rest] = split_at_zero(input);
  std::uint16_t n_data = 0;
  if (rest.size() >= sizeof(n_data)) {
    std::memcpy(&n_data, rest.data(), sizeof(n_data));
  }
  const std::uint64_t length = header.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file.append(header).append(n_data, '\x3f');
}

void check(const io::SafetensorsFile& file, std::size_t file_bytes) {
  std::uint64_t end = 0;
  for (const io::TensorInfo& tensor : file.tensors()) {
    require(
        end == 0 || tensor.offset == end, "each tensor starts where one ends");
    end = tensor.offset + tensor.nbytes;
    require(end <= file_bytes, "a tensor lies inside the file");
    if (tensor.unreadable != nullptr) {
      continue;
    }
    std::uint64_t bytes = io::mx::size_of(tensor.dtype);
    for (const auto dim : tensor.shape) {
      bytes *= static_cast<std::uint64_t>(dim);
    }
    require(bytes == tensor.nbytes, "bytes are those of the shape");
    const io::mx::array loaded = file.load(tensor);
    require(
        loaded.shape() == tensor.shape && loaded.dtype() == tensor.dtype &&
            loaded.nbytes() == tensor.nbytes,
        "load keeps shape and dtype");
    file.drop(tensor);
  }
  require(
      file.tensors().empty() || end == file_bytes,
      "the last tensor ends with the file");
}

} // namespace
} // namespace optiq::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(
    std::uint8_t* data,
    std::size_t size,
    std::size_t max_size,
    unsigned seed) {
  return optiq::fuzz::mutate_json(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(
    const std::uint8_t* data,
    std::size_t size) {
  using namespace optiq;
  const std::string file = fuzz::file_of(fuzz::as_text(data, size));
  const auto path = fuzz::scratch() / "any.safetensors";
  test::write_file(path, file);
  fuzz::accepts(
      [&] { fuzz::check(io::SafetensorsFile::open(path), file.size()); });
  return 0;
}
