#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <mlx/array.h>

#include "optiq/kernels/cuda/driver.h"
#include "optiq/kernels/cuda/launch_queue.h"
#include "optiq/kernels/cuda/memory.h"
#include "optiq/kernels/profile.h"

namespace optiq::kernels::cuda {

namespace mx = mlx::core;
using kernels::OpProfile;

/** How many blocks of how many threads, and the bytes of shared memory that
 * each asks for beside what its kernel declares. */
struct Grid {
  std::size_t x = 1;
  std::size_t y = 1;
  std::size_t z = 1;
  unsigned threads = 128;
  std::size_t shared_bytes = 0;
  /** What a profile says of a product: its sizes, and the bytes of weights. */
  int in = 0;
  int out = 0;
  int bits = 0;
  std::uint64_t bytes = 0;
};

/** What is said of a card. */
struct CardInfo {
  int index = 0;
  std::string name;
  int major = 0; // compute capability
  int minor = 0;
  int multiprocessors = 0;
  std::size_t shared_bytes = 0; // that a block of threads may have
  std::uint64_t total_bytes = 0;
};

/** Numbers that travel to a card in one copy. */
class Parcel {
 public:
  /** Where the numbers will lie, from the parcel's begin. */
  template <class T>
  std::size_t add(std::span<const T> values) {
    return add_bytes(std::as_bytes(values));
  }
  std::span<const std::byte> bytes() const {
    return bytes_;
  }

 private:
  std::size_t add_bytes(std::span<const std::byte> values);

  std::vector<std::byte> bytes_;
};

/**
 * One card: a context, a stream on which everything runs in order, memory, the
 * kernels, and the arrays that lie there. An mx::array of a card is a handle:
 * its data is an entry of a table of this card's, which no one else reads. One
 * thread at a time; handles may end on any.
 */
class Card {
 public:
  /** Opens a card. Throws NotFound for an index that is not there, Unsupported
   * for a card that the kernels do not run on. `images` outlive the card. */
  Card(
      const Driver& driver,
      int index,
      std::span<const std::string_view> images);
  Card(const Card&) = delete;
  Card& operator=(const Card&) = delete;

  const CardInfo& info() const {
    return info_;
  }
  const Memory& memory() const {
    return *memory_;
  }
  /** Of which this thread may take. */
  Memory& memory() {
    use();
    return *memory_;
  }

  // --- work on the stream ----------------------------------------------------

  /** Starts a kernel with its struct of arguments.h; none for an empty grid. It
   * may wait on the host until the stream is used otherwise. */
  template <class Arguments>
  void
  launch(const char* kernel, const Grid& grid, const Arguments& arguments) {
    launch_with(kernel, grid, &arguments, sizeof(Arguments));
  }
  /** What was asked for is on its way, all of it. */
  void send();
  void copy_in(DevicePointer to, const void* from, std::size_t bytes);
  void copy_out(void* to, DevicePointer from, std::size_t bytes);
  void copy_within(DevicePointer to, DevicePointer from, std::size_t bytes);
  void fill_zero(DevicePointer to, std::size_t bytes);
  Buffer send(const Parcel& parcel);
  /** At least n zeros, 32 bits each, that every kernel leaves as they were. */
  DevicePointer counters(std::size_t n);
  /** Waits until everything is done; what went wrong shows here. */
  void synchronize();
  /** Bytes read per second by a kernel that does nothing else; best of
   * `repeats`. */
  double measure_read_bandwidth(std::size_t bytes, int repeats);

  // --- arrays ----------------------------------------------------------------

  /** A new array, whatever it holds. */
  mx::array make_array(const mx::Shape& shape, mx::Dtype dtype = mx::float32);
  /** Elements of x from `offset` on under another shape. */
  mx::array
  view(const mx::array& x, std::size_t offset, const mx::Shape& shape);
  /** Where x lies. Throws InvalidInput for an array of anyone else's. */
  DevicePointer address(const char* function, const mx::array& x) const;
  /** Whether x is one of this card's. */
  bool holds(const mx::array& x) const;
  /** Of one that is: its memory from where it lies. */
  Buffer buffer_of(const mx::array& x) const;

 private:
  /** What an array of this card has for data. MLX looks at the bytes before. */
  struct Handle {
    std::byte before[64] = {};
    DevicePointer address = 0;
    Buffer buffer;
  };
  mx::array
  hand_out(DevicePointer address, Buffer buffer, const mx::Shape&, mx::Dtype);
  const Handle* find_handle(const mx::array& x) const;
  const Handle& handle_of(const char* function, const mx::array& x) const;
  void launch_with(
      const char* kernel,
      const Grid& grid,
      const void* arguments,
      std::size_t bytes);
  /** Seconds of the stream's work between two marks. */
  template <class F>
  double seconds_of(const F& work);
  void load_kernels(std::string_view image);
  Launch launch_of(const char* kernel, const Grid& grid);
  void use();

  struct Kernel {
    Function function = nullptr;
    std::size_t shared_bytes = 0; // that a launch may ask for
  };

  const Driver& driver_;
  CardInfo info_;
  Context context_ = nullptr;
  Stream stream_ = nullptr;
  Event begin_ = nullptr; // marks of timed work, made when first asked for
  Event end_ = nullptr;
  std::unordered_map<std::string_view, Kernel> kernels_; // by name
  std::unique_ptr<LaunchQueue> queue_;
  std::unique_ptr<Memory> memory_;
  Buffer counters_;
  std::size_t n_counters_ = 0;
  mutable std::mutex mutex_; // guards handles_
  /** By what arrays have for data. */
  std::unordered_map<const void*, const Handle*> handles_;
};

/** The cards of a driver, without opening one. */
std::vector<CardInfo> list_cards(const Driver& driver);

} // namespace optiq::kernels::cuda
