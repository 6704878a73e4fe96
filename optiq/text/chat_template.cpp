#include "optiq/text/chat_template.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "optiq/base/error.h"
#include "optiq/text/jinja/interpreter_impl.h"
#include "optiq/text/jinja/variables_impl.h"
#include "optiq/text/special_tokens.h"

namespace optiq::text {
namespace {

// Ten times the largest template that is known to be published.
constexpr std::size_t kMaxTemplateBytes = 256u << 10;
constexpr const char* kTemplateName = "chat_template.jinja";
constexpr const char* kDefault = "default";
constexpr const char* kToolUse = "tool_use";
// Of a conversation, beside the special tokens.
constexpr std::string_view kVariables[] = {
    "messages",
    "tools",
    "documents",
    "add_generation_prompt"};

/** A template's text and the file it is from. */
struct Source {
  std::string text;
  std::string where;
};

using Sources = std::map<std::string, Source>; // by the template's name

/** The templates that are files of their own. */
Sources template_files(
    const SideFiles& files,
    const std::filesystem::path& where) {
  Sources sources;
  const auto add = [&](const char* name, const std::string& file) {
    if (auto text = files(file.c_str())) {
      sources[name] = {std::move(*text), (where / file).string()};
    }
  };
  add(kDefault, kTemplateName);
  for (const char* name : {kDefault, kToolUse}) {
    add(name, fmt::format("additional_chat_templates/{}.jinja", name));
  }
  return sources;
}

/** `chat_template` of a JSON file: text, a list of {"name", "template"}, or an
 * object of texts by name. */
Sources templates_of(
    const SideFiles& files,
    const std::filesystem::path& where,
    const char* file) {
  const artifacts::Json config = read_side_object(files, where, file);
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) {
    return {};
  }
  const std::string path = (where / file).string();
  Sources sources;
  const auto add = [&](const std::string& name, const artifacts::Json& value) {
    if (value.is_string()) {
      sources[name] = {value.get<std::string>(), path};
    }
  };
  add(kDefault, *found);
  for (const auto& [key, value] : found->items()) {
    if (found->is_object()) {
      add(key, value);
    } else if (
        value.is_object() && value.contains("name") &&
        value["name"].is_string() && value.contains("template")) {
      add(value["name"].get<std::string>(), value["template"]);
    }
  }
  if (!sources.contains(kDefault)) {
    fail(
        ErrorKind::Corrupt,
        "[ChatTemplate::load] {}: found a chat_template of type {}, expected "
        "text, or a list with a template named 'default'",
        path,
        found->type_name());
  }
  return sources;
}

/** The first of the places that has a default template. */
Sources find_templates(
    const SideFiles& files,
    const std::filesystem::path& where) {
  Sources sources = template_files(files, where);
  for (const char* file : {"tokenizer_config.json", "chat_template.json"}) {
    if (sources.contains(kDefault)) {
      break;
    }
    sources = templates_of(files, where, file);
  }
  return sources;
}

/** Messages without the fields that are null: many templates take a missing one
 * and write "None" for the other. */
artifacts::Json without_nulls(const artifacts::Json& messages) {
  artifacts::Json kept = messages;
  for (artifacts::Json& message : kept) {
    if (!message.is_object()) {
      continue;
    }
    artifacts::Json fields = artifacts::Json::object();
    for (auto& [name, value] : message.items()) {
      if (!value.is_null()) {
        fields[name] = std::move(value);
      }
    }
    message = std::move(fields);
  }
  return kept;
}

} // namespace

struct ChatTemplate::Program {
  jinja::Template parsed;
  std::string source;
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
      Program{jinja::parse_template(source, where), std::string(source)});
  return made;
}

ChatTemplate ChatTemplate::load(const std::filesystem::path& directory) {
  return from_files(side_files_of(directory), directory);
}

ChatTemplate ChatTemplate::from_files(
    const SideFiles& files,
    const std::filesystem::path& where) {
  const Sources sources = find_templates(files, where);
  if (sources.empty()) {
    fail(
        ErrorKind::NotFound,
        "[ChatTemplate::load] {}: found no chat template, expected "
        "chat_template.jinja or 'chat_template' in tokenizer_config.json. Use "
        "a chat model, or pass the prompt as it is (--raw)",
        where.string());
  }
  const Source& source = sources.at(kDefault);
  ChatTemplate made = parse(source.text, source.where);
  made.special_tokens_ = SpecialTokens::read(files, where).by_role();
  if (const auto tool_use = sources.find(kToolUse); tool_use != sources.end()) {
    made.tool_use_ = {tool_use->second.text, tool_use->second.where};
  }
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
    jinja::Interpreter interpreter(
        parsed, jinja::variables_of(parsed, variables), budget);
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
    const artifacts::Json& tools,
    const artifacts::Json& more) const {
  artifacts::Json variables = special_tokens_;
  variables["messages"] = without_nulls(messages);
  variables["tools"] = tools;
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = add_generation_prompt;
  for (const auto& [name, value] : more.items()) {
    if (is_own_variable(name)) {
      fail(
          ErrorKind::InvalidInput,
          "[ChatTemplate::render_chat] found a variable '{}', which is the "
          "conversation's own, expected another name",
          name);
    }
    variables[name] = value;
  }
  if (tool_use_ && !tools.is_null()) {
    return parse(tool_use_->first, tool_use_->second).render(variables);
  }
  return render(variables);
}

bool ChatTemplate::is_own_variable(const std::string& name) const {
  return std::find(std::begin(kVariables), std::end(kVariables), name) !=
      std::end(kVariables) ||
      special_tokens_.contains(name);
}

bool ChatTemplate::mentions(std::string_view text) const {
  return program_->source.find(text) != std::string::npos;
}

} // namespace optiq::text
