#include "optiq/eval/needle.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <set>
#include <string_view>

#include <fmt/format.h>

#include "optiq/base/error.h"
#include "optiq/eval/needle_filler_impl.h"

namespace optiq::eval {
namespace {

constexpr std::array kNames{
    "Anna",  "Ben",  "Carla", "David", "Emma",   "Felix", "Grace", "Henry",
    "Irene", "Jack", "Karen", "Leo",   "Maria",  "Nina",  "Oscar", "Paula",
    "Quinn", "Rosa", "Sam",   "Tina",  "Victor", "Wendy", "Yusuf", "Zoe"};
constexpr std::array kPlaces{
    "Paris",
    "Rome",
    "Cairo",
    "Lima",
    "Oslo",
    "Delhi",
    "Tokyo",
    "Quito",
    "Dublin",
    "Lagos",
    "Hanoi",
    "Malta",
    "Bern",
    "Prague",
    "Sofia",
    "Riga",
    "Tunis",
    "Havana"};
constexpr std::size_t kMaxFacts = kNames.size() * kPlaces.size();
constexpr int kLeastNumber = 10000;
constexpr int kNumbers = 90000; // five digits

using Random = std::mt19937_64;

/** Uniform in [0, n), the same on every platform. */
std::size_t draw(Random& random, std::size_t n) {
  return static_cast<std::size_t>(random() % n);
}

struct Fact {
  std::string key; // "Yusuf in Quito"
  std::string number;

  std::string sentence() const {
    return fmt::format("The secret number of {} is {}.", key, number);
  }
};

/** Facts with keys and numbers that differ. */
std::vector<Fact> draw_facts(Random& random, int count) {
  std::set<std::string> taken;
  std::vector<Fact> facts;
  while (facts.size() < static_cast<std::size_t>(count)) {
    Fact fact{
        fmt::format(
            "{} in {}",
            kNames[draw(random, kNames.size())],
            kPlaces[draw(random, kPlaces.size())]),
        std::to_string(kLeastNumber + draw(random, kNumbers))};
    if (!taken.contains(fact.key) && !taken.contains(fact.number)) {
      taken.insert({fact.key, fact.number});
      facts.push_back(std::move(fact));
    }
  }
  return facts;
}

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (end > 0) {
      lines.emplace_back(text.substr(0, end));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

class PromptMaker {
 public:
  PromptMaker(
      const text::Tokenizer& tokenizer,
      const text::ChatTemplate* chat,
      const NeedleOptions& options)
      : tokenizer_(tokenizer),
        chat_(chat),
        options_(options),
        filler_(lines_of(needle_filler())) {}

  NeedlePrompt make(std::size_t length, std::size_t depth, Random& random)
      const {
    const std::vector<Fact> facts = draw_facts(random, options_.facts);
    // Where the facts that are not asked for stand, as shares of the filler.
    std::vector<double> places{options_.depths[depth]};
    for (std::size_t i = 1; i < facts.size(); ++i) {
      places.push_back(static_cast<double>(draw(random, 1000)) / 1000);
    }
    const std::size_t first = draw(random, filler_.size());
    const auto limit = static_cast<std::size_t>(options_.lengths[length]);
    // The text grows sentence by sentence to the longest that fits.
    std::size_t low = 0; // fits
    std::size_t high = limit; // does not: a sentence has a token
    TokenRow best = encode(facts, places, first, 0);
    if (best.size() > limit) {
      fail(
          ErrorKind::InvalidInput,
          "[needle] {} tokens do not hold {} facts and the question, which "
          "take {}. Ask for a greater length",
          limit,
          facts.size(),
          best.size());
    }
    while (high - low > 1) {
      const std::size_t middle = (low + high) / 2;
      TokenRow tokens = encode(facts, places, first, middle);
      if (tokens.size() <= limit) {
        low = middle;
        best = std::move(tokens);
      } else {
        high = middle;
      }
    }
    return {length, depth, std::move(best), facts.front().number};
  }

 private:
  TokenRow encode(
      const std::vector<Fact>& facts,
      const std::vector<double>& places,
      std::size_t first,
      std::size_t n_filler) const {
    std::vector<std::string> sentences;
    for (std::size_t i = 0; i <= n_filler; ++i) {
      for (std::size_t f = 0; f < facts.size(); ++f) {
        if (std::lround(places[f] * static_cast<double>(n_filler)) ==
            static_cast<long>(i)) {
          sentences.push_back(facts[f].sentence());
        }
      }
      if (i < n_filler) {
        sentences.push_back(filler_[(first + i) % filler_.size()]);
      }
    }
    const std::string question = fmt::format(
        "{}\nWhat is the secret number of {}?",
        fmt::join(sentences, " "),
        facts.front().key);
    if (chat_ == nullptr) {
      return tokenizer_.encode(
          fmt::format(
              "{}\nThe secret number of {} is", question, facts.front().key),
          true);
    }
    const artifacts::Json messages{{{"role", "user"}, {"content", question}}};
    return tokenizer_.encode(chat_->render_chat(messages, true), false);
  }

  const text::Tokenizer& tokenizer_;
  const text::ChatTemplate* chat_;
  const NeedleOptions& options_;
  std::vector<std::string> filler_;
};

void check(const NeedleOptions& options) {
  const auto outside = [](double depth) { return !(depth >= 0 && depth <= 1); };
  if (options.lengths.empty() || options.depths.empty() || options.trials < 1 ||
      options.facts < 1 ||
      static_cast<std::size_t>(options.facts) > kMaxFacts ||
      std::any_of(options.depths.begin(), options.depths.end(), outside)) {
    fail(
        ErrorKind::InvalidInput,
        "[needle] found {} lengths, {} depths, {} trials and {} facts; "
        "expected at least one of each, depths from 0 to 1, at most {} facts",
        options.lengths.size(),
        options.depths.size(),
        options.trials,
        options.facts,
        kMaxFacts);
  }
}

} // namespace

std::vector<NeedlePrompt> make_needle_prompts(
    const text::Tokenizer& tokenizer,
    const text::ChatTemplate* chat,
    const NeedleOptions& options) {
  check(options);
  const PromptMaker maker(tokenizer, chat, options);
  Random random(options.seed);
  std::vector<NeedlePrompt> prompts;
  for (std::size_t length = 0; length < options.lengths.size(); ++length) {
    for (std::size_t depth = 0; depth < options.depths.size(); ++depth) {
      for (int trial = 0; trial < options.trials; ++trial) {
        prompts.push_back(maker.make(length, depth, random));
      }
    }
  }
  return prompts;
}

artifacts::NeedleScores measure_needle(
    const models::Setup& setup,
    const text::Tokenizer& tokenizer,
    const std::vector<NeedlePrompt>& prompts,
    const NeedleOptions& needle,
    const ExactMatchOptions& options) {
  std::vector<TokenRow> rows;
  std::vector<std::string> wanted;
  for (const NeedlePrompt& prompt : prompts) {
    rows.push_back(prompt.tokens);
    wanted.push_back(prompt.value);
  }
  const Answers answers =
      answer_questions(setup, tokenizer, rows, wanted, options);
  artifacts::NeedleScores scores{
      .lengths = needle.lengths,
      .depths = needle.depths,
      .trials = needle.trials,
      .facts = needle.facts,
      .right = std::vector<std::vector<int>>(
          needle.lengths.size(), std::vector<int>(needle.depths.size()))};
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    scores.right[prompts[i].length][prompts[i].depth] += answers.right[i];
  }
  const Estimate accuracy = accuracy_of(answers);
  scores.accuracy = accuracy.value;
  scores.accuracy_stderr = accuracy.standard_error;
  return scores;
}

} // namespace optiq::eval
