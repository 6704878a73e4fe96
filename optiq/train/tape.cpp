#include "optiq/train/tape.h"

#include <algorithm>
#include <numeric>

#include "optiq/base/error.h"

namespace optiq::train {
namespace {

// What the scratch states of delta nets are taken from the system by.
constexpr std::size_t kStateRegion = std::size_t{1} << 20;

/** The updates, those that follow each other with the same tensors as one. */
std::vector<kernels::LowRankUpdate> merged(
    std::span<const kernels::LowRankUpdate> updates) {
  std::vector<kernels::LowRankUpdate> all;
  for (const kernels::LowRankUpdate& update : updates) {
    if (!all.empty() && all.back().a.id() == update.a.id() &&
        all.back().b.id() == update.b.id() &&
        all.back().scale == update.scale &&
        all.back().first_row + all.back().rows == update.first_row) {
      all.back().rows += update.rows;
    } else {
      all.push_back(update);
    }
  }
  return all;
}

/** The rows of the segments, without their blocks. */
std::vector<kernels::Segment> whole_sequences(
    const char* function,
    std::span<const kernels::Segment> segments) {
  std::vector<kernels::Segment> all;
  for (const kernels::Segment& segment : segments) {
    if (segment.start != 0) {
      fail(
          ErrorKind::Unsupported,
          "[{}] segment at row {}: found position {}, expected 0: a tape "
          "differentiates whole sequences.",
          function,
          segment.first_row,
          segment.start);
    }
    all.push_back({.first_row = segment.first_row, .rows = segment.rows});
  }
  return all;
}

/** A layer's rule where the K/V are those of `owner`, by whom they were normed.
 */
kernels::AttentionRule rule_of_reader(
    kernels::AttentionRule rule,
    const kernels::AttentionRule& owner) {
  rule.k_norm = owner.k_norm;
  rule.v_norm = owner.v_norm;
  return rule;
}

/** What names the layer whose K/V these segments hold. */
kernels::BlockId first_block(std::span<const kernels::Segment> segments) {
  const auto found = std::find_if(
      segments.begin(), segments.end(), [](const kernels::Segment& segment) {
        return !segment.blocks.empty();
      });
  return found == segments.end() ? kernels::BlockId::None
                                 : found->blocks.front();
}

/** Zeroed states of some sequences, given back at the end. */
class ScratchStates {
 public:
  ScratchStates(
      kernels::BlockStore& store,
      std::size_t bytes,
      std::span<const kernels::Segment> sequences)
      : store_(store),
        bytes_(bytes),
        segments_(sequences.begin(), sequences.end()) {
    for (std::size_t i = 0; i < segments_.size(); ++i) {
      blocks_.push_back(store_.take(bytes_));
      if (blocks_.back() == kernels::BlockId::None) {
        blocks_.pop_back();
        give_back();
        fail(
            ErrorKind::Exhausted,
            "[gated_delta_net] no memory for the states of {} sequences of {} "
            "bytes each. Free some RAM or use smaller batches.",
            segments_.size(),
            bytes_);
      }
    }
    for (std::size_t i = 0; i < segments_.size(); ++i) {
      segments_[i].blocks = {&blocks_[i], 1};
    }
  }
  ~ScratchStates() {
    give_back();
  }
  ScratchStates(const ScratchStates&) = delete;
  ScratchStates& operator=(const ScratchStates&) = delete;

  std::span<const kernels::Segment> segments() const {
    return segments_;
  }

 private:
  void give_back() {
    for (const kernels::BlockId block : blocks_) {
      store_.give(block, bytes_);
    }
    blocks_.clear();
  }

  kernels::BlockStore& store_;
  std::size_t bytes_;
  std::vector<kernels::Segment> segments_;
  std::vector<kernels::BlockId> blocks_;
};

} // namespace

Tape::Tape(kernels::Device& device)
    : device_(device),
      gradients_(device.gradients()),
      states_(device.make_block_store(kStateRegion)) {}

void Tape::forget() {
  records_.clear();
  wanted_.clear();
  gradients_of_.clear();
  kv_.clear();
  kv_gradients_.clear();
  is_noting_ = false;
}

void Tape::watch(const mx::array& x) {
  wanted_.insert(x.id());
}

void Tape::add_gradient(const mx::array& x, const mx::array& gradient) {
  const auto [at, is_first] = gradients_of_.try_emplace(x.id(), gradient);
  if (!is_first) {
    at->second = device_.add(at->second, gradient);
  }
}

void Tape::go_back(std::size_t position) {
  is_noting_ = false;
  while (records_.size() > position) {
    const Record record = std::move(records_.back());
    records_.pop_back();
    wanted_.erase(record.y.id());
    const auto found = gradients_of_.extract(record.y.id());
    if (!found.empty()) {
      record.backward(found.mapped());
    }
  }
}

std::optional<mx::array> Tape::take_gradient(const mx::array& x) {
  wanted_.erase(x.id());
  const auto found = gradients_of_.extract(x.id());
  return found.empty() ? std::nullopt : std::optional(found.mapped());
}

mx::array Tape::noted(bool is_needed, const mx::array& y, Backward backward) {
  // An operation that changed nothing gave back what it got.
  if (is_needed && !wanted_.contains(y.id())) {
    wanted_.insert(y.id());
    records_.push_back({y, std::move(backward)});
  }
  return y;
}

void Tape::pass(
    const mx::array& x,
    const std::function<mx::array()>& gradient) {
  if (wanted_.contains(x.id())) {
    add_gradient(x, gradient());
  }
}

// --- views and small moves

mx::array Tape::reshape(const mx::array& x, const mx::Shape& shape) {
  return noted(
      is_wanted(x), device_.reshape(x, shape), [this, x](const mx::array& dy) {
        add_gradient(x, device_.reshape(dy, x.shape()));
      });
}

mx::array Tape::row_range(const mx::array& x, int begin, int n) {
  return noted(
      is_wanted(x),
      device_.row_range(x, begin, n),
      [this, x, begin, n](const mx::array& dy) {
        std::vector<int> rows(n);
        std::iota(rows.begin(), rows.end(), begin);
        add_gradient(x, gradients_.take_rows(dy, rows, x.shape(0)));
      });
}

mx::array Tape::take_rows(const mx::array& x, std::span<const int> rows) {
  return noted(
      is_wanted(x),
      device_.take_rows(x, rows),
      [this, x, taken = std::vector(rows.begin(), rows.end())](
          const mx::array& dy) {
        add_gradient(x, gradients_.take_rows(dy, taken, x.shape(0)));
      });
}

mx::array Tape::concatenate(std::span<const mx::array> parts) {
  const std::vector<mx::array> all(parts.begin(), parts.end());
  const bool is_needed =
      std::any_of(all.begin(), all.end(), [this](const mx::array& part) {
        return is_wanted(part);
      });
  return noted(
      is_needed, device_.concatenate(parts), [this, all](const mx::array& dy) {
        int at = 0;
        for (const mx::array& part : all) {
          const int n = part.shape(0);
          pass(part, [&] { return device_.row_range(dy, at, n); });
          at += n;
        }
      });
}

mx::array Tape::columns(const mx::array& x, int begin, int width) {
  return noted(
      is_wanted(x),
      device_.columns(x, begin, width),
      [this, x, begin](const mx::array& dy) {
        add_gradient(x, gradients_.columns(dy, begin, x.shape(1)));
      });
}

// --- products

std::vector<mx::array> Tape::multiply(
    const mx::array& x,
    const kernels::Product& product) {
  const bool is_noted = is_needed(x, product);
  if (!is_noted && !drops_out(product)) {
    return device_.multiply(x, product);
  }
  // Step by step, so that what lies between the steps is there on the way back.
  const mx::array rows =
      product.norm == nullptr ? x : normalize(x, *product.norm);
  kernels::Product products = product;
  products.norm = nullptr;
  products.activation.reset();
  const std::vector<mx::array> y = drops_out(product)
      ? multiply_dropped(rows, products)
      : device_.multiply(rows, products);
  for (std::size_t i = 0; is_noted && i < y.size(); ++i) {
    note_projection(rows, product.projections[i], product.residual, y[i]);
  }
  return product.activation
      ? std::vector<mx::array>{glu(y[0], y[1], *product.activation)}
      : y;
}

bool Tape::drops_out(const kernels::Product& product) const {
  return dropout_.is_on() &&
      std::any_of(
             product.projections.begin(),
             product.projections.end(),
             [](const kernels::Projection& projection) {
               return !projection.updates.empty();
             });
}

std::vector<mx::array> Tape::multiply_dropped(
    const mx::array& x,
    const kernels::Product& product) {
  kernels::Product base = product;
  for (kernels::Projection& projection : base.projections) {
    projection.updates = {};
  }
  std::vector<mx::array> y = device_.multiply(x, base);
  for (std::size_t i = 0; i < y.size(); ++i) {
    for (const auto& update : merged(product.projections[i].updates)) {
      const mx::array inner =
          device_.scale(through(input_of(x, update), update.a), update.scale);
      const mx::array added = gradients_.multiply(
          inner, device_.dense(update.b)); // B lies [r, out]
      y[i] = device_.add(y[i], spread(added, update, x.shape(0)));
    }
  }
  return y;
}

mx::array Tape::input_of(
    const mx::array& x,
    const kernels::LowRankUpdate& update) {
  const mx::array rows = device_.row_range(x, update.first_row, update.rows);
  return dropout_.is_on()
      ? dropout_.apply(device_, rows, update.a, update.first_row)
      : rows;
}

mx::array Tape::through(const mx::array& x, const mx::array& weight) {
  const kernels::Matrix matrix = device_.dense(weight);
  kernels::Product product;
  product.projections = {{.weight = &matrix}};
  product.compute = kernels::Compute::Exact;
  return device_.multiply(x, product).front();
}

mx::array Tape::spread(
    const mx::array& rows,
    const kernels::LowRankUpdate& update,
    int n) {
  if (update.rows == n) {
    return rows;
  }
  std::vector<int> at(update.rows);
  std::iota(at.begin(), at.end(), update.first_row);
  return gradients_.take_rows(rows, at, n);
}

bool Tape::is_needed(const mx::array& x, const kernels::Product& product)
    const {
  if (!is_noting_) {
    return false;
  }
  bool is_needed = visitor_ != nullptr || is_wanted(x) ||
      (product.residual != nullptr && is_wanted(*product.residual));
  for (const kernels::Projection& projection : product.projections) {
    for (const kernels::LowRankUpdate& update : projection.updates) {
      is_needed = is_needed || is_wanted(update.a) || is_wanted(update.b);
    }
  }
  return is_needed;
}

void Tape::note_projection(
    const mx::array& x,
    const kernels::Projection& projection,
    const mx::array* residual,
    const mx::array& y) {
  noted(
      true,
      y,
      [this,
       x,
       rest = residual == nullptr ? std::nullopt : std::optional(*residual),
       weight = *projection.weight,
       updates = merged(projection.updates)](const mx::array& dy) {
        if (visitor_) {
          visitor_({.weight = weight, .x = &x, .dy = dy});
        }
        if (rest) {
          pass(*rest, [&] { return dy; });
        }
        pass(x, [&] { return gradients_.multiply(dy, weight); });
        for (const kernels::LowRankUpdate& update : updates) {
          pass_update(x, update, dy);
        }
      });
}

void Tape::pass_update(
    const mx::array& x,
    const kernels::LowRankUpdate& update,
    const mx::array& dy) {
  const mx::array rows = input_of(x, update);
  const mx::array dout = device_.row_range(dy, update.first_row, update.rows);
  // y += scale h B with B as it lies, [rank, out], and h = x A^T
  const mx::array dh = device_.scale(through(dout, update.b), update.scale);
  pass(update.b, [&] {
    return device_.scale(
        gradients_.outer(through(rows, update.a), dout), update.scale);
  });
  pass(update.a, [&] { return gradients_.outer(dh, rows); });
  pass(x, [&] {
    const mx::array dx = gradients_.multiply(dh, device_.dense(update.a));
    return spread(
        dropout_.is_on()
            ? dropout_.apply(device_, dx, update.a, update.first_row)
            : dx,
        update,
        x.shape(0));
  });
}

mx::array Tape::embed(
    std::span<const std::int32_t> ids,
    const kernels::Matrix& weight,
    float scale) {
  return noted(
      is_noting_ && visitor_ != nullptr,
      device_.embed(ids, weight, scale),
      [this, weight, scale, looked_up = std::vector(ids.begin(), ids.end())](
          const mx::array& dy) {
        const mx::array scaled = device_.scale(dy, scale);
        visitor_({.weight = weight, .ids = looked_up, .dy = scaled});
      });
}

// --- row by row

mx::array Tape::normalize(const mx::array& x, const kernels::Norm& norm) {
  return noted(
      is_wanted(x),
      device_.normalize(x, norm),
      [this, x, norm](const mx::array& dy) {
        add_gradient(x, gradients_.normalize(dy, x, norm));
      });
}

mx::array Tape::add(const mx::array& a, const mx::array& b) {
  return noted(
      is_wanted(a) || is_wanted(b),
      device_.add(a, b),
      [this, a, b](const mx::array& dy) {
        pass(a, [&] { return dy; });
        pass(b, [&] { return dy; });
      });
}

mx::array Tape::scale(const mx::array& x, float factor) {
  return noted(
      is_wanted(x),
      device_.scale(x, factor),
      [this, x, factor](const mx::array& dy) {
        add_gradient(x, device_.scale(dy, factor));
      });
}

mx::array Tape::glu(
    const mx::array& gate,
    const mx::array& up,
    kernels::Activation activation) {
  return noted(
      is_wanted(gate) || is_wanted(up),
      device_.glu(gate, up, activation),
      [this, gate, up, activation](const mx::array& dy) {
        const auto d = gradients_.glu(dy, gate, up, activation);
        pass(gate, [&] { return d.first; });
        pass(up, [&] { return d.second; });
      });
}

mx::array Tape::softcap(const mx::array& x, float cap) {
  const mx::array y = device_.softcap(x, cap);
  return noted(is_wanted(x), y, [this, x, y, cap](const mx::array& dy) {
    add_gradient(x, gradients_.softcap(dy, y, cap));
  });
}

// --- sequences

mx::array Tape::attend(
    const mx::array& q,
    const mx::array& k,
    const mx::array& v,
    const kernels::AttentionRule& rule,
    std::span<const kernels::Segment> segments,
    const kernels::KvFormat& format) {
  const std::vector<kernels::Segment> sequences =
      whole_sequences("attend", segments);
  const bool is_own = k.shape(0) > 0 || q.shape(0) == 0;
  const kernels::BlockId layer = first_block(segments);
  if (is_own && keeps_kv_) {
    kv_.insert_or_assign(layer, KeysAndValues{k, v, rule});
  }
  mx::array y = device_.attend(q, k, v, rule, segments, format);
  if (!is_wanted(q) && !is_wanted(k) && !is_wanted(v)) {
    return y;
  }
  KeysAndValues read = is_own ? KeysAndValues{k, v, rule} : kv_.at(layer);
  read.rule = rule_of_reader(rule, read.rule);
  return noted(true, y, [=, this, window = format.window](const mx::array& dy) {
    kernels::AttentionGradients d =
        gradients_.attend(dy, q, read.k, read.v, read.rule, sequences, window);
    pass(q, [&] { return d.q; });
    const auto later = kv_gradients_.extract(layer);
    if (!later.empty()) { // of layers behind this one
      d.k = device_.add(later.mapped().k, d.k);
      d.v = device_.add(later.mapped().v, d.v);
    }
    if (is_own) {
      pass(k, [&] { return d.k; });
      pass(v, [&] { return d.v; });
    } else {
      kv_gradients_.insert({layer, {d.k, d.v}});
    }
  });
}

mx::array Tape::gated_delta_net(
    const kernels::DeltaNetInput& input,
    const kernels::DeltaNetWeights& weights,
    const kernels::DeltaNetShape& shape,
    std::span<const kernels::Segment> segments) {
  const std::vector<kernels::Segment> sequences =
      whole_sequences("gated_delta_net", segments);
  const ScratchStates states(
      *states_,
      (shape.state_floats() + shape.conv_floats()) * sizeof(float),
      sequences);
  const bool is_needed = is_wanted(input.qkv) || is_wanted(input.z) ||
      is_wanted(input.b) || is_wanted(input.a);
  return noted(
      is_needed,
      device_.gated_delta_net(input, weights, shape, states.segments()),
      [=, this](const mx::array& dy) {
        const kernels::DeltaNetInput d =
            gradients_.gated_delta_net(dy, input, weights, shape, sequences);
        pass(input.qkv, [&] { return d.qkv; });
        pass(input.z, [&] { return d.z; });
        pass(input.b, [&] { return d.b; });
        pass(input.a, [&] { return d.a; });
      });
}

} // namespace optiq::train
