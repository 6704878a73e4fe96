#pragma once

#include "optiq/base/error.h"

namespace optiq::generate {

/** Throws InvalidInput, naming option, value and range, unless `ok`. */
template <typename T>
void require_option(bool ok, const char* name, T value, const char* range) {
  if (!ok) {
    fail(
        ErrorKind::InvalidInput,
        "[validate] {} is {}, expected {}",
        name,
        value,
        range);
  }
}

} // namespace optiq::generate
