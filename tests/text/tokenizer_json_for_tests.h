#pragma once

#include <string>
#include <vector>

#include <fmt/format.h>

#include "optiq/artifacts/json.h"
#include "optiq/text/byte_level_impl.h"

namespace optiq::text {

using artifacts::Json;

inline const char* const kQwen35Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

inline Json byte_level_part() {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
}

/** A byte-level tokenizer.json as Qwen3.5's: all 256 bytes, id = byte, then
 * one token per merge ("left right"), spelled in the byte-level alphabet. */
inline Json byte_level_json(const std::vector<std::string>& merges) {
  const ByteLevelAlphabet alphabet;
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[alphabet.spelling(static_cast<std::uint8_t>(byte))] = byte;
  }
  for (const std::string& merge : merges) {
    std::string token = merge;
    token.erase(token.find(' '), 1);
    const auto id = vocab.size();
    vocab[token] = id;
  }
  const Json split = {
      {"type", "Split"},
      {"pattern", {{"Regex", kQwen35Pattern}}},
      {"behavior", "Isolated"},
      {"invert", false}};
  return {
      {"version", "1.0"},
      {"added_tokens", Json::array()},
      {"normalizer", {{"type", "NFC"}}},
      {"pre_tokenizer",
       {{"type", "Sequence"},
        {"pretokenizers", Json::array({split, byte_level_part()})}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

inline Json added_token(
    int id,
    const std::string& content,
    const std::vector<std::string>& flags = {}) {
  Json token = {
      {"id", id},
      {"content", content},
      {"single_word", false},
      {"lstrip", false},
      {"rstrip", false},
      {"normalized", false},
      {"special", false}};
  for (const std::string& flag : flags) {
    token[flag] = true;
  }
  return token;
}

/** As Gemma's: characters, "▁" for the space, bytes for what is unknown. */
inline Json byte_fallback_json() {
  Json vocab = {{"<unk>", 0}, {"▁", 1}, {"a", 2}, {"b", 3}, {"ab", 4}};
  for (int byte = 0; byte < 256; ++byte) {
    vocab[fmt::format("<0x{:02X}>", byte)] = 5 + byte;
  }
  const Json replace = {
      {"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}};
  return {
      {"normalizer",
       {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders",
         Json::array(
             {replace, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}})}}},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"byte_fallback", true},
        {"fuse_unk", true},
        {"vocab", vocab},
        {"merges", Json::array({Json::array({"a", "b"})})}}}};
}

} // namespace optiq::text
