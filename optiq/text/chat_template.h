#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "optiq/artifacts/json.h"
#include "optiq/text/render_budget.h"
#include "optiq/text/side_files.h"

namespace optiq::text {

/**
 * Jinja2 as transformers' `apply_chat_template` sets it up (trim_blocks,
 * lstrip_blocks, loop controls, `generation`, `tojson` without escaping,
 * `raise_exception`, `strftime_now`), for templates of one file: statements
 * that read others (include, import, extends) are refused by name, and so are
 * the few filters that give another prompt at every run or are for web pages.
 * No reflection, no I/O, no attribute access beyond data. Unknown constructs
 * are an error when parsing, naming line and construct.
 */
class ChatTemplate {
 public:
  /** Throws Corrupt (syntax) or Unsupported (construct), with the line. */
  static ChatTemplate parse(std::string_view source, const std::string& where);
  /** Of a model directory, the first that there is of: chat_template.jinja (and
   * additional_chat_templates/), `chat_template` of tokenizer_config.json, of
   * chat_template.json. Throws NotFound when it has none. */
  static ChatTemplate load(const std::filesystem::path& directory);
  /** As load; `where` names the model. */
  static ChatTemplate from_files(
      const SideFiles& files,
      const std::filesystem::path& where);

  /**
   * Renders with `variables` (an object: messages, tools,
   * add_generation_prompt, bos_token, eos_token, any keyword argument).
   * Throws InvalidInput for raise_exception and type errors, Exhausted when a
   * budget runs out.
   */
  std::string render(
      const artifacts::Json& variables,
      const RenderBudget& budget = {}) const;

  /** Renders a conversation as transformers' apply_chat_template does: the
   * special tokens, `tools` (null without any) and the rest as variables; a
   * template named tool_use where there are tools and the model has one.
   * `more` are variables of the caller's, an object; throws InvalidInput for
   * one that would hide those. */
  std::string render_chat(
      const artifacts::Json& messages,
      bool add_generation_prompt,
      const artifacts::Json& tools = nullptr,
      const artifacts::Json& more = artifacts::Json::object()) const;

  /** Whether render_chat sets a variable of this name. */
  bool is_own_variable(const std::string& name) const;

  /** Whether the default template has this text anywhere. */
  bool mentions(std::string_view text) const;

  /** bos_token, eos_token and the like (SpecialTokens::by_role), as template
   * variables; filled by `load`. */
  const artifacts::Json& special_tokens() const {
    return special_tokens_;
  }

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
  artifacts::Json special_tokens_ = artifacts::Json::object();
  /** Text and place of the template for conversations with tools; parsed when
   * there are some, so that it cannot stop those without. */
  std::optional<std::pair<std::string, std::string>> tool_use_;
};

} // namespace optiq::text
