// logits_driver MODEL IDS.safetensors CHUNK fast|exact OUT.safetensors
// Writes the logits [n, vocab] of the int32 tensor "ids", prefilled in chunks.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "optiq/base/error.h"
#include "optiq/generate/generator.h"
#include "optiq/io/safetensors.h"
#include "optiq/models/model.h"

int main(int argc, char** argv) {
  using namespace optiq; // NOLINT(google-build-using-namespace): a main
  if (argc != 6) {
    std::fprintf(stderr, "expected 5 arguments\n");
    return 2;
  }
  try {
    const auto file = io::SafetensorsFile::open(argv[2]);
    const auto ids = file.load(file.tensors().front());
    const auto compute = std::string(argv[4]) == "exact"
        ? kernels::Compute::Exact
        : kernels::Compute::Fast;
    generate::Engine engine(
        models::load_model(io::ModelDirectory::open(argv[1])),
        {.compute = compute, .prefill_chunk = std::atoi(argv[3])});
    const auto sequence = engine.new_sequence();
    const auto logits = engine.extend(
        *sequence,
        {ids.data<std::int32_t>(), ids.size()},
        static_cast<int>(ids.size()));
    io::write_safetensors(
        argv[5],
        {{.name = "logits",
          .dtype = logits.dtype(),
          .shape = logits.shape(),
          .make = [&] { return logits; }}},
        {});
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return exit_code(e.kind());
  }
  return 0;
}
