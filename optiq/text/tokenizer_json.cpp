#include "optiq/base/error.h"
#include "optiq/text/tokenizer_json_impl.h"

namespace optiq::text {
namespace {

using artifacts::Json;

constexpr std::size_t kMaxDepth = 200;
// The largest published files have 514,906 merges, and 45,000 other values, of
// 300 in one object. A name is looked up among all others of its object.
constexpr std::size_t kMaxMerges = 2u << 20;
constexpr std::size_t kMaxValues = 1u << 20;
constexpr std::size_t kMaxMembers = 1u << 12;

/** Receives the events of nlohmann's SAX parser. */
class Reader {
 public:
  Reader(TokenizerJson& result, const std::string& where)
      : result_(result), where_(where) {}

  bool null() {
    return scalar(nullptr, "null");
  }
  bool boolean(bool value) {
    return scalar(value, "true or false");
  }
  bool number_integer(Json::number_integer_t value) {
    return add_score(static_cast<double>(value)) ||
        scalar(value, "a negative number");
  }
  bool number_unsigned(Json::number_unsigned_t value) {
    if (part_ == Part::Vocabulary) {
      add_token(value);
      return true;
    }
    return add_score(static_cast<double>(value)) || scalar(value, "a number");
  }
  bool number_float(Json::number_float_t value, const std::string&) {
    return add_score(value) || scalar(value, "a number with a fraction");
  }
  bool string(std::string& value) {
    if (part_ == Part::Merges) {
      add_merge_line(value);
      return true;
    }
    if (part_ == Part::MergePair ||
        (part_ == Part::ScoredToken && pair_.empty())) {
      if (pair_.size() == 2) {
        reject_merge("an array of more than 2 strings");
      }
      pair_.push_back(std::move(value));
      return true;
    }
    return scalar(std::move(value), "a string");
  }
  bool binary(Json::binary_t&) {
    return false; // no such event for text
  }

  bool start_object(std::size_t) {
    if (in_model("vocab")) {
      begin_vocabulary(Part::Vocabulary, VocabularyForm::Ids);
      return true;
    }
    return open(Json::object(), "an object");
  }
  bool key(std::string& name) {
    key_ = std::move(name);
    return true;
  }
  bool end_object() {
    if (part_ == Part::Vocabulary) {
      part_ = Part::Rest;
      return true;
    }
    open_.pop_back();
    return true;
  }

  bool start_array(std::size_t) {
    if (part_ == Part::Merges) {
      part_ = Part::MergePair;
      pair_.clear();
      return true;
    }
    if (in_model("merges")) {
      part_ = Part::Merges;
      result_.has_merges = true;
      return true;
    }
    if (part_ == Part::ScoredTokens) {
      part_ = Part::ScoredToken;
      pair_.clear();
      has_score_ = false;
      return true;
    }
    if (in_model("vocab")) {
      begin_vocabulary(Part::ScoredTokens, VocabularyForm::Scores);
      return true;
    }
    return open(Json::array(), "an array");
  }
  bool end_array() {
    if (part_ == Part::MergePair) {
      if (pair_.size() != 2) {
        reject_merge(fmt::format("an array of {} strings", pair_.size()));
      }
      add_merge(std::move(pair_[0]), std::move(pair_[1]));
      part_ = Part::Merges;
      return true;
    }
    if (part_ == Part::ScoredToken) {
      if (!has_score_) {
        reject_scored_token("an array without them");
      }
      part_ = Part::ScoredTokens;
      return true;
    }
    if (part_ == Part::Merges || part_ == Part::ScoredTokens) {
      part_ = Part::Rest;
      return true;
    }
    open_.pop_back();
    return true;
  }

  bool parse_error(
      std::size_t position,
      const std::string& last_token,
      const nlohmann::detail::exception&) {
    fail(
        ErrorKind::Corrupt,
        "[Tokenizer::parse] {}: found '{}' at byte {}, expected JSON. Fetch "
        "the file again",
        where_,
        last_token.substr(0, 40),
        position);
  }

 private:
  enum class Part {
    Rest,
    Vocabulary,
    ScoredTokens,
    ScoredToken,
    Merges,
    MergePair,
  };

  /** Whether the value that comes is model.<name>. */
  bool in_model(std::string_view name) const {
    return part_ == Part::Rest && open_.size() == 2 && key_ == name &&
        open_[1] == model_;
  }

  void begin_vocabulary(Part part, VocabularyForm form) {
    if (result_.vocabulary_form != VocabularyForm::None) {
      fail(
          ErrorKind::Corrupt,
          "[Tokenizer::parse] {}.model.vocab: found twice, expected one "
          "vocabulary. Fetch the file again",
          where_);
    }
    part_ = part;
    result_.vocabulary_form = form;
  }

  void add_token(std::uint64_t id) {
    if (id >= kMaxTokens) {
      fail(
          ErrorKind::Corrupt,
          "[Tokenizer::parse] {}.model.vocab: found id {} for '{}', expected "
          "at most {}. Fetch the file again",
          where_,
          id,
          key_,
          kMaxTokens - 1);
    }
    if (!result_.vocabulary.add(key_, static_cast<std::uint32_t>(id))) {
      fail(
          ErrorKind::Corrupt,
          "[Tokenizer::parse] {}.model.vocab: found id {} twice, the second "
          "time for '{}', expected one token per id. Fetch the file again",
          where_,
          id,
          key_);
    }
  }

  [[noreturn]] void reject_scored_token(const std::string& found) const {
    fail(
        ErrorKind::Corrupt,
        "[Tokenizer::parse] {}.model.vocab[{}]: found {}, expected a token and "
        "its score as ['token', -1.5]. Fetch the file again",
        where_,
        result_.scores.size(),
        found);
  }

  /** False when no score is due. */
  bool add_score(double score) {
    if (part_ != Part::ScoredToken || pair_.empty() || has_score_) {
      return false;
    }
    const std::size_t id = result_.scores.size();
    if (id == kMaxTokens) {
      reject_scored_token(fmt::format("more than {} tokens", kMaxTokens));
    }
    result_.vocabulary.add(pair_[0], static_cast<std::uint32_t>(id));
    result_.scores.push_back(score);
    has_score_ = true;
    return true;
  }

  [[noreturn]] void reject_merge(const std::string& found) const {
    fail(
        ErrorKind::Corrupt,
        "[Tokenizer::parse] {}.model.merges[{}]: found {}, expected two tokens "
        "as 'left right' or ['left', 'right']. Fetch the file again",
        where_,
        result_.merges.size(),
        found);
  }

  void add_merge_line(const std::string& line) {
    if (line.starts_with("#version")) {
      return; // the first line of a merges.txt that was taken over
    }
    const std::size_t space = line.find(' ');
    if (space == std::string::npos ||
        line.find(' ', space + 1) != std::string::npos) {
      reject_merge("'" + line.substr(0, 80) + "'");
    }
    add_merge(line.substr(0, space), line.substr(space + 1));
  }

  void add_merge(std::string left, std::string right) {
    if (result_.merges.size() == kMaxMerges) {
      fail_too_large(".model.merges", kMaxMerges, "merges");
    }
    result_.merges.emplace_back(std::move(left), std::move(right));
  }

  [[noreturn]] void
  fail_too_large(const char* part, std::size_t limit, const char* unit) const {
    fail(
        ErrorKind::Corrupt,
        "[Tokenizer::parse] {}{}: found more than {} {}, expected at most that "
        "many. Is it a tokenizer?",
        where_,
        part,
        limit,
        unit);
  }

  void check_part(const char* found) const {
    if (part_ == Part::Vocabulary) {
      fail(
          ErrorKind::Corrupt,
          "[Tokenizer::parse] {}.model.vocab: found {} for '{}', expected an "
          "id. Fetch the file again",
          where_,
          found,
          key_);
    }
    if (part_ == Part::ScoredTokens || part_ == Part::ScoredToken) {
      reject_scored_token(found);
    }
    if (part_ != Part::Rest) {
      reject_merge(found);
    }
  }

  Json* place(Json value) {
    if (++n_values_ > kMaxValues) {
      fail_too_large("", kMaxValues, "values beside vocabulary and merges");
    }
    if (open_.empty()) {
      result_.document = std::move(value);
      return &result_.document;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    if (parent.size() == kMaxMembers) {
      fail_too_large("", kMaxMembers, "members of one object");
    }
    Json& slot = parent[key_];
    slot = std::move(value);
    return &slot;
  }

  bool scalar(Json value, const char* found) {
    check_part(found);
    place(std::move(value));
    return true;
  }

  bool open(Json empty, const char* found) {
    check_part(found);
    if (open_.size() == kMaxDepth) {
      fail(
          ErrorKind::Corrupt,
          "[Tokenizer::parse] {}: found values nested deeper than {}, expected "
          "a tokenizer. Fetch the file again",
          where_,
          kMaxDepth);
    }
    const bool is_model = open_.size() == 1 && key_ == "model";
    Json* slot = place(std::move(empty));
    open_.push_back(slot);
    if (is_model) {
      model_ = slot;
    }
    return true;
  }

  TokenizerJson& result_;
  const std::string& where_;
  Part part_ = Part::Rest;
  std::size_t n_values_ = 0; // of the document
  // Containers from the root down. A parent does not grow while one of its
  // children is open, so the pointers stay good.
  std::vector<Json*> open_;
  Json* model_ = nullptr;
  std::string key_;
  std::vector<std::string> pair_; // of a merge, or a token
  bool has_score_ = false; // of the token
};

} // namespace

TokenizerJson read_tokenizer_json(
    std::string_view text,
    const std::string& where) {
  TokenizerJson result;
  Reader reader(result, where);
  Json::sax_parse(text.begin(), text.end(), &reader);
  if (const auto twice = result.vocabulary.index()) {
    fail(
        ErrorKind::Corrupt,
        "[Tokenizer::parse] {}.model.vocab: found '{}' twice, expected one id "
        "per token. Fetch the file again",
        where,
        *twice);
  }
  return result;
}

} // namespace optiq::text
