#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

/**
 * NVIDIA's driver, opened at run time: what is used of its interface (the
 * driver API of CUDA 13, docs.nvidia.com/cuda/cuda-driver-api), declared here,
 * so that neither building nor running needs anything of CUDA's.
 */
namespace optiq::kernels::cuda {

using Result = int; // CUresult; 0 is success
using CardHandle = int; // CUdevice
using DevicePointer = std::uint64_t; // CUdeviceptr
using Context = struct ContextOfDriver*;
using Stream = struct StreamOfDriver*;
using Event = struct EventOfDriver*;
using Module = struct ModuleOfDriver*;
using Function = struct FunctionOfDriver*;
using Graph = struct GraphOfDriver*;
using GraphExec = struct GraphExecOfDriver*;

inline constexpr Result kOutOfMemory = 2;

/** CUdevice_attribute. */
enum class Attribute : int {
  Multiprocessors = 16,
  Major = 75, // of the compute capability
  Minor = 76,
  SharedPerBlock = 97, // bytes, for kernels that ask
};

/** CUfunction_attribute: bytes of shared memory that a launch may ask for. */
inline constexpr int kMaxDynamicShared = 8;

/** CUlaunchAttribute: that a kernel may start before those ahead of it are
 * done, as one does that waits for them by itself. */
struct alignas(8) LaunchAttribute {
  int id = 6; // programmatic stream serialization
  char pad[4] = {};
  int is_allowed = 1;
  char rest[60] = {};
};

/** CUlaunchConfig. */
struct LaunchConfig {
  unsigned grid_x = 1;
  unsigned grid_y = 1;
  unsigned grid_z = 1;
  unsigned block_x = 1;
  unsigned block_y = 1;
  unsigned block_z = 1;
  unsigned shared_bytes = 0;
  Stream stream = nullptr;
  const LaunchAttribute* attributes = nullptr;
  unsigned n_attributes = 0;
};

/** CUgraphExecUpdateResultInfo. */
struct GraphUpdate {
  int result = 0;
  const void* node = nullptr;
  const void* from_node = nullptr;
};

/** The functions, all there. */
struct Driver {
  Result (*init)(unsigned flags);
  Result (*driver_version)(int* version); // 1000 major + 10 minor
  Result (*error_name)(Result error, const char** name);
  Result (*error_text)(Result error, const char** text);
  Result (*card_count)(int* count);
  Result (*card)(CardHandle* card, int index);
  Result (*card_name)(char* name, int size, CardHandle card);
  Result (*card_attribute)(int* value, int attribute, CardHandle card);
  Result (*card_memory)(std::size_t* bytes, CardHandle card);
  Result (*retain_context)(Context* context, CardHandle card);
  Result (*set_context)(Context context);
  Result (*memory_info)(std::size_t* free_bytes, std::size_t* total_bytes);
  Result (*allocate)(DevicePointer* address, std::size_t bytes);
  Result (*release)(DevicePointer address);
  Result (*allocate_host)(void** address, std::size_t bytes, unsigned flags);
  Result (*release_host)(void* address);
  Result (*copy_in)(
      DevicePointer to,
      const void* from,
      std::size_t bytes,
      Stream stream);
  Result (*copy_out)(
      void* to,
      DevicePointer from,
      std::size_t bytes,
      Stream stream);
  Result (*copy_within)(
      DevicePointer to,
      DevicePointer from,
      std::size_t bytes,
      Stream stream);
  Result (*fill)(
      DevicePointer to,
      unsigned char value,
      std::size_t bytes,
      Stream stream);
  Result (*create_stream)(Stream* stream, unsigned flags);
  Result (*synchronize)(Stream stream);
  Result (*create_event)(Event* event, unsigned flags);
  Result (*record_event)(Event event, Stream stream);
  Result (*elapsed_ms)(float* milliseconds, Event begin, Event end);
  Result (*release_event)(Event event);
  Result (*load_module)(Module* module, const void* image);
  Result (*count_functions)(unsigned* count, Module module);
  Result (*list_functions)(Function* functions, unsigned count, Module module);
  Result (*function_name)(const char** name, Function function);
  Result (*set_function)(Function function, int attribute, int value);
  Result (*launch)(
      const LaunchConfig* config,
      Function function,
      void** arguments,
      void** extra);
  Result (*begin_capture)(Stream stream, int mode);
  Result (*end_capture)(Stream stream, Graph* graph);
  Result (*instantiate)(
      GraphExec* executable,
      Graph graph,
      unsigned long long flags);
  Result (
      *update_graph)(GraphExec executable, Graph graph, GraphUpdate* update);
  Result (*launch_graph)(GraphExec executable, Stream stream);
  Result (*release_graph)(Graph graph);
  Result (*release_graph_exec)(GraphExec executable);
};

/** The driver of this machine, ready to use. Throws NotFound without one, and
 * Unsupported for one that is too old, in its words where it has some. */
const Driver& system_driver();

/** The same from a library of this name. */
Driver open_driver(const char* library);

/** Throws unless `result` is success: Exhausted where memory ended, otherwise
 * Internal. `what` is what was asked for, for the message. */
void check(const Driver& driver, Result result, std::string_view what);

} // namespace optiq::kernels::cuda
