#include "optiq/text/chat_template.h"

#include "optiq/base/error.h"
#include "optiq/base/file.h"
#include "optiq/text/jinja_interpreter_impl.h"

namespace optiq::text {
namespace {

// Ten times the largest template that is known to be published.
constexpr std::size_t kMaxTemplateBytes = 256u << 10;
constexpr std::size_t kMaxConfigBytes = 64u << 20;

artifacts::Json read_tokenizer_config(const std::filesystem::path& directory) {
  const auto path = directory / "tokenizer_config.json";
  if (!std::filesystem::exists(path)) {
    return artifacts::Json::object();
  }
  artifacts::Json config = artifacts::read_json_file(path, kMaxConfigBytes);
  if (!config.is_object()) {
    fail(
        ErrorKind::Corrupt,
        "[ChatTemplate::load] {}: found {}, expected an object",
        path.string(),
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
      if (entry.is_object() && entry.value("name", "") == "default" &&
          entry.contains("template") && entry["template"].is_string()) {
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
  const artifacts::Json config = read_tokenizer_config(directory);
  const auto file = directory / "chat_template.jinja";
  std::string where = file.string();
  std::optional<std::string> source;
  if (std::filesystem::exists(file)) {
    source = read_text_file(file, kMaxTemplateBytes);
  } else {
    where = (directory / "tokenizer_config.json").string();
    source = template_of(config, where);
  }
  if (!source) {
    fail(
        ErrorKind::NotFound,
        "[ChatTemplate::load] {}: found no chat template, expected "
        "chat_template.jinja or 'chat_template' in tokenizer_config.json. Use "
        "a chat model, or pass the prompt as it is (--raw)",
        directory.string());
  }
  ChatTemplate made = parse(*source, where);
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
