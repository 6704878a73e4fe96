// Any bytes as a GGUF file.
#include "fuzz/fuzz_support.h"

#include "optiq/io/gguf/dequantize.h"
#include "optiq/io/gguf/file.h"

namespace optiq::fuzz {
namespace {

void check_tensors(const io::GgufFile& file) {
  std::uint64_t end = 0;
  for (const io::GgufTensor& tensor : file.tensors()) {
    require(tensor.offset >= end, "tensors do not overlap");
    end = tensor.offset + tensor.nbytes;
    require(
        end > tensor.offset && end <= file.file_bytes(),
        "a tensor lies inside the file");
    std::size_t elements = 1;
    for (const std::int32_t axis : tensor.shape) {
      elements *= static_cast<std::size_t>(axis);
    }
    const auto values = io::dequantize(file, tensor);
    require(values.size() == elements, "dequantize keeps the shape");
    if (io::block_elements(tensor.type) == 1) {
      require(
          io::load_plain(file, tensor).size() == elements,
          "load_plain keeps the shape");
    }
    if (tensor.shape.size() == 2 && io::affine_form(tensor.type)) {
      accepts([&] { io::split_affine(file, tensor); });
    }
  }
}

void read_values(const io::GgufFile& file) {
  for (const std::string& key : file.keys("")) {
    require(file.has(key), "a listed key is there");
    accepts([&] { file.text(key); });
    accepts([&] { file.boolean(key); });
    accepts([&] { file.integer(key); });
    accepts([&] { file.number(key); });
    accepts([&] { file.texts(key); });
    accepts([&] { file.integers(key); });
    accepts([&] { file.numbers(key); });
  }
}

} // namespace
} // namespace optiq::fuzz

extern "C" int LLVMFuzzerTestOneInput(
    const std::uint8_t* data,
    std::size_t size) {
  using namespace optiq;
  const auto path = fuzz::scratch() / "any.gguf";
  test::write_file(path, fuzz::as_text(data, size));
  fuzz::accepts([&] {
    const io::GgufFile file = io::GgufFile::open(path);
    fuzz::check_tensors(file);
    fuzz::read_values(file);
  });
  return 0;
}
