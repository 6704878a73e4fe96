#include "optiq/kernels/cuda/driver.h"

#include <dlfcn.h>

#include "optiq/base/error.h"

namespace optiq::kernels::cuda {
namespace {

constexpr const char* kLibrary = "libcuda.so.1";
// Kernels are built by CUDA 13.0; older drivers do not load them.
constexpr int kOldestVersion = 13000;

template <class F>
void find(void* library, const char* name, F& function) {
  void* symbol = dlsym(library, name);
  if (symbol == nullptr) {
    fail(
        ErrorKind::Unsupported,
        "[cuda] driver: found no function {}, expected NVIDIA's driver 580 or "
        "newer. Update it, or choose --device cpu.",
        name);
  }
  function = reinterpret_cast<F>(symbol);
}

void find_all(void* library, Driver& d) {
  find(library, "cuInit", d.init);
  find(library, "cuDriverGetVersion", d.driver_version);
  find(library, "cuGetErrorName", d.error_name);
  find(library, "cuGetErrorString", d.error_text);
  find(library, "cuDeviceGetCount", d.card_count);
  find(library, "cuDeviceGet", d.card);
  find(library, "cuDeviceGetName", d.card_name);
  find(library, "cuDeviceGetAttribute", d.card_attribute);
  find(library, "cuDeviceTotalMem_v2", d.card_memory);
  find(library, "cuDevicePrimaryCtxRetain", d.retain_context);
  find(library, "cuCtxSetCurrent", d.set_context);
  find(library, "cuMemGetInfo_v2", d.memory_info);
  find(library, "cuMemAlloc_v2", d.allocate);
  find(library, "cuMemFree_v2", d.release);
  find(library, "cuMemHostAlloc", d.allocate_host);
  find(library, "cuMemFreeHost", d.release_host);
  find(library, "cuMemcpyHtoDAsync_v2", d.copy_in);
  find(library, "cuMemcpyDtoHAsync_v2", d.copy_out);
  find(library, "cuMemcpyDtoDAsync_v2", d.copy_within);
  find(library, "cuMemsetD8Async", d.fill);
  find(library, "cuStreamCreate", d.create_stream);
  find(library, "cuStreamSynchronize", d.synchronize);
  find(library, "cuEventCreate", d.create_event);
  find(library, "cuEventRecord", d.record_event);
  find(library, "cuEventElapsedTime", d.elapsed_ms);
  find(library, "cuEventDestroy_v2", d.release_event);
  find(library, "cuModuleLoadData", d.load_module);
  find(library, "cuModuleGetFunctionCount", d.count_functions);
  find(library, "cuModuleEnumerateFunctions", d.list_functions);
  find(library, "cuFuncGetName", d.function_name);
  find(library, "cuFuncSetAttribute", d.set_function);
  find(library, "cuLaunchKernelEx", d.launch);
  find(library, "cuStreamBeginCapture_v2", d.begin_capture);
  find(library, "cuStreamEndCapture", d.end_capture);
  find(library, "cuGraphInstantiateWithFlags", d.instantiate);
  find(library, "cuGraphExecUpdate_v2", d.update_graph);
  find(library, "cuGraphLaunch", d.launch_graph);
  find(library, "cuGraphDestroy", d.release_graph);
  find(library, "cuGraphExecDestroy", d.release_graph_exec);
}

Driver started_driver() {
  const Driver driver = open_driver(kLibrary);
  check(driver, driver.init(0), "starting the driver");
  int version = 0;
  check(driver, driver.driver_version(&version), "the driver's version");
  if (version < kOldestVersion) {
    fail(
        ErrorKind::Unsupported,
        "[cuda] driver: found one for CUDA {}.{}, expected {}.{} or newer "
        "(NVIDIA's 580). Update it, or choose --device cpu.",
        version / 1000,
        version % 1000 / 10,
        kOldestVersion / 1000,
        kOldestVersion % 1000 / 10);
  }
  return driver;
}

} // namespace

Driver open_driver(const char* library) {
  // Never closed: what it hands out lives as long as the process.
  void* opened = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    fail(
        ErrorKind::NotFound,
        "[cuda] driver: found none ({}), expected NVIDIA's. Install it where "
        "there is a card, or choose --device cpu.",
        dlerror());
  }
  Driver driver{};
  find_all(opened, driver);
  return driver;
}

const Driver& system_driver() {
  static const Driver driver = started_driver();
  return driver;
}

void check(const Driver& driver, Result result, std::string_view what) {
  if (result == 0) {
    return;
  }
  const char* name = nullptr;
  const char* text = nullptr;
  driver.error_name(result, &name);
  driver.error_text(result, &text);
  fail(
      result == kOutOfMemory ? ErrorKind::Exhausted : ErrorKind::Internal,
      "[cuda] {}: the driver says {} ({}), error {}.",
      what,
      text != nullptr ? text : "nothing",
      name != nullptr ? name : "no name",
      result);
}

} // namespace optiq::kernels::cuda
