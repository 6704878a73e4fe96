#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optiq/base/progress.h"
#include "optiq/generate/generator.h"
#include "optiq/text/chat_template.h"
#include "optiq/text/tokenizer.h"

/**
 * Calibration texts. A file is plain text, or JSONL (by its name or its first
 * character '{'), one object a line:
 *   {"domain": str?, "text": str}
 *   {"domain": str?, "messages": [{"role": str, "content": str}...],
 *    "tools": [...]?}
 *   {"question": str, "answer": str}
 * Messages go through the model's chat template; documents are joined with the
 * end-of-text token between them, and the stream is cut into chunks.
 */
namespace optiq::quant {

struct CalibrationOptions {
  std::string source = "mix"; // "mix", "self", "both", or the path of a file
  int n_chunks = 24;
  int chunk_tokens = 512;
  std::uint64_t seed = 0;
};

/** Token ids to measure on; each chunk is a sequence of its own. */
struct Calibration {
  std::string name; // "mix", "self", "both" or the file's name
  std::vector<std::vector<std::int32_t>> chunks;
  std::string hash; // SHA-256 over the chunks' ids
  std::vector<std::string> notices; // what the user should know

  std::size_t n_tokens() const;
  /** Whether what is made of the text is judged by this chunk: every fourth,
   * and of two or three the last. */
  bool is_held_out(std::size_t chunk) const;
};

/** What turns documents into token ids, of one model. */
struct CalibrationEncoder {
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::optional<text::ChatTemplate> chat_template;
  std::optional<std::int32_t> separator; // between documents
};

/** Of a model directory; separator = its first end-of-text id. */
CalibrationEncoder make_calibration_encoder(
    const io::ModelDirectory& directory);

/** Files of this many bytes and more are refused. */
inline constexpr std::uint64_t kMaxCalibrationBytes = 2'000'000'000;

/**
 * The mix or a file. Of a file, no more is read than four times the wanted
 * tokens; the seed chooses among the chunks read. The last, shorter chunk of
 * the stream is used only where there are too few full ones, so that no text
 * is lost. Fewer chunks than asked for: all of them, with a notice.
 * Throws InvalidInput (empty, too large), NotFound, Corrupt (bad line).
 */
Calibration load_calibration(
    const CalibrationOptions& options,
    const CalibrationEncoder& encoder);

/** "self": the model continues short seeds by sampling (temperature 1), each
 * chunk from its own seed. */
Calibration sample_calibration(
    const CalibrationOptions& options,
    const CalibrationEncoder& encoder,
    generate::Engine& engine,
    const ProgressSink& progress);

/** "both": the chunks of one behind those of the other. */
Calibration join_calibrations(Calibration self, Calibration mix);

} // namespace optiq::quant
