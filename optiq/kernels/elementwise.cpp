#include "optiq/kernels/cpu/elementwise.h"

#include <algorithm>
#include <cstddef>

#include "optiq/base/thread_pool.h"
#include "optiq/kernels/kernels.h"
#include "optiq/kernels/profile.h"
#include "optiq/kernels/sequence_checks_impl.h"
#include "optiq/kernels/variants.h"

namespace optiq::kernels {
namespace {

// Floats below which a second thread costs more than it saves: waking it takes
// as long as 8000 elements of the slowest of these ops.
constexpr std::size_t kGrain = 8192;

using Zip = void (*)(const float*, const float*, std::size_t, float*);

mx::array
zip(const char* name, const mx::array& a, const mx::array& b, Zip kernel) {
  const OpTimer timer(name);
  const mx::array left = require_floats(name, "first argument", a, a.shape());
  const mx::array right = require_floats(name, "second argument", b, a.shape());
  mx::array out = io::make_array(a.shape(), mx::float32);
  const float* x = io::floats(left).data();
  const float* y = io::floats(right).data();
  float* z = io::mutable_floats(out).data();
  parallel_for(a.size(), kGrain, [&](std::size_t begin, std::size_t end) {
    kernel(x + begin, y + begin, end - begin, z + begin);
  });
  return out;
}

using Norm = void (*)(
    const float*,
    const float*,
    float,
    std::size_t,
    std::size_t,
    float*);

mx::array normalize(
    const char* name,
    const mx::array& x,
    const mx::array& weight,
    float eps,
    Norm kernel) {
  const OpTimer timer(name);
  if (x.ndim() == 0 || x.shape(-1) == 0) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] x: found shape [{}], expected a last axis to normalize. "
        "Pass [..., D].",
        name,
        fmt::join(x.shape(), ", "));
  }
  const mx::array in = require_floats(name, "x", x, x.shape());
  const mx::array w = require_floats(name, "weight", weight, {x.shape(-1)});
  mx::array out = io::make_array(x.shape(), mx::float32);
  const std::size_t dim = x.shape(-1);
  const float* source = io::floats(in).data();
  const float* scale = io::floats(w).data();
  float* target = io::mutable_floats(out).data();
  parallel_for(
      x.size() / dim,
      std::max<std::size_t>(1, kGrain / dim),
      [&](std::size_t begin, std::size_t end) {
        kernel(
            source + begin * dim,
            scale,
            eps,
            end - begin,
            dim,
            target + begin * dim);
      });
  return out;
}

} // namespace

mx::array rms_norm(const mx::array& x, const mx::array& weight, float eps) {
  return normalize("rms_norm", x, weight, eps, cpu::rms_norm);
}

mx::array layer_norm(const mx::array& x, const mx::array& weight, float eps) {
  return normalize("layer_norm", x, weight, eps, cpu::layer_norm);
}

mx::array add_bias(const mx::array& x, const mx::array& bias) {
  const OpTimer timer("add_bias");
  require_rank("add_bias", "x", x, 2);
  const mx::array in = io::materialize(x);
  const mx::array addend =
      require_floats("add_bias", "bias", bias, {x.shape(1)});
  mx::array out = io::make_array(x.shape(), mx::float32);
  const std::size_t width = x.shape(1);
  const float* source = io::floats(in).data();
  const float* row = io::floats(addend).data();
  float* target = io::mutable_floats(out).data();
  parallel_for(
      x.shape(0),
      std::max<std::size_t>(1, kGrain / std::max<std::size_t>(1, width)),
      [&](std::size_t begin, std::size_t end) {
        for (std::size_t t = begin; t < end; ++t) {
          cpu::add(source + t * width, row, width, target + t * width);
        }
      });
  return out;
}

mx::array add(const mx::array& a, const mx::array& b) {
  return zip("add", a, b, cpu::add);
}

mx::array swiglu(const mx::array& gate, const mx::array& up) {
  return zip("swiglu", gate, up, cpu::swiglu);
}

mx::array geglu(const mx::array& gate, const mx::array& up) {
  return zip("geglu", gate, up, cpu::geglu);
}

mx::array softcap(const mx::array& x, float cap) {
  if (!(cap > 0.f)) {
    fail(
        ErrorKind::InvalidInput,
        "[softcap] cap: found {}, expected a number above 0. Pass the model's.",
        cap);
  }
  const OpTimer timer("softcap");
  const mx::array in = require_floats("softcap", "x", x, x.shape());
  mx::array out = io::make_array(x.shape(), mx::float32);
  const float* source = io::floats(in).data();
  float* target = io::mutable_floats(out).data();
  parallel_for(x.size(), kGrain, [&](std::size_t begin, std::size_t end) {
    cpu::softcap(source + begin, cap, end - begin, target + begin);
  });
  return out;
}

mx::array sigmoid_gate(const mx::array& x, const mx::array& gate) {
  return zip("sigmoid_gate", x, gate, cpu::sigmoid_gate);
}

mx::array rope(
    const mx::array& x,
    std::span<const std::int32_t> positions,
    std::span<const float> inverse_frequencies) {
  return rope(
      x,
      positions,
      Rope{{inverse_frequencies.begin(), inverse_frequencies.end()}});
}

mx::array rope(
    const mx::array& x,
    std::span<const std::int32_t> positions,
    const Rope& rope) {
  const OpTimer timer("rope");
  require_rank("rope", "x", x, 3);
  const std::size_t rows = x.shape(0);
  const cpu::RopeShape shape{
      .n_heads = static_cast<std::size_t>(x.shape(1)),
      .head_dim = static_cast<std::size_t>(x.shape(2)),
      .half = rope.inverse_frequencies.size(),
      .is_interleaved = rope.is_interleaved,
      .scale = rope.scale};
  if (positions.size() != rows || 2 * shape.half > shape.head_dim) {
    fail(
        ErrorKind::InvalidInput,
        "[rope] x of shape [{}]: found {} positions and {} frequencies, "
        "expected one position per row and at most head_dim / 2 frequencies. "
        "Pass matching spans.",
        fmt::join(x.shape(), ", "),
        positions.size(),
        shape.half);
  }
  const mx::array in = io::materialize(x);
  mx::array out = io::make_array(x.shape(), mx::float32);
  const std::size_t width = shape.n_heads * shape.head_dim;
  const float* source = io::floats(in).data();
  float* target = io::mutable_floats(out).data();
  parallel_for(
      rows,
      std::max<std::size_t>(1, kGrain / std::max<std::size_t>(1, width)),
      [&](std::size_t begin, std::size_t end) {
        cpu::rope(
            source + begin * width,
            positions.data() + begin,
            rope.inverse_frequencies.data(),
            end - begin,
            shape,
            target + begin * width);
      });
  return out;
}

} // namespace optiq::kernels
