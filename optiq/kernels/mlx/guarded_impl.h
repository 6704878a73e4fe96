#pragma once

#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>

#include "optiq/base/error.h"

namespace optiq::kernels::portable {

/** What f returns, MLX's exceptions as ours. */
template <typename F>
auto guarded(const char* function, const F& f) {
  try {
    return f();
  } catch (const Error&) {
    throw;
  } catch (const std::invalid_argument& error) {
    fail(ErrorKind::InvalidInput, "[{}] MLX: {}", function, error.what());
  } catch (const std::exception& error) {
    // Of what fails while it computes, MLX keeps the text only.
    const bool is_memory = std::strstr(error.what(), "malloc") != nullptr ||
        dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
    fail(
        is_memory ? ErrorKind::Exhausted : ErrorKind::Internal,
        "[{}] MLX: {}",
        function,
        error.what());
  }
}

} // namespace optiq::kernels::portable
