#include <algorithm>

#include "optiq/text/sentencepiece_bpe_impl.h"
#include "optiq/text/unicode_impl.h"

namespace optiq::text {
namespace {

using Type = SentencePiece::Type;
using Candidate = SentencePieceBpe::Scratch::Candidate;

constexpr std::uint32_t kEnd = ~0u; // no symbol

/** Order of a heap whose top is merged first. */
bool comes_later(const Candidate& a, const Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

/** 0 for the pieces of the highest score, 1 for those of the next. */
std::vector<std::uint32_t> rank_by_score(
    const std::vector<SentencePiece>& pieces) {
  std::vector<std::uint32_t> order(pieces.size());
  for (std::uint32_t id = 0; id < order.size(); ++id) {
    order[id] = id;
  }
  std::sort(order.begin(), order.end(), [&](auto a, auto b) {
    return pieces[a].score > pieces[b].score;
  });
  std::vector<std::uint32_t> ranks(pieces.size());
  std::uint32_t rank = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    rank += i > 0 && pieces[order[i]].score != pieces[order[i - 1]].score;
    ranks[order[i]] = rank;
  }
  return ranks;
}

} // namespace

SentencePieceBpe::SentencePieceBpe(
    const Vocabulary& vocabulary,
    const SentencePieceModel& model)
    : vocabulary_(vocabulary),
      unknown_id_(model.unknown_id),
      merges_(model.kind == SentencePieceModel::Kind::Bpe),
      ranks_(rank_by_score(model.pieces)),
      user_defined_(user_defined_pieces(model)),
      byte_ids_(model.byte_ids) {
  for (std::uint32_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    if (piece.type == Type::Unused) {
      is_unused_.resize(model.pieces.size());
      is_unused_[id] = true;
    }
    if (piece.type != Type::Normal && piece.type != Type::Unused) {
      ranks_[id] = kNeverMerges;
    }
  }
}

void SentencePieceBpe::split(std::string_view text, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  for (std::uint32_t at = 0; at < text.size();) {
    Scratch::Symbol symbol;
    symbol.begin = at;
    symbol.previous = static_cast<std::uint32_t>(symbols.size()) - 1;
    symbol.next = static_cast<std::uint32_t>(symbols.size()) + 1;
    if (user_defined_) {
      user_defined_->for_each_prefix(
          text.substr(at), [&](std::size_t size, std::uint32_t id) {
            symbol.size = static_cast<std::uint32_t>(size);
            symbol.id = id;
          });
    }
    if (symbol.size == 0) {
      symbol.size = decode_character(text.data() + at).length;
      symbol.id =
          vocabulary_.find(text.substr(at, symbol.size)).value_or(kNone);
    } else {
      symbol.frozen = true;
    }
    at += symbol.size;
    symbols.push_back(symbol);
  }
  if (!symbols.empty()) {
    symbols.back().next = kEnd;
  }
}

/** Queues the symbol with the next one, if they spell a piece. */
void SentencePieceBpe::offer(
    std::string_view text,
    std::uint32_t left,
    Scratch& scratch) const {
  const Scratch::Symbol& a = scratch.symbols[left];
  if (a.next == kEnd || a.frozen || scratch.symbols[a.next].frozen) {
    return;
  }
  const Scratch::Symbol& b = scratch.symbols[a.next];
  const auto id = vocabulary_.find(text.substr(a.begin, a.size + b.size));
  if (!id || ranks_[*id] == kNeverMerges) {
    return;
  }
  scratch.queue.push_back({ranks_[*id], left, a.next, a.size + b.size, *id});
  std::push_heap(scratch.queue.begin(), scratch.queue.end(), comes_later);
  if (!is_unused_.empty() && is_unused_[*id]) {
    scratch.unused[*id] = {
        {a.id, text.substr(a.begin, a.size)},
        {b.id, text.substr(b.begin, b.size)}};
  }
}

void SentencePieceBpe::merge(std::string_view text, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& queue = scratch.queue;
  queue.clear();
  scratch.unused.clear();
  for (std::uint32_t i = 0; i < symbols.size(); ++i) {
    offer(text, i, scratch);
  }
  while (!queue.empty()) {
    const Candidate top = queue.front();
    std::pop_heap(queue.begin(), queue.end(), comes_later);
    queue.pop_back();
    Scratch::Symbol& left = symbols[top.left];
    Scratch::Symbol& right = symbols[top.right];
    if (left.size == 0 || right.size == 0 ||
        left.size + right.size != top.size) {
      continue; // one of the two has merged since
    }
    left.size = top.size;
    left.id = top.id;
    left.next = right.next;
    right.size = 0;
    if (left.next != kEnd) {
      symbols[left.next].previous = top.left;
    }
    if (left.previous != kEnd) {
      offer(text, left.previous, scratch);
    }
    offer(text, top.left, scratch);
  }
}

/** Appends a symbol: an unused piece as what it was merged from, what is no
 * piece as bytes or as one unknown token for a run. */
void SentencePieceBpe::append(
    const Scratch::Part& part,
    const Scratch& scratch,
    bool& after_unknown,
    std::vector<std::int32_t>& ids) const {
  const bool is_unused =
      !is_unused_.empty() && part.id != kNone && is_unused_[part.id];
  if (is_unused) {
    const auto parts = scratch.unused.find(part.id);
    if (parts != scratch.unused.end()) {
      append(parts->second.first, scratch, after_unknown, ids);
      append(parts->second.second, scratch, after_unknown, ids);
      return;
    }
  }
  const bool is_unknown =
      part.id == kNone || part.id == unknown_id_ || is_unused;
  if (is_unknown && byte_ids_) {
    for (const char c : part.text) {
      ids.push_back(static_cast<std::int32_t>(
          (*byte_ids_)[static_cast<unsigned char>(c)]));
    }
  } else if (!is_unknown) {
    ids.push_back(static_cast<std::int32_t>(part.id));
  } else if (!after_unknown) {
    ids.push_back(static_cast<std::int32_t>(unknown_id_));
  }
  after_unknown = is_unknown;
}

void SentencePieceBpe::encode(
    std::string_view text,
    Scratch& scratch,
    std::vector<std::int32_t>& ids) const {
  split(text, scratch);
  if (merges_) {
    merge(text, scratch);
  }
  bool after_unknown = false;
  for (const auto& symbol : scratch.symbols) {
    if (symbol.size != 0) {
      append(
          {symbol.id, text.substr(symbol.begin, symbol.size)},
          scratch,
          after_unknown,
          ids);
    }
  }
}

} // namespace optiq::text
