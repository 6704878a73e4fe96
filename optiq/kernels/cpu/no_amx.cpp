#include <cassert>

#include "optiq/kernels/cpu/amx.h"
#include "optiq/kernels/cpu/amx_attention.h"
#include "optiq/kernels/cpu/amx_codes.h"
#include "optiq/kernels/cpu/amx_panels.h"
#include "optiq/kernels/cpu/bfloat_parts.h"

/** Where there are no tiles nobody comes to the products on them. */
namespace optiq::kernels::cpu {

bool has_amx() {
  return false;
}

bool uses_amx() {
  return false;
}

void set_uses_amx(bool) {}

void multiply_tiles(const TileProduct&) {
  assert(false);
}

void split_rows(
    const float*,
    const RowNorm&,
    const BFloatParts&,
    std::size_t,
    std::size_t) {
  assert(false);
}

std::size_t parts_scratch(int) {
  return 0;
}

void multiply_parts(
    const BFloatParts&,
    const std::uint16_t*,
    std::size_t,
    std::size_t,
    const Output&,
    float*) {
  assert(false);
}

bool attends_on_tiles(std::size_t) {
  return false;
}

QueryTiles::~QueryTiles() {
  assert(rows_ == 0);
}

void QueryTiles::set_rows(std::size_t) {
  assert(false);
}

void score_tiles(const KeyTiles&, QueryTiles&) {
  assert(false);
}

void add_value_tiles(const ValueTiles&, QueryTiles&) {
  assert(false);
}

void multiply_codes(const CodeProduct&, QueryTiles&) {
  assert(false);
}

bool all_finite(const std::byte*, std::size_t) {
  assert(false);
  return false;
}

void copy_tokens(
    const std::byte*,
    std::size_t,
    std::size_t,
    std::size_t,
    std::byte*) {
  assert(false);
}

} // namespace optiq::kernels::cpu
