#include "optiq/quant/calibration.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>
#include <string_view>
#include <utility>

#include "optiq/artifacts/json.h"
#include "optiq/base/error.h"
#include "optiq/base/hash.h"
#include "optiq/base/printable.h"
#include "optiq/generate/defaults.h"
#include "optiq/quant/calibration_mix_impl.h"

namespace optiq::quant {

namespace {

using artifacts::Json;
namespace fs = std::filesystem;

constexpr std::size_t kMaxLineBytes = 16u << 20;
constexpr std::size_t kTextBlockBytes = 64u << 10;

// How many chunks are read per wanted one, so that a seed has a choice.
constexpr int kPoolFactor = 4;

// Sebastiano Vigna's SplitMix64: ours, so that a seed means the same
// everywhere (the library's shuffle is not specified).
class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // In [0, n), n far below 2^32, so the bias of the remainder is negligible.
  std::size_t below(std::size_t n) {
    return static_cast<std::size_t>(next() % n);
  }

 private:
  std::uint64_t state_;
};

// Collects token ids until there are enough.
class TokenStream {
 public:
  TokenStream(const CalibrationEncoder& encoder, std::size_t limit)
      : encoder_(encoder), limit_(limit) {}

  bool full() const {
    return ids_.size() >= limit_;
  }
  const std::vector<std::int32_t>& ids() const {
    return ids_;
  }
  int documents_as_lines() const {
    return documents_as_lines_;
  }

  // One part of a running text, without a separator.
  void append_text(std::string_view text) {
    const auto ids = encoder_.tokenizer->encode(text, false);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
  }

  void append_document(std::string_view text) {
    if (!ids_.empty() && encoder_.separator) {
      ids_.push_back(*encoder_.separator);
    }
    append_text(text);
  }

  void append_chat(const Json& messages, const Json& tools) {
    append_document(render(messages, tools));
  }

 private:
  std::string render(const Json& messages, const Json& tools) {
    if (encoder_.chat_template) {
      try {
        return encoder_.chat_template->render_chat(messages, false, tools);
      } catch (const Error& e) {
        // A template may refuse a role or an order of roles. The text is
        // still good for calibration; it is counted and reported.
        if (e.kind() != ErrorKind::InvalidInput) {
          throw;
        }
      }
    }
    ++documents_as_lines_;
    std::string text;
    for (const Json& message : messages) {
      text += (text.empty() ? "[" : "\n\n[") +
          message.at("role").get<std::string>() +
          "]: " + message.at("content").get<std::string>();
    }
    return text;
  }

  const CalibrationEncoder& encoder_;
  std::size_t limit_;
  std::vector<std::int32_t> ids_;
  int documents_as_lines_ = 0;
};

[[noreturn]] void fail_row(const std::string& where, const std::string& found) {
  fail(
      ErrorKind::Corrupt,
      "[load_calibration] {}: {}, expected an object with \"text\", "
      "\"messages\" (role and content, both strings), or \"question\" and "
      "\"answer\".",
      where,
      found);
}

std::string
string_at(const Json& object, const char* key, const std::string& where) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_string()) {
    fail_row(where, std::string("no string \"") + key + "\"");
  }
  return it->get<std::string>();
}

void append_row(
    TokenStream& stream,
    std::string_view line,
    const std::string& where) {
  const Json row = artifacts::parse_json(line, where);
  if (!row.is_object()) {
    fail_row(where, std::string("found ") + row.type_name());
  }
  if (row.contains("text")) {
    stream.append_document(string_at(row, "text", where));
    return;
  }
  if (row.contains("messages")) {
    const Json& messages = row.at("messages");
    if (!messages.is_array() || messages.empty()) {
      fail_row(where, "\"messages\" is not a list with elements");
    }
    for (const Json& message : messages) {
      if (!message.is_object()) {
        fail_row(where, "a message is not an object");
      }
      string_at(message, "role", where);
      string_at(message, "content", where);
    }
    stream.append_chat(
        messages, row.contains("tools") ? row.at("tools") : Json());
    return;
  }
  Json messages = Json::array();
  messages.push_back(
      {{"role", "user"}, {"content", string_at(row, "question", where)}});
  messages.push_back(
      {{"role", "assistant"}, {"content", string_at(row, "answer", where)}});
  stream.append_chat(messages, Json());
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

void read_mix(TokenStream& stream) {
  std::string_view rest = calibration_mix();
  for (int line = 1; !rest.empty(); ++line) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    append_row(
        stream, rest.substr(0, end), "mix.jsonl:" + std::to_string(line));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
}

// As std::getline, but an absurdly long line is an error, not an allocation.
bool read_line(std::istream& in, std::string& line, const std::string& where) {
  line.clear();
  std::streambuf& buffer = *in.rdbuf();
  constexpr auto kEnd = std::char_traits<char>::eof();
  int c = buffer.sbumpc();
  if (c == kEnd) {
    return false;
  }
  for (; c != kEnd && c != '\n'; c = buffer.sbumpc()) {
    if (line.size() == kMaxLineBytes) {
      fail_row(where, "a line of more than 16 MiB");
    }
    line.push_back(static_cast<char>(c));
  }
  return true;
}

void read_jsonl(TokenStream& stream, std::istream& in, const fs::path& path) {
  std::string line;
  for (int n = 1; !stream.full(); ++n) {
    const std::string where = path.string() + ":" + std::to_string(n);
    if (!read_line(in, line, where)) {
      return;
    }
    if (!is_blank(line)) {
      append_row(stream, line, where);
    }
  }
}

// Cuts a running text behind line ends, so that blocks tokenize (nearly) as the
// whole would.
void read_plain_text(TokenStream& stream, std::istream& in) {
  std::string pending;
  std::string block(kTextBlockBytes, '\0');
  while (!stream.full()) {
    in.read(block.data(), static_cast<std::streamsize>(block.size()));
    const auto n = static_cast<std::size_t>(in.gcount());
    if (n == 0) {
      break;
    }
    pending.append(block, 0, n);
    const std::size_t cut = pending.rfind('\n');
    if (cut != std::string::npos) {
      stream.append_text(std::string_view(pending).substr(0, cut + 1));
      pending.erase(0, cut + 1);
    } else if (pending.size() > kMaxLineBytes) {
      break; // one endless line: what was read is more than enough
    }
  }
  if (!stream.full() && !is_blank(pending)) {
    stream.append_text(pending);
  }
}

void read_file(TokenStream& stream, const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    fail(
        ErrorKind::NotFound,
        "[load_calibration] {}: no such file. Calibration is 'mix', 'self' or "
        "the path of a text or JSONL file.",
        path.string());
  }
  if (!fs::is_regular_file(status)) {
    fail(
        ErrorKind::InvalidInput,
        "[load_calibration] {}: not a regular file, expected text or JSONL.",
        path.string());
  }
  const std::uintmax_t size = fs::file_size(path);
  if (size >= kMaxCalibrationBytes) {
    fail(
        ErrorKind::InvalidInput,
        "[load_calibration] {}: {} bytes, expected fewer than {}. Some "
        "megabytes are plenty: cut it down.",
        path.string(),
        size,
        kMaxCalibrationBytes);
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    fail(
        ErrorKind::Denied,
        "[load_calibration] {}: cannot be opened for reading. Check its "
        "permissions.",
        path.string());
  }
  in >> std::ws;
  const bool jsonl = path.extension() == ".jsonl" || in.peek() == '{';
  in.clear();
  in.seekg(0);
  if (jsonl) {
    read_jsonl(stream, in, path);
  } else {
    read_plain_text(stream, in);
  }
  if (in.bad()) {
    fail(
        ErrorKind::Io,
        "[load_calibration] {}: reading failed. Check the disk.",
        path.string());
  }
}

std::string hash_of(const std::vector<std::vector<std::int32_t>>& chunks) {
  Sha256 hash;
  for (const auto& chunk : chunks) {
    std::string bytes;
    const auto push = [&](std::uint32_t value) {
      for (int shift = 0; shift < 32; shift += 8) {
        bytes.push_back(static_cast<char>((value >> shift) & 0xffu));
      }
    };
    push(static_cast<std::uint32_t>(chunk.size()));
    for (const std::int32_t id : chunk) {
      push(static_cast<std::uint32_t>(id));
    }
    hash.update(bytes);
  }
  return hash.hex_digest();
}

// n full chunks by the seed; the short last one only where full ones lack.
std::vector<std::vector<std::int32_t>> choose_chunks(
    const std::vector<std::int32_t>& ids,
    const CalibrationOptions& options) {
  const auto width = static_cast<std::size_t>(options.chunk_tokens);
  const auto wanted = static_cast<std::size_t>(options.n_chunks);
  std::vector<std::size_t> starts(ids.size() / width);
  for (std::size_t i = 0; i < starts.size(); ++i) {
    starts[i] = i * width;
  }
  SplitMix64 random(options.seed);
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    std::swap(starts[i], starts[i + random.below(starts.size() - i)]);
  }
  if (starts.size() < wanted && ids.size() % width != 0) {
    starts.push_back(ids.size() / width * width);
  }
  starts.resize(std::min(starts.size(), wanted));
  std::vector<std::vector<std::int32_t>> chunks;
  for (const std::size_t start : starts) {
    const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(start);
    const std::size_t n = std::min(width, ids.size() - start);
    chunks.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(n));
  }
  return chunks;
}

void validate(const CalibrationOptions& options) {
  if (options.n_chunks < 1 || options.n_chunks > 100'000) {
    fail(
        ErrorKind::InvalidInput,
        "[load_calibration] {} chunks, expected 1 to 100000.",
        options.n_chunks);
  }
}

// Short and different in kind, so that the samples are.
constexpr std::array<const char*, 24> kSeeds = {
    "The",           "In the year",   "Question:",  "She said",  "def ",
    "Once",          "It is known",   "Step 1:",    "A list of", "Dear",
    "The answer is", "However,",      "#include <", "Why does",  "According to",
    "{\"name\": \"", "After the",     "There are",  "To make",   "I think",
    "1. ",           "The following", "When he",    "If",
};

// What the chat template puts before a user's words. Given only that, a chat
// model writes the user's turn too, as those it was trained on
// (arXiv 2406.08464). Nothing for a model without chats.
std::optional<std::string> opening_of_a_chat(
    const CalibrationEncoder& encoder) {
  if (!encoder.chat_template) {
    return std::nullopt;
  }
  const std::string mark = "0123456789";
  try {
    const std::string text = encoder.chat_template->render_chat(
        {{{"role", "user"}, {"content", mark}}}, false);
    const std::size_t at = text.find(mark);
    return at == std::string::npos || at == 0
        ? std::nullopt
        : std::optional(text.substr(0, at));
  } catch (const Error&) {
    return std::nullopt; // the template wants more than a user's turn
  }
}

// The beginning of sample i: chats and prose in turn.
std::vector<std::int32_t> beginning(
    const CalibrationEncoder& encoder,
    const std::optional<std::string>& chat,
    std::size_t i) {
  return encoder.tokenizer->encode(
      chat && i % 2 == 0 ? *chat : kSeeds[i / (chat ? 2 : 1) % kSeeds.size()],
      false);
}

} // namespace

std::size_t Calibration::n_tokens() const {
  std::size_t n = 0;
  for (const auto& chunk : chunks) {
    n += chunk.size();
  }
  return n;
}

bool Calibration::is_held_out(std::size_t chunk) const {
  constexpr std::size_t kEvery = 4;
  const std::size_t n = chunks.size();
  return n < kEvery ? n > 1 && chunk + 1 == n : chunk % kEvery == kEvery - 1;
}

CalibrationEncoder make_calibration_encoder(
    const io::ModelDirectory& directory) {
  CalibrationEncoder encoder;
  encoder.tokenizer = generate::load_tokenizer(directory);
  try {
    encoder.chat_template = generate::load_chat_template(directory);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::NotFound) {
      throw;
    }
    // A base model: chats become plain lines, which load_calibration reports.
  }
  const auto stops = generate::stop_ids(directory, *encoder.tokenizer);
  if (!stops.empty()) {
    encoder.separator = stops.front();
  }
  return encoder;
}

Calibration load_calibration(
    const CalibrationOptions& options,
    const CalibrationEncoder& encoder) {
  validate(options);
  Calibration result;
  const auto wanted = static_cast<std::size_t>(options.n_chunks);
  TokenStream stream(encoder, kPoolFactor * wanted * options.chunk_tokens);
  if (options.source == "mix") {
    result.name = "mix";
    read_mix(stream);
  } else {
    const fs::path path(options.source);
    result.name = escape_invalid_utf8(path.filename().string());
    read_file(stream, path);
  }
  result.chunks = choose_chunks(stream.ids(), options);
  if (result.chunks.empty()) {
    fail(
        ErrorKind::InvalidInput,
        "[load_calibration] {}: no text in it, expected at least one token. "
        "Use 'mix' or another file.",
        options.source);
  }
  if (result.chunks.size() < wanted) {
    result.notices.push_back(fmt::format(
        "calibration '{}' has {} chunks of {} tokens, {} were asked for; all "
        "of it is used",
        result.name,
        result.chunks.size(),
        options.chunk_tokens,
        wanted));
  }
  if (stream.documents_as_lines() > 0) {
    result.notices.push_back(fmt::format(
        "{} chats of the calibration are written as plain lines, because the "
        "model has no chat template or its template refuses them",
        stream.documents_as_lines()));
  }
  result.hash = hash_of(result.chunks);
  return result;
}

Calibration sample_calibration(
    const CalibrationOptions& options,
    const CalibrationEncoder& encoder,
    generate::Engine& engine,
    const ProgressSink& progress) {
  validate(options);
  Calibration result{.name = "self", .chunks = {}, .hash = {}, .notices = {}};
  const auto wanted = static_cast<std::size_t>(options.n_chunks);
  const auto chat = opening_of_a_chat(encoder);
  std::vector<std::vector<std::int32_t>> prompts;
  std::size_t longest = 0;
  for (std::size_t i = 0; i < wanted; ++i) {
    prompts.push_back(beginning(encoder, chat, i));
    longest = std::max(longest, prompts.back().size());
  }
  generate::GenerateOptions generation;
  // No stop ids: after the end of a text the model starts another one.
  generation.max_tokens = options.chunk_tokens - static_cast<int>(longest);
  generation.sampler.temperature = 1.f;
  generation.sampler.seed = SplitMix64(options.seed).next();
  std::size_t done = 0;
  const auto completions = generate::generate_batch(
      engine, prompts, generation, [&](std::size_t, const auto&) {
        if (progress) {
          progress({"calibration", ++done, wanted, "sampling"});
        }
      });
  for (std::size_t i = 0; i < wanted; ++i) {
    std::vector<std::int32_t> chunk = prompts[i];
    const auto& tokens = completions[i].tokens;
    chunk.insert(chunk.end(), tokens.begin(), tokens.end());
    result.chunks.push_back(std::move(chunk));
  }
  result.hash = hash_of(result.chunks);
  return result;
}

Calibration join_calibrations(Calibration self, Calibration mix) {
  Calibration both = std::move(self);
  both.name = "both";
  std::move(
      mix.chunks.begin(), mix.chunks.end(), std::back_inserter(both.chunks));
  std::move(
      mix.notices.begin(), mix.notices.end(), std::back_inserter(both.notices));
  both.hash = hash_of(both.chunks);
  return both;
}

} // namespace optiq::quant
