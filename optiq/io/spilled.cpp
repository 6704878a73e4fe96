#include "optiq/io/spilled.h"

#include <cstring>

#include "optiq/base/mapping_guard.h"
#include "optiq/base/ram_limit.h"
#include "optiq/io/array.h"

namespace optiq::io {

mx::array spilled(const mx::array& x) {
  if (!RamLimit::left()) {
    return x; // of any device
  }
  mx::array from = materialize(x);
  if (is_mapped(from.data<char>())) {
    return from;
  }
  const auto to = RamLimit::spill(from.nbytes());
  if (to == nullptr) {
    return from;
  }
  std::memcpy(to.get(), from.data<char>(), from.nbytes());
  return view_array(to.get(), from.shape(), from.dtype(), to);
}

} // namespace optiq::io
