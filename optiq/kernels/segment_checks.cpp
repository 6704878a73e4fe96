#include "optiq/kernels/segment_checks.h"

#include "optiq/base/error.h"
#include "optiq/kernels/kv_format.h"

namespace optiq::kernels {
namespace {

void check_blocks(
    const char* function,
    std::size_t index,
    const Segment& s,
    int window) {
  const std::size_t tokens =
      static_cast<std::size_t>(s.start) + static_cast<std::size_t>(s.rows);
  if (s.blocks.size() * kKvBlockTokens < tokens) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] segment {}: found {} blocks of {} tokens, "
        "expected room for {} tokens. Reserve the sequence first.",
        function,
        index,
        s.blocks.size(),
        kKvBlockTokens,
        tokens);
  }
  const std::size_t end = (tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  std::size_t block = first_seen(window, s.start) / kKvBlockTokens;
  while (block < end && s.blocks[block] != BlockId::None) {
    ++block;
  }
  if (s.rows > 0 && block < end) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] segment {}: found no block for position {}, "
        "expected one wherever a row of {} to {} sees. Reserve the sequence "
        "first, and keep the blocks inside the window.",
        function,
        index,
        block * kKvBlockTokens,
        s.start,
        tokens);
  }
}

} // namespace

void check_rows(
    const char* function,
    std::span<const Segment> segments,
    int rows) {
  int next = 0;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Segment& s = segments[i];
    if (s.first_row != next || s.rows < 0 || s.rows > rows - next ||
        s.start < 0) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] segment {}: found rows {} + {} at position {}, "
          "expected them to follow row {} within {} rows. Order the segments.",
          function,
          i,
          s.first_row,
          s.rows,
          s.start,
          next,
          rows);
    }
    next += s.rows;
  }
  if (next != rows) {
    fail(
        ErrorKind::InvalidInput,
        "[{}] segments: found {} rows in all, expected {}. Cover every row.",
        function,
        next,
        rows);
  }
}

void check_kv_segments(
    const char* function,
    std::span<const Segment> segments,
    int rows,
    int window) {
  check_rows(function, segments, rows);
  for (std::size_t i = 0; i < segments.size(); ++i) {
    check_blocks(function, i, segments[i], window);
  }
}

void check_state_segments(
    const char* function,
    std::span<const Segment> segments,
    int rows) {
  check_rows(function, segments, rows);
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const std::span<const BlockId> blocks = segments[i].blocks;
    if (blocks.size() != 1 || blocks.front() == BlockId::None) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] segment {}: found {} blocks, expected the one of its states. "
          "Reserve the sequence first.",
          function,
          i,
          blocks.size());
    }
  }
}

void check_whole_sequences(
    const char* function,
    std::span<const Segment> segments,
    int rows) {
  check_rows(function, segments, rows);
  for (const Segment& segment : segments) {
    if (segment.start != 0) {
      fail(
          ErrorKind::InvalidInput,
          "[{}] segment at row {}: found position {}, expected 0: gradients "
          "are those of whole sequences.",
          function,
          segment.first_row,
          segment.start);
    }
  }
}

} // namespace optiq::kernels
