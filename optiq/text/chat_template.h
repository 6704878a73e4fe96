#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "optiq/artifacts/json.h"
#include "optiq/text/render_budget.h"

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
  /** chat_template.jinja, else `chat_template` of tokenizer_config.json, of a
   * model directory. Throws NotFound when it has neither. */
  static ChatTemplate load(const std::filesystem::path& directory);
  /** As load, from the texts of the two files; `where` names the model. */
  static ChatTemplate from_files(
      const std::optional<std::string>& chat_template_jinja,
      const std::optional<std::string>& tokenizer_config_json,
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
   * special tokens, `tools` (null without any) and the rest as variables. */
  std::string render_chat(
      const artifacts::Json& messages,
      bool add_generation_prompt,
      const artifacts::Json& tools = nullptr) const;

  /** bos_token, eos_token and the like of tokenizer_config.json, as template
   * variables; filled by `load`. */
  const artifacts::Json& special_tokens() const {
    return special_tokens_;
  }

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
  artifacts::Json special_tokens_ = artifacts::Json::object();
};

} // namespace optiq::text
