#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "optiq/artifacts/json.h"
#include "optiq/cli/kv_options.h"
#include "optiq/cli/sampling_flags.h"
#include "optiq/io/model_directory.h"
#include "optiq/kernels/device.h"

namespace optiq::cli {

/** Called with each piece of an answer and of the reasoning before it. */
using AnswerSink =
    std::function<void(std::string_view content, std::string_view reasoning)>;

enum class AnswerEnd { Complete, TooLong, Stopped };

/** Who answers in a chat. */
class ChatModel {
 public:
  virtual ~ChatModel() = default;
  virtual std::string name() const = 0;
  /** Where its files lie; empty for a server's. */
  virtual std::filesystem::path path() const = 0;
  /** Answers a conversation, as OpenAI's messages; Stopped soon after `stop` is
   * set. */
  virtual AnswerEnd answer(
      const artifacts::Json& messages,
      const std::atomic<bool>& stop,
      const AnswerSink& sink) = 0;
};

/** What the user said of the answers. */
struct AnswerFlags {
  std::optional<int> max_tokens;
  generate::SamplingChoice sampling;
  std::optional<std::uint64_t> seed;
};

/** How a model runs in this process. */
struct LocalFlags {
  kernels::Compute compute = kernels::Compute::Fast;
  std::string device = "auto";
  KvFlags kv;
  std::vector<std::string> adapters; // for with_adapters
};

/** Loads a model. Notices go to stderr. */
std::unique_ptr<ChatModel> open_local_chat(
    const io::ModelDirectory& directory,
    const LocalFlags& local,
    const AnswerFlags& flags);

struct ServerFlags {
  /** http://..., https://... or unix:PATH. */
  std::string url;
  std::string api_key;
  std::string model_id; // empty: the first that the server names
  /** Names that the server knows; what all of them add. */
  std::vector<std::string> adapters;
};

/** Whether MODEL is a server. */
bool is_server(const std::string& model);

/** Reaches a server of OpenAI's protocol. Throws Io where there is none. */
std::unique_ptr<ChatModel> open_server_chat(
    const ServerFlags& server,
    const AnswerFlags& flags);

} // namespace optiq::cli
