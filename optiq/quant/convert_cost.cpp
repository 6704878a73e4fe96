#include "optiq/quant/convert_cost.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <span>

#include "optiq/artifacts/module_id.h"
#include "optiq/models/forward.h"
#include "optiq/quant/inventory.h"
#include "optiq/quant/planned_tensors.h"
#include "optiq/quant/trial_run.h"

namespace optiq::quant {

namespace mx = mlx::core;

namespace {

using Clock = std::chrono::steady_clock;

// A trial goes on for so long: one matrix may take microseconds.
constexpr double kTrialSeconds = 0.05;
constexpr std::size_t kWarmUpTokens = 16;
// Code that is first run, and the heap of small things.
constexpr std::uint64_t kOtherBytes = 6u << 20;
constexpr std::uint64_t kRowsBytes = 10u << 20;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::uint64_t largest_source(const models::Checkpoint& checkpoint) {
  std::uint64_t largest = 0;
  for (const models::CheckpointTensor& tensor : checkpoint.tensors) {
    largest = std::max(largest, bytes_of(tensor.shape, tensor.dtype));
  }
  return largest;
}

/** Of the written directory: what its parts hold. */
struct WrittenBytes {
  std::map<int, std::uint64_t> layers;
  std::uint64_t outer = 0; // in no layer
  std::uint64_t largest = 0; // of one tensor
};

WrittenBytes written_parts(
    const models::Checkpoint& checkpoint,
    const artifacts::Plan& plan) {
  WrittenBytes written;
  for (const auto& tensor : planned_tensors(checkpoint, plan.layers)) {
    const std::uint64_t bytes = bytes_of(tensor.shape, tensor.dtype);
    const int layer = artifacts::layer_of(tensor.name);
    (layer < 0 ? written.outer : written.layers[layer]) += bytes;
    written.largest = std::max(written.largest, bytes);
  }
  return written;
}

// A tensor that a file stores in another form is made in float32, rounded, and
// searched for values that do not fit (isfinite: three masks), some rows at a
// time.
std::uint64_t reading_bytes(
    const io::TensorInfo& stored,
    const models::CheckpointTensor& tensor) {
  const std::uint64_t bytes = bytes_of(tensor.shape, tensor.dtype);
  return stored.nbytes == bytes ? bytes : bytes + stored.nbytes + kRowsBytes;
}

// A tensor as it is read, and its codes, scales and biases; the heap keeps
// those of the one before.
std::uint64_t quantizing_bytes(
    const io::ModelDirectory& source,
    const models::Checkpoint& checkpoint,
    const artifacts::Plan& plan) {
  std::uint64_t most = 0;
  for (const models::CheckpointTensor& tensor : checkpoint.tensors) {
    most = std::max(most, reading_bytes(source.info(tensor.source), tensor));
  }
  for (const artifacts::LayerBits& layer : plan.layers) {
    const models::CheckpointTensor& weight = weight_of(checkpoint, layer.name);
    most = std::max(
        most,
        reading_bytes(source.info(weight.source), weight) +
            2 * quantized_bytes(weight, layer.bits, layer.group_size));
  }
  return most;
}

// Packed matrices, and the file's pages of the one that is being packed.
std::uint64_t checking_bytes(const WrittenBytes& written) {
  return trial_run_bytes(written.layers, written.outer) + written.largest;
}

} // namespace

std::uint64_t writing_bytes(
    const io::ModelDirectory& source,
    const models::Checkpoint& checkpoint,
    const artifacts::Plan& plan) {
  return kOtherBytes +
      std::max(
             quantizing_bytes(source, checkpoint, plan),
             checking_bytes(written_parts(checkpoint, plan)));
}

std::uint64_t writing_room(const models::Checkpoint& checkpoint) {
  return 2 * largest_source(checkpoint) + (64u << 20);
}

double quantizing_seconds(
    const models::Checkpoint& checkpoint,
    const artifacts::Plan& plan) {
  struct Width {
    const artifacts::LayerBits* sample = nullptr; // its largest matrix
    std::uint64_t parameters = 0;
  };
  std::map<int, Width> widths;
  for (const artifacts::LayerBits& layer : plan.layers) {
    Width& width = widths[layer.bits];
    width.parameters += layer.parameters;
    if (width.sample == nullptr ||
        width.sample->parameters < layer.parameters) {
      width.sample = &layer;
    }
  }
  double seconds = 0;
  for (const auto& [bits, width] : widths) {
    const auto start = Clock::now();
    int n_runs = 0;
    for (; n_runs == 0 || seconds_since(start) < kTrialSeconds; ++n_runs) {
      for (const auto& part : quantized_tensors(
               weight_of(checkpoint, width.sample->name),
               bits,
               width.sample->group_size)) {
        part.make();
      }
    }
    seconds += seconds_since(start) / n_runs *
        static_cast<double>(width.parameters) /
        static_cast<double>(width.sample->parameters);
  }
  return seconds;
}

double layer_seconds(
    const models::Setup& setup,
    const Calibration& calibration) {
  const auto forward = [&](std::span<const std::int32_t> tokens) {
    models::Forward one(setup);
    const mx::array logits =
        models::logits_of(setup, one.add_fresh(tokens).hidden_states());
    setup.model->device().finish({&logits, 1});
  };
  const std::span<const std::int32_t> tokens = calibration.chunks.front();
  // Pages of the weights come in with the first tokens.
  forward(tokens.first(std::min(kWarmUpTokens, tokens.size())));
  const auto start = Clock::now();
  forward(tokens);
  const std::uint64_t layers = setup.model->info().n_layers + 1; // and the head
  return seconds_since(start) / static_cast<double>(tokens.size() * layers);
}

double measuring_seconds(
    const models::Setup& setup,
    const Calibration& calibration,
    std::uint64_t work,
    std::size_t n_plans) {
  const std::uint64_t layers = setup.model->info().n_layers + 1;
  // Every plan's model on the whole text, and the reference.
  const std::uint64_t choosing =
      (n_plans + 1) * layers * calibration.n_tokens();
  return layer_seconds(setup, calibration) *
      static_cast<double>(work + choosing);
}

} // namespace optiq::quant
