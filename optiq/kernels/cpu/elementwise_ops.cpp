#include <algorithm>
#include <cstddef>
#include <numeric>

#include "optiq/base/thread_pool.h"
#include "optiq/kernels/checks_impl.h"
#include "optiq/kernels/cpu/elementwise.h"
#include "optiq/kernels/cpu/operations.h"
#include "optiq/kernels/profile.h"
#include "optiq/kernels/shape_checks_impl.h"

namespace optiq::kernels::cpu {
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

using RowsNorm = void (*)(
    const float*,
    const float*,
    float,
    std::size_t,
    std::size_t,
    float*);

mx::array normalize_rows(
    const char* name,
    const mx::array& x,
    const mx::array& weight,
    float eps,
    RowsNorm kernel) {
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

/** x turned at its positions, or back. */
mx::array turn(
    const mx::array& x,
    std::span<const std::int32_t> positions,
    const Rope& rule,
    bool is_inverse) {
  const OpTimer timer("rope");
  require_rank("rope", "x", x, 3);
  const std::size_t rows = x.shape(0);
  const RopeShape shape{
      .n_heads = static_cast<std::size_t>(x.shape(1)),
      .head_dim = static_cast<std::size_t>(x.shape(2)),
      .half = rule.inverse_frequencies.size(),
      .is_interleaved = rule.is_interleaved,
      .is_inverse = is_inverse,
      .scale = rule.scale};
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
  if (!uses_table(rule, positions)) {
    for (std::size_t row = 0; row < rows; ++row) {
      rope(
          source + row * width,
          positions.data() + row,
          frequencies_at(rule, positions[row]).data(),
          1,
          shape,
          target + row * width);
    }
    return out;
  }
  parallel_for(
      rows,
      std::max<std::size_t>(1, kGrain / std::max<std::size_t>(1, width)),
      [&](std::size_t begin, std::size_t end) {
        rope(
            source + begin * width,
            positions.data() + begin,
            rule.inverse_frequencies.data(),
            end - begin,
            shape,
            target + begin * width);
      });
  return out;
}

} // namespace

mx::array normalize(const mx::array& x, const Norm& norm) {
  if (!norm.is_layer_norm) {
    return normalize_rows("rms_norm", x, norm.weight, norm.eps, rms_norm);
  }
  const mx::array y =
      normalize_rows("layer_norm", x, norm.weight, norm.eps, layer_norm);
  return norm.bias ? add_bias(y, *norm.bias) : y;
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
          add(source + t * width, row, width, target + t * width);
        }
      });
  return out;
}

mx::array add(const mx::array& a, const mx::array& b) {
  return zip("add", a, b, add);
}

mx::array scale(const mx::array& x, float factor) {
  if (factor == 1.f) {
    return x;
  }
  const OpTimer timer("scale");
  const mx::array in = require_floats("scale", "x", x, x.shape());
  mx::array out = io::make_array(x.shape(), mx::float32);
  const float* source = io::floats(in).data();
  float* target = io::mutable_floats(out).data();
  parallel_for(x.size(), kGrain, [&](std::size_t begin, std::size_t end) {
    std::transform(source + begin, source + end, target + begin, [=](float v) {
      return v * factor;
    });
  });
  return out;
}

mx::array
glu(const mx::array& gate, const mx::array& up, Activation activation) {
  return activation == Activation::Silu ? zip("swiglu", gate, up, swiglu)
                                        : zip("geglu", gate, up, geglu);
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
    softcap(source + begin, cap, end - begin, target + begin);
  });
  return out;
}

mx::array sum_squares(const mx::array& x, int width, const mx::array* less) {
  constexpr const char* kFunction = "sum_squares";
  constexpr int kLanes = 8; // sums side by side
  const OpTimer timer(kFunction);
  const mx::Shape shape = summed_shape(kFunction, x, width);
  const mx::array in = require_floats(kFunction, "x", x, x.shape());
  const mx::array other = less != nullptr
      ? require_floats(kFunction, "less", *less, x.shape())
      : in;
  mx::array out = io::make_array(shape, mx::float32);
  const float* source = io::floats(in).data();
  const float* subtracted =
      less != nullptr ? io::floats(other).data() : nullptr;
  float* target = io::mutable_floats(out).data();
  const auto grain = std::max<std::size_t>(1, kGrain / width);
  parallel_for(out.size(), grain, [&](std::size_t begin, std::size_t end) {
    for (std::size_t n = begin; n < end; ++n) {
      const std::size_t first = n * width;
      float lanes[kLanes] = {};
      for (int i = 0; i < width; i += kLanes) {
        const int lanes_left = std::min(kLanes, width - i);
        for (int lane = 0; lane < lanes_left; ++lane) {
          const std::size_t at = first + i + lane;
          const float value =
              source[at] - (subtracted != nullptr ? subtracted[at] : 0.f);
          lanes[lane] += value * value;
        }
      }
      target[n] = std::accumulate(lanes, lanes + kLanes, 0.f);
    }
  });
  return out;
}

mx::array sigmoid_gate(const mx::array& x, const mx::array& gate) {
  return zip("sigmoid_gate", x, gate, sigmoid_gate);
}

mx::array rope(
    const mx::array& x,
    std::span<const std::int32_t> positions,
    const Rope& rule) {
  return turn(x, positions, rule, false);
}

mx::array rope_gradient(
    const mx::array& dy,
    std::span<const std::int32_t> positions,
    const Rope& rule) {
  return turn(dy, positions, rule, true);
}

mx::array columns(const mx::array& x, int begin, int width) {
  require_rank("columns", "x", x, 2);
  const int rows = x.shape(0);
  if (begin < 0 || width < 0 || width > x.shape(1) - begin) {
    fail(
        ErrorKind::InvalidInput,
        "[columns] found columns {} + {}, expected them within the {} of x.",
        begin,
        width,
        x.shape(1));
  }
  const auto stride = static_cast<std::size_t>(x.shape(1));
  const mx::array in = io::materialize(x);
  mx::array y = io::make_array({rows, width}, mx::float32);
  const float* from = io::floats(in).data() + begin;
  float* to = io::mutable_floats(y).data();
  parallel_for(
      rows,
      std::max<std::size_t>(1, 2 * kGrain / std::max(1, width)),
      [=](std::size_t first, std::size_t last) {
        for (std::size_t row = first; row < last; ++row) {
          std::copy_n(from + row * stride, width, to + row * width);
        }
      });
  return y;
}

mx::array concatenate(std::span<const mx::array> parts) {
  if (parts.size() == 1) {
    return parts.front();
  }
  int rows = 0;
  const int width = parts.empty() ? 0 : parts.front().shape(-1);
  for (const mx::array& part : parts) {
    rows += require_floats("concatenate", "part", part, {part.shape(0), width})
                .shape(0);
  }
  mx::array y = io::make_array({rows, width}, mx::float32);
  float* to = io::mutable_floats(y).data();
  for (const mx::array& part : parts) {
    const mx::array in = io::materialize(part);
    to = std::copy_n(io::floats(in).data(), in.size(), to);
  }
  return y;
}

} // namespace optiq::kernels::cpu
