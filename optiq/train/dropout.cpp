#include "optiq/train/dropout.h"

#include <vector>

#include "optiq/base/thread_pool.h"
#include "optiq/train/random.h"

namespace optiq::train {
namespace {

constexpr unsigned kBitsPerValue = 16; // of the 64 that are drawn at once
constexpr std::size_t kValuesPerDraw = 64 / kBitsPerValue;

} // namespace

mx::array Dropout::apply(
    kernels::Device& device,
    const mx::array& x,
    const mx::array& a,
    int first) const {
  const kernels::HostRows rows = device.to_host(x);
  const std::uint64_t module = numbers_.at(a.id());
  const auto dropped_below = static_cast<std::uint64_t>(
      options_.rate * static_cast<float>(1 << kBitsPerValue));
  const float kept = 1.f / (1.f - options_.rate);
  const std::uint64_t draws_a_row =
      (static_cast<std::uint64_t>(x.shape(1)) + kValuesPerDraw - 1) /
      kValuesPerDraw;
  std::vector<float> values(x.size());
  const auto drop_row = [&](std::size_t row) {
    const std::span<const float> from = rows.row(static_cast<int>(row));
    float* to = values.data() + row * from.size();
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < from.size(); ++i) {
      const std::size_t part = i % kValuesPerDraw;
      if (part == 0) {
        bits = random_bits(
            options_.seed,
            module,
            (first + row) * draws_a_row + i / kValuesPerDraw);
      }
      const std::uint64_t drawn =
          (bits >> (part * kBitsPerValue)) & ((1u << kBitsPerValue) - 1);
      to[i] = drawn < dropped_below ? 0.f : kept * from[i];
    }
  };
  parallel_for(x.shape(0), 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      drop_row(row);
    }
  });
  return device.upload(mx::array(values.data(), x.shape(), mx::float32));
}

} // namespace optiq::train
