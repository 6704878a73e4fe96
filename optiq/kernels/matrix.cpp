#include "optiq/kernels/matrix.h"

namespace optiq::kernels {

const char* name_of(Compute compute) {
  switch (compute) {
    case Compute::Int8:
      return "int8";
    case Compute::Fast:
      return "fast";
    case Compute::Exact:
      return "exact";
  }
  return "";
}

} // namespace optiq::kernels
