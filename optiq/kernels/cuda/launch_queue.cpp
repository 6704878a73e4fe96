#include "optiq/kernels/cuda/launch_queue.h"

#include <algorithm>
#include <cstring>

namespace optiq::kernels::cuda {
namespace {

// Fewer are launched one by one: a graph of its own costs some 3 us.
constexpr std::size_t kFewest = 4;
// Kernels that are kept before they are sent, so many more each time: a kernel
// of a small model takes the card little longer than the host, and the card is
// to have work while the host prepares more.
constexpr std::size_t kStep = 4;
constexpr std::size_t kMost = 64;
// Places of a step whose graphs are kept apart.
constexpr std::size_t kPlaces = 16;
// Executable graphs that are kept: steps alike have the same ones.
constexpr std::size_t kMostGraphs = 256;

std::size_t most_pending(std::size_t n_sent) {
  return std::min(kMost, kStep * (n_sent + 1));
}

} // namespace

LaunchQueue::LaunchQueue(const Driver& driver, Stream stream, bool overlaps)
    : driver_(driver), stream_(stream), overlaps_(overlaps) {}

LaunchQueue::~LaunchQueue() {
  release_graphs();
}

void LaunchQueue::release_graphs() {
  for (const auto& [kind, graph] : graphs_) {
    // One that runs is freed behind that; nobody is to hear of a failure.
    driver_.release_graph_exec(graph);
  }
  graphs_.clear();
}

void LaunchQueue::add(
    const Launch& launch,
    const void* arguments,
    std::size_t bytes) {
  constexpr std::size_t kUnit = sizeof(std::max_align_t);
  const std::size_t at = arguments_.size();
  arguments_.resize(at + (bytes + kUnit - 1) / kUnit);
  std::memcpy(arguments_.data() + at, arguments, bytes);
  pending_.push_back({launch, at});
  if (pending_.size() >= most_pending(n_sent_)) {
    send();
  }
}

void LaunchQueue::send() {
  if (pending_.empty()) {
    return;
  }
  try {
    if (pending_.size() < kFewest) {
      start_all();
    } else {
      start_graph();
    }
  } catch (...) {
    pending_.clear();
    arguments_.clear();
    throw;
  }
  pending_.clear();
  arguments_.clear();
  ++n_sent_;
}

void LaunchQueue::start(const Pending& pending) {
  const Launch& launch = pending.launch;
  void* arguments = arguments_.data() + pending.arguments;
  static constexpr LaunchAttribute kBesideTheLast;
  const LaunchConfig config{
      .grid_x = launch.grid[0],
      .grid_y = launch.grid[1],
      .grid_z = launch.grid[2],
      .block_x = launch.threads,
      .shared_bytes = launch.shared_bytes,
      .stream = stream_,
      .attributes = &kBesideTheLast,
      .n_attributes = overlaps_ ? 1u : 0u};
  check(
      driver_,
      driver_.launch(&config, launch.function, &arguments, nullptr),
      launch.kernel);
}

void LaunchQueue::start_all() {
  for (const Pending& pending : pending_) {
    start(pending);
  }
}

void LaunchQueue::start_graph() {
  // Other threads may do with the driver what they want meanwhile.
  constexpr int kRelaxed = 2;
  check(driver_, driver_.begin_capture(stream_, kRelaxed), "beginning a graph");
  Graph graph = nullptr;
  try {
    start_all();
  } catch (...) {
    driver_.end_capture(stream_, &graph);
    driver_.release_graph(graph);
    throw;
  }
  check(driver_, driver_.end_capture(stream_, &graph), "ending a graph");
  const GraphExec executable = updated_graph(graph);
  driver_.release_graph(graph);
  check(driver_, driver_.launch_graph(executable, stream_), "a graph");
}

GraphExec LaunchQueue::updated_graph(Graph graph) {
  const std::pair kind{n_sent_ % kPlaces, pending_.size()};
  if (graphs_.size() == kMostGraphs && graphs_.count(kind) == 0) {
    release_graphs();
  }
  GraphExec& kept = graphs_[kind];
  if (kept != nullptr) {
    GraphUpdate update;
    if (driver_.update_graph(kept, graph, &update) == 0) {
      return kept;
    }
    driver_.release_graph_exec(kept); // which has other kinds of nodes
    kept = nullptr;
  }
  const Result result = driver_.instantiate(&kept, graph, 0);
  if (result != 0) {
    driver_.release_graph(graph);
    check(driver_, result, "making a graph executable");
  }
  return kept;
}

} // namespace optiq::kernels::cuda
