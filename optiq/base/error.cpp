#include "optiq/base/error.h"

namespace optiq {
namespace {

struct KindRow {
  int exit_code;
  const char* name;
};

// In the order of ErrorKind. 130 is the shell's convention for SIGINT.
constexpr KindRow kKinds[] = {
    {2, "invalid_input"},
    {3, "not_found"},
    {4, "unsupported"},
    {5, "corrupt"},
    {6, "io"},
    {7, "exhausted"},
    {8, "denied"},
    {130, "cancelled"},
    {70, "internal"},
};

} // namespace

int exit_code(ErrorKind kind) {
  return kKinds[static_cast<int>(kind)].exit_code;
}

const char* name_of(ErrorKind kind) {
  return kKinds[static_cast<int>(kind)].name;
}

} // namespace optiq
