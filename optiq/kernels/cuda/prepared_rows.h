#pragma once

#include <map>
#include <optional>

#include "optiq/kernels/cuda/arguments.h"
#include "optiq/kernels/cuda/card.h"
#include "optiq/kernels/device.h"

/** Rows as products take them: normed, and as digits. */
namespace optiq::kernels::cuda {

inline constexpr const char* kMultiply = "multiply"; // in messages

/** How digits of rows lie (arguments.h): row by row, or as wide_layout.h has
 * them. */
enum class Digits { ByRow, Wide };

/** Rows as digits on the card. */
struct PreparedDigits {
  Buffer digits; // [n, T, padded]
  Buffer sums; // [T, padded / 32]
  Buffer scales; // [T] of RowScales, in the order of wide_layout.h of floats
};

/** The rows that projections read, in the forms that they ask for. */
struct PreparedRows {
  int rows = 0;
  PrepareRows args; // of plain rows
  std::optional<mx::array> plain; // [T, in]
  std::map<Digits, PreparedDigits> digits;
};

PreparedRows prepare(Card& card, const mx::array& x, const Product& product);

/** The rows as digits of a kind, made when first asked for. */
const PreparedDigits&
digits_of(Card& card, PreparedRows& rows, Digits kind, bool exact);

/** What a kernel that prepares rows for itself is given. */
PrepareRows with_digits(PrepareRows args, Digits kind, bool exact);

/** Whether a row is_usual (prepare.cuh). */
bool is_usual(const PrepareRows& args);

/** Bytes of a row's digits and their sums. */
std::size_t own_bytes(const PrepareRows& args);

/** The same of rows whose begins are spread over the banks. */
std::size_t shared_bytes(const PrepareRows& args, int rows);

} // namespace optiq::kernels::cuda
