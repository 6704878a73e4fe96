#include "optiq/models/forward.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "optiq/base/thread_pool.h"

namespace optiq::models {
namespace {

/** Whether the segment's sequence is still to be made. */
bool is_fresh(const nn::Segment& segment) {
  return segment.sequence == nullptr;
}

} // namespace

Forward::Forward(const Setup& setup, nn::LinearObserver observer)
    : setup_(setup) {
  context_.device = &setup.model->device();
  context_.compute = setup.compute;
  context_.observer = std::move(observer);
}

Forward& Forward::add(
    cache::Sequence& sequence,
    std::span<const std::int32_t> tokens,
    std::span<const int> wanted,
    const nn::Adapter* adapter) {
  const auto first_row = static_cast<int>(tokens_.size());
  for (const int row : wanted) {
    wanted_.push_back(first_row + row);
  }
  append(&sequence, sequence.length(), tokens, adapter);
  return *this;
}

Forward& Forward::add_fresh(
    std::span<const std::int32_t> tokens,
    const nn::Adapter* adapter) {
  append(nullptr, 0, tokens, adapter);
  return *this;
}

std::size_t Forward::fresh_bytes() const {
  std::size_t bytes = 0;
  for (const nn::Segment& segment : context_.segments) {
    if (is_fresh(segment)) {
      bytes += cache::sequence_bytes(
          setup_.layout, static_cast<std::size_t>(segment.rows));
    }
  }
  return bytes;
}

mx::array Forward::run() {
  const Model& model = *setup_.model;
  const auto run_all = [&] {
    const ThreadPool::Turn turn(ThreadPool::shared());
    prepare();
    const int last = model.info().n_layers - 1;
    const mx::array x = run_layers(0, last, model.embed(tokens_));
    return logits(model.run_last_layer(x, wanted_, context_), wanted_);
  };
  mx::array result = run_all();
  finish(result); // may wait for the device: whose turn it is does not matter
  return result;
}

mx::array Forward::hidden_states() {
  prepare();
  const Model& model = *setup_.model;
  mx::array x = run_layers(0, model.info().n_layers, model.embed(tokens_));
  finish(x);
  return x;
}

mx::array Forward::run_layers(int first, int end, mx::array x) {
  return run_layers(*setup_.model, first, end, std::move(x));
}

mx::array
Forward::run_layers(const Model& part, int first, int end, mx::array x) {
  const ThreadPool::Turn turn(ThreadPool::shared());
  prepare();
  for (int layer = first; layer < end; ++layer) {
    x = part.run_layer(layer, x, context_);
  }
  return x;
}

mx::array Forward::logits(const mx::array& x, std::span<const int> wanted)
    const {
  return setup_.model->logits(x, nn::context_of_rows(context_, wanted));
}

void Forward::append(
    cache::Sequence* sequence,
    int start,
    std::span<const std::int32_t> tokens,
    const nn::Adapter* adapter) {
  assert(!is_prepared_);
  const auto rows = static_cast<int>(tokens.size());
  context_.segments.push_back(
      {.sequence = sequence,
       .first_row = static_cast<int>(tokens_.size()),
       .rows = rows,
       .start = start,
       .adapter = adapter != nullptr ? adapter : setup_.adapter.get()});
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void Forward::make_fresh_sequences() {
  const auto& segments = context_.segments;
  if (std::none_of(segments.begin(), segments.end(), is_fresh)) {
    return;
  }
  const auto pool =
      std::make_shared<cache::BlockPool>(fresh_bytes(), setup_.model->device());
  for (nn::Segment& segment : context_.segments) {
    if (is_fresh(segment)) {
      fresh_.push_back(std::make_unique<cache::Sequence>(pool, setup_.layout));
      segment.sequence = fresh_.back().get();
    }
  }
}

void Forward::prepare() {
  if (is_prepared_) {
    return;
  }
  make_fresh_sequences();
  for (const nn::Segment& segment : context_.segments) {
    segment.sequence->reserve(segment.start + segment.rows);
  }
  context_.layer_inputs = setup_.model->layer_inputs(tokens_, context_);
  is_prepared_ = true;
}

void Forward::finish(const mx::array& result) {
  setup_.model->device().finish({&result, 1});
  for (const nn::Segment& segment : context_.segments) {
    segment.sequence->commit(segment.rows);
  }
}

mx::array logits_of(const Setup& setup, const mx::array& hidden) {
  nn::ForwardContext context;
  context.device = &setup.model->device();
  context.compute = setup.compute;
  context.segments = {
      {.rows = hidden.shape(0), .adapter = setup.adapter.get()}};
  return setup.model->logits(hidden, context);
}

} // namespace optiq::models
