#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include "optiq/kernels/cuda/driver.h"

namespace optiq::kernels::cuda {

/** A kernel and how it is launched, but for its arguments. */
struct Launch {
  const char* kernel = nullptr; // its name, which lives as long as the queue
  Function function = nullptr;
  std::array<unsigned, 3> grid{1, 1, 1};
  unsigned threads = 1;
  unsigned shared_bytes = 0;
};

/**
 * Kernels on their way to a stream, in order. One by one a launch costs the
 * host some 3 us; those of a graph cost a tenth of it. So launches are kept
 * until there are enough of them, more and more while the card is busy with the
 * ones before, or until `send`: whoever uses the stream otherwise, or gives
 * memory back to the driver, calls that first.
 *
 * A graph is made of the launches at hand, whatever they are, and brings an
 * executable graph of as many kernels up to date, so that none runs with what
 * another step had. One thread at a time.
 */
class LaunchQueue {
 public:
  /** `overlaps`: kernels wait for the ones before by themselves. */
  LaunchQueue(const Driver& driver, Stream stream, bool overlaps);
  ~LaunchQueue();
  LaunchQueue(const LaunchQueue&) = delete;
  LaunchQueue& operator=(const LaunchQueue&) = delete;

  /** Copies the kernel's only argument, of so many bytes. */
  void add(const Launch& launch, const void* arguments, std::size_t bytes);
  /** All that was added goes to the stream. */
  void send();
  /** The stream has nothing left to do: the next launches are urgent. */
  void note_idle() {
    n_sent_ = 0;
  }

 private:
  struct Pending {
    Launch launch;
    std::size_t arguments = 0; // offset
  };
  void start(const Pending& pending);
  void start_all();
  void start_graph();
  GraphExec updated_graph(Graph graph);
  void release_graphs();

  const Driver& driver_;
  Stream stream_;
  bool overlaps_;
  std::vector<Pending> pending_;
  std::vector<std::max_align_t> arguments_; // of what is pending
  std::size_t n_sent_ = 0; // times, since the stream was idle
  /** By how often something was sent before, and by the number of kernels: one
   * of a step is not brought up to date while it runs. */
  std::map<std::pair<std::size_t, std::size_t>, GraphExec> graphs_;
};

} // namespace optiq::kernels::cuda
