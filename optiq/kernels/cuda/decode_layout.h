#pragma once

/**
 * How attention_decode.cu has the numbers of queries and codes in operands of
 * mma.sync.m16n8k16. Queries are its columns, two each: column 2 i + d is digit
 * d of query i of four. Of every 32 channels lane 4 c + t has, of column c,
 * four registers of two 16-bit numbers: (b0, b1) of a first product and of a
 * second.
 *
 *   codes     lane t of a row has channels 8 t .. 8 t + 7: register n the
 *             channels n and n + 4 of them
 *   bfloat16  as ldmatrix has rows: register n the channels 8 n + 2 t, + 1
 *
 * Functions are shared by host and card.
 */
namespace optiq::kernels::cuda {

/** Where a channel of the first digit of a query stands among the 16-bit
 * numbers of its 32 channels; the second digit is kDigitStep behind. */
constexpr int operand_place(bool is_dense, int query, int channel) {
  const int i = channel % 32;
  const int t = is_dense ? i % 8 / 2 : i / 8;
  const int number = is_dense ? i / 8 * 2 + i % 2 : i % 4 * 2 + i / 4 % 2;
  return (query % 4 * 8 + t) * 8 + number;
}
inline constexpr int kDigitStep = 4 * 8;

/** Bit at which code n of four stands in a float16: where it was in its word,
 * unless that is too high for a number of 10 bits. */
constexpr int code_place(int bits, int n) {
  if (bits > 4) {
    return 0;
  }
  const int at = bits * n;
  return at + bits <= 10 ? at : bits == 4 ? at - 8 : 0;
}

} // namespace optiq::kernels::cuda
