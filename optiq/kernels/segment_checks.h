#pragma once

#include <span>

#include "optiq/kernels/attention.h"

/** Checks of the rows of a batch, shared by the devices. All throw
 * InvalidInput; messages begin with `function`. */
namespace optiq::kernels {

/** The first position that a row at `position` sees through a window (0: all
 * before it). */
inline int first_seen(int window, int position) {
  return window == 0 || position < window ? 0 : position - window + 1;
}

/** Unless the segments follow each other without gaps and cover `rows`. */
void check_rows(
    const char* function,
    std::span<const Segment> segments,
    int rows);

/** Unless they do, and have a block wherever one of their rows sees. */
void check_kv_segments(
    const char* function,
    std::span<const Segment> segments,
    int rows,
    int window);

/** Unless they do, and start at position 0. */
void check_whole_sequences(
    const char* function,
    std::span<const Segment> segments,
    int rows);

/** Unless they do, and have one block each: the states of a recurrent layer. */
void check_state_segments(
    const char* function,
    std::span<const Segment> segments,
    int rows);

} // namespace optiq::kernels
