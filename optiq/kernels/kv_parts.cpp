#include "optiq/kernels/kv_parts.h"

#include <cmath>

namespace optiq::kernels {
namespace {

constexpr int kWordBits = 32;

int round_up(int n, int to) {
  return (n + to - 1) / to * to;
}

std::vector<KvPart> affine_parts(int head_dim, int bits, int group) {
  const int whole = head_dim / group * group;
  std::vector<KvPart> parts;
  if (whole > 0) {
    parts.push_back({0, whole, whole, bits, group});
  }
  if (const int rest = head_dim - whole; rest > 0) {
    int last = 32; // the smallest of MLX's groups that holds it
    while (last < rest) {
      last *= 2;
    }
    parts.push_back({whole, rest, last, bits, last});
  }
  return parts;
}

std::vector<KvPart> turbo_parts(int head_dim, double bits) {
  const auto whole_bits = static_cast<int>(bits);
  // Half of the channels, in words: never above the nominal width.
  const int wide =
      bits == std::floor(bits) ? 0 : head_dim / (2 * kWordBits) * kWordBits;
  std::vector<KvPart> parts;
  if (wide > 0) {
    parts.push_back({0, wide, wide, whole_bits + 1, kWordBits});
  }
  const int rest = head_dim - wide;
  parts.push_back(
      {wide, rest, round_up(rest, kWordBits), whole_bits, kWordBits});
  return parts;
}

} // namespace

std::vector<KvPart> kv_parts(const KvFormat& format, double bits) {
  return format.codec.method == KvMethod::Affine
      ? affine_parts(
            format.head_dim, static_cast<int>(bits), format.codec.group_size)
      : turbo_parts(format.head_dim, bits);
}

} // namespace optiq::kernels
