#pragma once

#include <cstddef>
#include <string_view>

namespace optiq::text {

/**
 * A family of pre-tokenizer patterns that differ in a few places. Alternatives
 * in order, at every position; each text is covered without gaps:
 *
 *   contraction   's 't 're 've 'm 'll 'd
 *   word          lead? (L | M if marks_in_words)+
 *   number        lead? N+, or N{1,max_digits}
 *   other         " "? (none of: space, N, word character)+ newline*
 *   blank lines   space* newline+           (if newlines_apart)
 *   blanks        space+ before a blank or the end, else one space
 */
struct SplitRule {
  bool any_case; // contractions match in either case
  bool any_lead; // a word takes any one character before it but CR, LF, L, N;
                 // otherwise words and numbers take one U+0020
  bool marks_in_words;
  std::size_t max_digits; // 0: no limit
  bool newlines_apart;
};

/** The rule whose regular expression is written exactly so; null if none. */
const SplitRule* find_split_rule(std::string_view pattern);

/** The pattern of GPT-2, which the ByteLevel pre-tokenizer has built in. */
const SplitRule& gpt2_split_rule();

/** Bytes that the rule matches at the start of valid, non-empty UTF-8. */
std::size_t match_split_rule(const SplitRule& rule, std::string_view text);

} // namespace optiq::text
