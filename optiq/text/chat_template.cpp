#include "optiq/text/chat_template.h"

#include "optiq/base/error.h"
#include "optiq/base/file.h"
#include "optiq/text/jinja/interpreter_impl.h"

namespace optiq::text {
namespace {

// Ten times the largest template that is known to be published.
constexpr std::size_t kMaxTemplateBytes = 256u << 10;

constexpr const char* kTemplateName = "chat_template.jinja";
constexpr const char* kConfigName = "tokenizer_config.json";

artifacts::Json parse_tokenizer_config(
    const std::optional<std::string>& text,
    const std::string& where) {
  if (!text) {
    return artifacts::Json::object();
  }
  artifacts::Json config = artifacts::parse_json(*text, where);
  if (!config.is_object()) {
    fail(
        ErrorKind::Corrupt,
        "[ChatTemplate::load] {}: found {}, expected an object",
        where,
        config.type_name());
  }
  return config;
}

// "<s>", or {"content": "<s>", ...} as older files have it.
artifacts::Json special_tokens_of(const artifacts::Json& config) {
  constexpr std::string_view kSuffix = "_token";
  artifacts::Json tokens = artifacts::Json::object();
  for (const auto& [key, value] : config.items()) {
    if (!key.ends_with(kSuffix)) {
      continue;
    }
    if (value.is_string()) {
      tokens[key] = value;
    } else if (
        value.is_object() && value.contains("content") &&
        value["content"].is_string()) {
      tokens[key] = value["content"];
    }
  }
  return tokens;
}

// The config's `chat_template`: text, or a list of named ones.
std::optional<std::string> template_of(
    const artifacts::Json& config,
    const std::string& where) {
  const auto at = config.find("chat_template");
  if (at == config.end() || at->is_null()) {
    return std::nullopt;
  }
  if (at->is_string()) {
    return at->get<std::string>();
  }
  if (at->is_array()) {
    for (const auto& entry : *at) {
      if (entry.is_object() && entry.contains("name") &&
          entry["name"] == "default" && entry.contains("template") &&
          entry["template"].is_string()) {
        return entry["template"].get<std::string>();
      }
    }
  }
  fail(
      ErrorKind::Corrupt,
      "[ChatTemplate::load] {}: found a chat_template of type {}, expected "
      "text or a list with a template named 'default'",
      where,
      at->type_name());
}

} // namespace

struct ChatTemplate::Program {
  jinja::Template parsed;
};

ChatTemplate ChatTemplate::parse(
    std::string_view source,
    const std::string& where) {
  if (source.size() > kMaxTemplateBytes) {
    fail(
        ErrorKind::Unsupported,
        "[ChatTemplate::parse] {}: found {} bytes, expected at most {}",
        where,
        source.size(),
        kMaxTemplateBytes);
  }
  ChatTemplate made;
  made.program_ = std::make_shared<const Program>(
      Program{jinja::parse_template(source, where)});
  return made;
}

ChatTemplate ChatTemplate::load(const std::filesystem::path& directory) {
  const auto read = [&](const char* name, std::size_t most) {
    const auto path = directory / name;
    return std::filesystem::exists(path)
        ? std::optional(read_text_file(path, most))
        : std::nullopt;
  };
  return from_files(
      read(kTemplateName, kMaxTemplateBytes),
      read(kConfigName, artifacts::kConfigJson.max_bytes),
      directory);
}

ChatTemplate ChatTemplate::from_files(
    const std::optional<std::string>& chat_template_jinja,
    const std::optional<std::string>& tokenizer_config_json,
    const std::filesystem::path& where) {
  const std::string config_path = (where / kConfigName).string();
  const artifacts::Json config =
      parse_tokenizer_config(tokenizer_config_json, config_path);
  const auto source = chat_template_jinja ? chat_template_jinja
                                          : template_of(config, config_path);
  if (!source) {
    fail(
        ErrorKind::NotFound,
        "[ChatTemplate::load] {}: found no chat template, expected "
        "chat_template.jinja or 'chat_template' in tokenizer_config.json. Use "
        "a chat model, or pass the prompt as it is (--raw)",
        where.string());
  }
  ChatTemplate made = parse(
      *source,
      chat_template_jinja ? (where / kTemplateName).string() : config_path);
  made.special_tokens_ = special_tokens_of(config);
  return made;
}

std::string ChatTemplate::render(
    const artifacts::Json& variables,
    const RenderBudget& budget) const {
  const jinja::Template& parsed = program_->parsed;
  if (!variables.is_object()) {
    fail(
        ErrorKind::InvalidInput,
        "[ChatTemplate::render] {}: found variables of type {}, expected an "
        "object",
        parsed.where,
        variables.type_name());
  }
  int line = 0;
  try {
    jinja::Interpreter interpreter(parsed, variables, budget);
    try {
      return interpreter.run();
    } catch (...) {
      line = interpreter.line();
      throw;
    }
  } catch (const Error& error) {
    fail(
        error.kind(),
        "[ChatTemplate::render] {}:{}: {}",
        parsed.where,
        line,
        error.what());
  }
}

std::string ChatTemplate::render_chat(
    const artifacts::Json& messages,
    bool add_generation_prompt,
    const artifacts::Json& tools) const {
  artifacts::Json variables = special_tokens_;
  variables["messages"] = messages;
  variables["tools"] = tools;
  variables["add_generation_prompt"] = add_generation_prompt;
  return render(variables);
}

} // namespace optiq::text
