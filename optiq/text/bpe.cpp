#include <algorithm>
#include <bit>
#include <queue>

#include "optiq/base/error.h"
#include "optiq/text/bpe_impl.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {
namespace {

// Up to here scanning for the best pair beats a heap.
constexpr std::size_t kShortWord = 48;
constexpr std::uint32_t kEnd = ~0u; // no next symbol

std::uint64_t pair_key(std::uint32_t left, std::uint32_t right) {
  return std::uint64_t{left} << 32 | right;
}

/** A merge that was possible when it was queued. */
struct Candidate {
  std::uint32_t rank;
  std::uint32_t at; // index of the left symbol
  std::uint32_t rule;

  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : at > other.at;
  }
};

} // namespace

BpeModel::BpeModel(
    const Vocabulary& vocabulary,
    const std::vector<BpeMerge>& merges,
    BpeOptions options)
    : vocabulary_(vocabulary),
      options_(std::move(options)),
      marks_(
          !options_.continuing_prefix.empty() || !options_.end_suffix.empty()) {
  slots_.resize(std::bit_ceil(2 * merges.size() + 2));
  shift_ = 64 - std::countr_zero(slots_.size());
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const BpeMerge& merge = merges[rank];
    const std::uint64_t pair = pair_key(merge.left, merge.right);
    slots_[slot_of(pair)] = {
        pair, static_cast<std::uint32_t>(rank), merge.merged};
  }
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    byte_ids_.push_back(
        vocabulary_.find(alphabet_.spelling(static_cast<std::uint8_t>(byte)))
            .value_or(kUnknown));
    fallback_ids_.push_back(
        vocabulary_.find(fmt::format("<0x{:02X}>", byte)).value_or(kUnknown));
  }
}

std::size_t BpeModel::slot_of(std::uint64_t pair) const {
  const std::size_t mask = slots_.size() - 1;
  // Fibonacci hashing: the high bits of the product depend on all of the pair.
  std::size_t slot = pair * 0x9E3779B97F4A7C15u >> shift_;
  while (slots_[slot].pair != pair && slots_[slot].rank != kNoRule) {
    slot = (slot + 1) & mask;
  }
  return slot;
}

std::uint32_t BpeModel::find_rule(std::uint32_t left, std::uint32_t right)
    const {
  const std::size_t slot = slot_of(pair_key(left, right));
  return slots_[slot].rank == kNoRule ? kNoRule
                                      : static_cast<std::uint32_t>(slot);
}

std::uint32_t BpeModel::unknown_id() const {
  const auto id = vocabulary_.find(options_.unk_token);
  if (!id) {
    fail(
        ErrorKind::Corrupt,
        "[Tokenizer::encode] model.unk_token: found '{}', expected a token of "
        "model.vocab, since the text has a character that is not in it. Fetch "
        "tokenizer.json again",
        options_.unk_token);
  }
  return *id;
}

bool BpeModel::add_fallback_bytes(std::string_view character, Scratch& scratch)
    const {
  const auto id_of = [&](char c) {
    return fallback_ids_[static_cast<unsigned char>(c)];
  };
  if (std::any_of(character.begin(), character.end(), [&](char c) {
        return id_of(c) == kUnknown;
      })) {
    return false;
  }
  for (const char c : character) {
    scratch.symbols.push_back({id_of(c), kNoRule, 0, 0});
  }
  return true;
}

void BpeModel::add_character(
    std::string_view character,
    PendingUnknown& pending,
    Scratch& scratch) const {
  const auto id = vocabulary_.find(character);
  if (!id && options_.byte_fallback && add_fallback_bytes(character, scratch)) {
    return; // as in the original, behind which a pending unknown then comes
  }
  if (!id && options_.unk_token.empty()) {
    return;
  }
  if (pending.any && (id || !options_.fuse_unk)) {
    scratch.symbols.push_back({unknown_id(), kNoRule, 0, 0});
  }
  pending.any = !id;
  if (id) {
    scratch.symbols.push_back({*id, kNoRule, 0, 0});
  }
}

/** The character as the vocabulary has it at its place in a word. */
std::string_view BpeModel::mark(
    std::string_view character,
    bool first,
    bool last,
    Scratch& scratch) const {
  scratch.marked.assign(first ? "" : options_.continuing_prefix);
  scratch.marked += character;
  scratch.marked += last ? options_.end_suffix : "";
  return scratch.marked;
}

void BpeModel::split_word(std::string_view word, Scratch& scratch) const {
  scratch.symbols.clear();
  PendingUnknown pending;
  for (std::size_t at = 0; at < word.size();) {
    const auto byte = static_cast<std::uint8_t>(word[at]);
    const std::size_t begin = at;
    at += options_.byte_level ? 1 : decode_character(word.data() + at).length;
    if (options_.byte_level && !marks_ && !pending.any &&
        byte_ids_[byte] != kUnknown) {
      scratch.symbols.push_back({byte_ids_[byte], kNoRule, 0, 0});
      continue;
    }
    const std::string_view character = options_.byte_level
        ? std::string_view(alphabet_.spelling(byte))
        : word.substr(begin, at - begin);
    add_character(
        marks_ ? mark(character, begin == 0, at == word.size(), scratch)
               : character,
        pending,
        scratch);
  }
  if (pending.any) {
    scratch.symbols.push_back({unknown_id(), kNoRule, 0, 0});
  }
}

void BpeModel::merge_short(std::vector<Scratch::Symbol>& symbols) const {
  const auto set_rule = [&](std::size_t i) {
    symbols[i].rule = i + 1 < symbols.size()
        ? find_rule(symbols[i].id, symbols[i + 1].id)
        : kNoRule;
  };
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    set_rule(i);
  }
  for (;;) {
    std::size_t best = 0;
    std::uint32_t best_rank = kNoRule;
    for (std::size_t i = 0; i < symbols.size(); ++i) {
      if (symbols[i].rule != kNoRule &&
          slots_[symbols[i].rule].rank < best_rank) {
        best = i;
        best_rank = slots_[symbols[i].rule].rank;
      }
    }
    if (best_rank == kNoRule) {
      return;
    }
    symbols[best].id = slots_[symbols[best].rule].merged;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    set_rule(best);
    if (best > 0) {
      set_rule(best - 1);
    }
  }
}

void BpeModel::merge_long(std::vector<Scratch::Symbol>& symbols) const {
  const auto n = static_cast<std::uint32_t>(symbols.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](std::uint32_t at) {
    Scratch::Symbol& left = symbols[at];
    left.rule =
        left.next == kEnd ? kNoRule : find_rule(left.id, symbols[left.next].id);
    if (left.rule != kNoRule) {
      queue.push({slots_[left.rule].rank, at, left.rule});
    }
  };
  for (std::uint32_t i = 0; i < n; ++i) {
    symbols[i].previous = i == 0 ? kEnd : i - 1;
    symbols[i].next = i + 1 < n ? i + 1 : kEnd;
  }
  for (std::uint32_t i = 0; i < n; ++i) {
    offer(i);
  }
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Scratch::Symbol& left = symbols[top.at];
    if (left.rule != top.rule) {
      continue; // one of the two has merged since
    }
    left.id = slots_[top.rule].merged;
    Scratch::Symbol& right = symbols[left.next];
    right.rule = kNoRule;
    right.id = kUnknown; // gone
    left.next = right.next;
    if (left.next != kEnd) {
      symbols[left.next].previous = top.at;
    }
    offer(top.at);
    if (left.previous != kEnd) {
      offer(left.previous);
    }
  }
  std::erase_if(symbols, [](const auto& s) { return s.id == kUnknown; });
}

void BpeModel::encode(
    std::string_view word,
    Scratch& scratch,
    std::vector<std::int32_t>& ids) const {
  if (options_.ignore_merges) {
    if (options_.byte_level) {
      scratch.spelled = alphabet_.spell(word);
    }
    const auto id =
        vocabulary_.find(options_.byte_level ? scratch.spelled : word);
    if (id) {
      ids.push_back(static_cast<std::int32_t>(*id));
      return;
    }
  }
  split_word(word, scratch);
  if (scratch.symbols.size() <= kShortWord) {
    merge_short(scratch.symbols);
  } else {
    merge_long(scratch.symbols);
  }
  for (const auto& symbol : scratch.symbols) {
    ids.push_back(static_cast<std::int32_t>(symbol.id));
  }
}

} // namespace optiq::text
