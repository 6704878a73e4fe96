#include "optiq/artifacts/kv_codec.h"

#include "optiq/base/error.h"

namespace optiq::artifacts {

const char* name_of(KvMethod method) {
  switch (method) {
    case KvMethod::Dense:
      return "dense";
    case KvMethod::Affine:
      return "affine";
    case KvMethod::Turbo:
      break;
  }
  return "turbo";
}

const char* name_of(KvRotation rotation) {
  return rotation == KvRotation::Hadamard ? "hadamard" : "orthogonal";
}

KvMethod kv_method_of(const std::string& name) {
  for (const KvMethod method : {KvMethod::Affine, KvMethod::Turbo}) {
    if (name == name_of(method)) {
      return method;
    }
  }
  fail(
      ErrorKind::InvalidInput,
      "[kv_method] found '{}', expected affine or turbo",
      name);
}

KvRotation kv_rotation_of(const std::string& name) {
  for (const KvRotation rotation :
       {KvRotation::Hadamard, KvRotation::Orthogonal}) {
    if (name == name_of(rotation)) {
      return rotation;
    }
  }
  fail(
      ErrorKind::InvalidInput,
      "[kv_rotation] found '{}', expected hadamard or orthogonal",
      name);
}

} // namespace optiq::artifacts
