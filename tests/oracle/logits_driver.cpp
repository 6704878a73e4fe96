// logits_driver MODEL IDS.safetensors CHUNK fast|exact OUT.safetensors [DEVICE]
// Writes the logits [n, vocab] of every int32 tensor [n] of IDS under its name.
// One sequence after another, each prefilled in chunks; with CHUNK 0 all of
// them in one batch, token by token, each joining one step after the one
// before.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "support/sequence_runner.h"

#include "optiq/base/error.h"
#include "optiq/io/array.h"
#include "optiq/io/safetensors.h"
#include "optiq/kernels/devices.h"
#include "optiq/models/model.h"

namespace optiq {
namespace {

namespace mx = mlx::core;

using Ids = std::vector<std::int32_t>;

std::vector<mx::array> run_batch(
    testing::SequenceRunner& runner,
    int vocab_size,
    const std::vector<Ids>& ids) {
  std::vector<std::unique_ptr<cache::Sequence>> sequences;
  std::vector<mx::array> logits;
  std::size_t steps = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    sequences.push_back(runner.new_sequence());
    logits.push_back(io::make_array(
        {static_cast<int>(ids[i].size()), vocab_size}, mx::float32));
    steps = std::max(steps, i + ids[i].size());
  }
  for (std::size_t step = 0; step < steps; ++step) {
    std::vector<testing::SequenceRunner::Work> work;
    std::vector<float*> targets;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (step >= i && step - i < ids[i].size()) {
        work.push_back({sequences[i].get(), {&ids[i][step - i], 1}});
        targets.push_back(
            io::mutable_floats(logits[i]).data() + (step - i) * vocab_size);
      }
    }
    const kernels::HostRows rows =
        runner.model().device().to_host(runner.step(work));
    for (std::size_t row = 0; row < work.size(); ++row) {
      std::copy_n(
          rows.row(static_cast<int>(row)).data(), vocab_size, targets[row]);
    }
  }
  return logits;
}

void write_logits(char** arguments, kernels::Device& device) {
  const auto file = io::SafetensorsFile::open(arguments[2]);
  const int chunk = std::atoi(arguments[3]);
  const auto compute = std::string(arguments[4]) == "exact"
      ? kernels::Compute::Exact
      : kernels::Compute::Fast;
  const std::shared_ptr<const models::Model> model =
      models::load_model(io::ModelDirectory::open(arguments[1]), device);
  testing::SequenceRunner runner(
      {model, compute}, {.prefill_chunk = std::max(1, chunk)});
  std::vector<Ids> ids;
  for (const auto& tensor : file.tensors()) {
    const mx::array values = file.load(tensor);
    ids.emplace_back(
        values.data<std::int32_t>(),
        values.data<std::int32_t>() + values.size());
  }
  std::vector<mx::array> logits;
  if (chunk == 0) {
    logits = run_batch(runner, model->info().vocab_size, ids);
  } else {
    for (const Ids& sequence : ids) {
      const auto past = runner.new_sequence();
      const auto n = static_cast<int>(sequence.size());
      const kernels::HostRows rows =
          device.to_host(runner.extend(*past, sequence, n));
      logits.emplace_back(
          rows.all().data(), mx::Shape{n, model->info().vocab_size});
    }
  }
  std::vector<io::TensorToWrite> out;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    out.push_back(
        {.name = file.tensors()[i].name,
         .dtype = logits[i].dtype(),
         .shape = logits[i].shape(),
         .make = [&logits, i] { return logits[i]; }});
  }
  io::write_safetensors(arguments[5], out, {});
}

} // namespace
} // namespace optiq

int main(int argc, char** argv) {
  if (argc < 6 || argc > 7) {
    std::fprintf(stderr, "expected 5 or 6 arguments\n");
    return 2;
  }
  try {
    optiq::write_logits(
        argv, optiq::kernels::find_device(argc == 7 ? argv[6] : "cpu"));
  } catch (const optiq::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return optiq::exit_code(e.kind());
  }
  return 0;
}
