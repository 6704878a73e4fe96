#include "optiq/cache/prefix_tree.h"

#include <algorithm>
#include <utility>

#include "optiq/base/error.h"

namespace optiq::cache {
namespace {

using kernels::BlockId;
using Tokens = std::span<const std::int32_t>;

constexpr std::size_t kBlock = kernels::kKvBlockTokens;
constexpr std::size_t kMostNodes = 1 << 14; // a million tokens

std::vector<std::int32_t> copy_of(Tokens tokens) {
  return {tokens.begin(), tokens.end()};
}

/** The tokens of block `block`, the last of which may have fewer than 64. */
Tokens block_of(Tokens tokens, std::size_t block) {
  const Tokens rest = tokens.subspan(block * kBlock);
  return rest.first(std::min(rest.size(), kBlock));
}

} // namespace

/** The tree of one key and layout. */
struct PrefixTree::Root {
  Root(PrefixTree& in, std::vector<LayerFormat> with_layers);

  PrefixTree& tree;
  std::vector<LayerFormat> layers;
  std::unique_ptr<Node> top; // stands for no tokens
};

/** Up to 64 tokens after those of the parent. */
struct PrefixTree::Node {
  using Children = std::map<std::vector<std::int32_t>, std::unique_ptr<Node>>;

  Node(Root& in, Node* under, const std::vector<std::int32_t>* tokens)
      : root(in),
        parent(under),
        piece(tokens),
        length(under == nullptr ? 0 : under->length + tokens->size()),
        blocks(in.layers.size()) {
    root.tree.n_nodes_ += parent == nullptr ? 0 : 1;
  }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  ~Node() {
    root.tree.n_nodes_ -= parent == nullptr ? 0 : 1;
    drop_snapshot();
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      if (blocks[i] != BlockId::None) {
        pool().release_kept(blocks[i], piece_bytes(root.layers[i]));
      }
    }
  }

  BlockPool& pool() const {
    return *root.tree.pool_;
  }
  bool is_leaf() const {
    return children.empty() && ends.empty();
  }
  /** Where a piece of these tokens hangs, or would. */
  Children& children_for(Tokens tokens) {
    return tokens.size() == kBlock ? children : ends;
  }
  Node* child(Tokens tokens) {
    Children& among = children_for(tokens);
    const auto found = among.find(copy_of(tokens));
    return found == among.end() ? nullptr : found->second.get();
  }

  /** Pieces after this node that begin like `rest`, each with how many of its
   * tokens are the same, at most 63, the most first: those that have the most
   * in common with it, and the ends that it begins with. */
  std::vector<std::pair<Node*, std::size_t>> pieces_like(Tokens rest);

  /** Takes the K/V of this piece from a sequence where it is missing. */
  void keep_blocks(const Sequence& sequence) {
    const std::size_t block = (length - 1) / kBlock;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const auto table = sequence.blocks(static_cast<int>(i));
      if (std::holds_alternative<kernels::KvFormat>(root.layers[i]) &&
          blocks[i] == BlockId::None && table[block] != BlockId::None) {
        pool().keep(table[block], piece_bytes(root.layers[i]));
        blocks[i] = table[block];
      }
    }
  }
  void set_snapshot(std::unique_ptr<Sequence> taken) {
    drop_snapshot();
    root.tree.snapshot_bytes_ += taken->bytes();
    snapshot = std::move(taken);
  }
  void drop_snapshot() {
    if (snapshot != nullptr) {
      root.tree.snapshot_bytes_ -= snapshot->bytes();
      snapshot.reset();
    }
  }

  /** Whether its end gives memory back. */
  bool frees_memory() const {
    return snapshot != nullptr ||
        std::any_of(blocks.begin(), blocks.end(), [&](BlockId block) {
             return block != BlockId::None && !pool().is_shared(block);
           });
  }

  Root& root;
  Node* parent;
  const std::vector<std::int32_t>* piece; // its key in the parent
  std::size_t length; // tokens from the first one to its last
  Children children; // of 64 tokens each
  Children ends; // of fewer, leaves
  std::vector<BlockId> blocks; // per layer, None where not kept
  std::unique_ptr<Sequence> snapshot; // of the states at its end, or null
  std::uint64_t used = 0;
  std::uint64_t snapshot_used = 0;
};

PrefixTree::Root::Root(PrefixTree& in, std::vector<LayerFormat> with_layers)
    : tree(in),
      layers(std::move(with_layers)),
      top(std::make_unique<Node>(*this, nullptr, nullptr)) {}

namespace {

/** Names a node that eviction spares, as long as this lives. */
template <typename Node>
class Pin {
 public:
  Pin(const Node*& place, const Node* node) : place_(place) {
    place_ = node;
  }
  ~Pin() {
    place_ = nullptr;
  }
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;

 private:
  const Node*& place_;
};

/** Calls visit(node) for every node but the first. */
void for_each_below(auto& first, const auto& visit) {
  std::vector<std::remove_reference_t<decltype(first)>*> open{&first};
  while (!open.empty()) {
    auto* node = open.back();
    open.pop_back();
    for (auto* among : {&node->children, &node->ends}) {
      for (auto& [tokens, child] : *among) {
        open.push_back(child.get());
        visit(*child);
      }
    }
  }
}

/** Whether a sequence can resume the first `length` tokens of a path, which end
 * in its last piece: the blocks that the next token sees were kept, and states,
 * which stand at the end of a piece only. */
bool can_resume(const auto& path, std::size_t length) {
  const auto* end = path.back();
  const auto& layers = end->root.layers;
  if (fixed_bytes(layers) > 0 &&
      (end->snapshot == nullptr || length != end->length)) {
    return false;
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto* kv = std::get_if<kernels::KvFormat>(&layers[i]);
    if (kv == nullptr) {
      continue;
    }
    for (auto b = first_visible_block(*kv, static_cast<int>(length));
         b < path.size();
         ++b) {
      if (path[b]->blocks[i] == BlockId::None) {
        return false;
      }
    }
  }
  return true;
}

bool can_resume(const auto& path) {
  return can_resume(path, path.back()->length);
}

void require_tokens_of(const Sequence& sequence, Tokens tokens) {
  if (tokens.size() != static_cast<std::size_t>(sequence.length())) {
    fail(
        ErrorKind::InvalidInput,
        "[PrefixTree::insert] tokens: found {}, expected the {} that the "
        "sequence holds.",
        tokens.size(),
        sequence.length());
  }
}

} // namespace

std::vector<std::pair<PrefixTree::Node*, std::size_t>>
PrefixTree::Node::pieces_like(Tokens rest) {
  std::vector<std::pair<Node*, std::size_t>> found;
  const std::size_t most = std::min(rest.size(), kBlock - 1);
  const auto look_at = [&](const auto& place) {
    if (const auto n = std::min(common_length(place->first, rest), most)) {
      found.emplace_back(place->second.get(), n);
    }
  };
  const std::vector<std::int32_t> wanted = copy_of(rest);
  for (Children* among : {&children, &ends}) {
    // In their order none has more in common with it than its neighbours.
    auto after = among->lower_bound(wanted);
    if (after != among->end()) {
      look_at(after);
    }
    if (after != among->begin()) {
      look_at(--after);
    }
  }
  for (std::size_t n = ends.empty() ? 0 : most; n > 0; --n) {
    if (Node* const end = child(rest.first(n))) {
      found.emplace_back(end, n);
    }
  }
  std::stable_sort(
      found.begin(), found.end(), [](const auto& a, const auto& b) {
        return a.second > b.second;
      });
  return found;
}

std::size_t common_length(Tokens a, Tokens b) {
  return static_cast<std::size_t>(
      std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

bool needs_border(std::span<const LayerFormat> layers) {
  return std::any_of(
      layers.begin(), layers.end(), [](const LayerFormat& layer) {
        const auto* kv = std::get_if<kernels::KvFormat>(&layer);
        return kv != nullptr ? kv->window > 0
                             : std::holds_alternative<RecurrentFormat>(layer);
      });
}

int border_to_keep(
    std::span<const LayerFormat> layers,
    int from,
    int n_tokens) {
  const int border =
      n_tokens / kernels::kKvBlockTokens * kernels::kKvBlockTokens;
  const auto tokens = static_cast<std::size_t>(std::max(0, border - from));
  const bool pays =
      fixed_bytes(layers) <= 2 * tokens * bytes_per_token(layers, from);
  return tokens > 0 && pays ? border : 0;
}

PrefixTree::PrefixTree(std::shared_ptr<BlockPool> pool)
    : pool_(std::move(pool)) {
  pool_->set_reclaimer([this] { return evict_some(); });
}

PrefixTree::~PrefixTree() {
  pool_->set_reclaimer({});
}

PrefixTree::Root* PrefixTree::find_root(
    std::string_view key,
    std::span<const LayerFormat> layers) const {
  const auto of_key = roots_.find(key);
  if (of_key == roots_.end()) {
    return nullptr;
  }
  for (const auto& root : of_key->second) {
    if (is_same(root->layers, layers)) {
      return root.get();
    }
  }
  return nullptr;
}

PrefixTree::Root& PrefixTree::root_of(
    std::string_view key,
    const std::vector<LayerFormat>& layers) {
  if (Root* const root = find_root(key, layers)) {
    return *root;
  }
  auto& of_key = roots_[std::string(key)];
  of_key.push_back(std::make_unique<Root>(*this, layers));
  return *of_key.back();
}

PrefixTree::Path PrefixTree::walk(const Root& root, Tokens tokens) const {
  Path path;
  Node* node = root.top.get();
  while (path.size() < tokens.size() / kBlock) {
    node = node->child(block_of(tokens, path.size()));
    if (node == nullptr) {
      break;
    }
    path.push_back(node);
  }
  return path;
}

PrefixTree::Beginning
PrefixTree::beginning_of(const Root& root, Path path, Tokens tokens) const {
  while (true) {
    Node& last = path.empty() ? *root.top : *path.back();
    const Tokens rest = block_of(tokens, path.size());
    for (const auto& [node, n] : last.pieces_like(rest)) {
      path.push_back(node);
      if (can_resume(path, last.length + n)) {
        return {std::move(path), last.length + n};
      }
      path.pop_back();
    }
    if (path.empty() || can_resume(path)) {
      return {std::move(path), last.length};
    }
    path.pop_back();
  }
}

PrefixTree::Match PrefixTree::find(
    std::string_view key,
    std::span<const LayerFormat> layers,
    Tokens tokens) const {
  Match match;
  const Root* const root = find_root(key, layers);
  if (root == nullptr || tokens.empty()) {
    return match;
  }
  tokens = tokens.first(tokens.size() - 1);
  Path path = walk(*root, tokens);
  match.known_length = static_cast<int>(path.size() * kBlock);
  const auto [resumed, length] = beginning_of(*root, std::move(path), tokens);
  match.length = static_cast<int>(length);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto* kv = std::get_if<kernels::KvFormat>(&layers[i]);
    // Of whole blocks; a last one that is not is copied.
    const std::size_t end = length / kBlock;
    for (auto b = kv == nullptr ? end : first_visible_block(*kv, match.length);
         b < end;
         ++b) {
      if (pool_->is_shared(resumed[b]->blocks[i])) {
        match.held_bytes += kv->block_bytes();
      }
    }
  }
  return match;
}

std::unique_ptr<Sequence> PrefixTree::resume(
    std::string_view key,
    const std::vector<LayerFormat>& layers,
    Tokens tokens) {
  if (const Root* const root = find_root(key, layers);
      root != nullptr && !tokens.empty()) {
    tokens = tokens.first(tokens.size() - 1);
    const Beginning beginning =
        beginning_of(*root, walk(*root, tokens), tokens);
    if (beginning.length > 0) {
      // What it needs itself must not drive out what it begins with.
      const Pin pin(pinned_, beginning.path.back());
      if (auto sequence = resume_at(layers, beginning)) {
        return sequence;
      }
    }
  }
  return std::make_unique<Sequence>(pool_, layers);
}

std::unique_ptr<Sequence> PrefixTree::resume_at(
    const std::vector<LayerFormat>& layers,
    const Beginning& beginning) {
  if (!pool_->make_room(fixed_bytes(layers))) {
    return nullptr;
  }
  auto sequence = std::make_unique<Sequence>(pool_, layers);
  const Path& path = beginning.path;
  const auto length = static_cast<int>(beginning.length);
  std::vector<std::vector<BlockId>> blocks(layers.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto* kv = std::get_if<kernels::KvFormat>(&layers[i]);
    if (kv != nullptr) {
      blocks[i].resize(path.size());
      for (auto b = first_visible_block(*kv, length); b < path.size(); ++b) {
        blocks[i][b] = path[b]->blocks[i];
      }
    }
  }
  ++clock_;
  for (Node* node : path) {
    node->used = clock_;
  }
  path.back()->snapshot_used = clock_;
  return sequence->resume(length, blocks, path.back()->snapshot.get())
      ? std::move(sequence)
      : nullptr;
}

void PrefixTree::insert(
    std::string_view key,
    Tokens tokens,
    const Sequence& sequence) {
  require_tokens_of(sequence, tokens);
  const auto& layers = sequence.layers();
  const std::size_t rest = tokens.size() % kBlock;
  const bool has_states = fixed_bytes(layers) > 0;
  tokens = tokens.first(tokens.size() - rest);
  if (tokens.empty() || (has_states && rest != 0)) {
    return;
  }
  // First, since room for it may be made by eviction anywhere.
  std::unique_ptr<Sequence> snapshot;
  const Root* const root = find_root(key, layers);
  const Path there = root == nullptr ? Path{} : walk(*root, tokens);
  if (has_states &&
      (there.size() * kBlock < tokens.size() ||
       there.back()->snapshot == nullptr)) {
    if (!pool_->make_room(fixed_bytes(layers))) {
      return;
    }
    snapshot = std::make_unique<Sequence>(pool_, layers);
    snapshot->copy_states(sequence);
  }
  add(key, tokens, sequence, std::move(snapshot));
}

void PrefixTree::insert_whole(
    std::string_view key,
    Tokens tokens,
    std::unique_ptr<Sequence> sequence) {
  require_tokens_of(*sequence, tokens);
  if (!tokens.empty()) {
    const Sequence& whole = *sequence;
    const bool has_states = fixed_bytes(whole.layers()) > 0;
    add(key, tokens, whole, has_states ? std::move(sequence) : nullptr);
  }
}

void PrefixTree::add(
    std::string_view key,
    Tokens tokens,
    const Sequence& sequence,
    std::unique_ptr<Sequence> snapshot) {
  ++clock_;
  Root& root = root_of(key, sequence.layers());
  Node* node = root.top.get();
  Path path;
  for (std::size_t b = 0; b * kBlock < tokens.size(); ++b) {
    const Tokens piece = block_of(tokens, b);
    const auto [place, is_new] =
        node->children_for(piece).try_emplace(copy_of(piece));
    if (is_new) {
      place->second = std::make_unique<Node>(root, node, &place->first);
    }
    node = place->second.get();
    node->used = clock_;
    node->keep_blocks(sequence);
    path.push_back(node);
  }
  if (snapshot != nullptr && node->snapshot == nullptr) {
    snapshot->drop_kv();
    node->set_snapshot(std::move(snapshot));
  }
  node->snapshot_used = clock_;
  if (node->is_leaf() && !can_resume(path)) {
    remove(node);
  }
  if (n_nodes_ > kMostNodes) {
    trim();
  }
}

void PrefixTree::remove(Node* leaf) {
  Path path;
  for (Node* node = leaf; node->parent != nullptr; node = node->parent) {
    path.push_back(node);
  }
  std::reverse(path.begin(), path.end());
  const Root* const root = &leaf->root;
  do {
    const Node& last = *path.back();
    auto& among = last.parent->children_for(*last.piece);
    among.erase(among.find(*last.piece));
    path.pop_back();
  } while (!path.empty() && path.back()->is_leaf() && !can_resume(path));
  if (root->top->is_leaf()) {
    for (auto& [key, roots] : roots_) {
      std::erase_if(roots, [&](const auto& r) { return r.get() == root; });
    }
    std::erase_if(
        roots_, [](const auto& of_key) { return of_key.second.empty(); });
  }
}

void PrefixTree::trim() {
  // Some at once, so that not every insertion walks all of them.
  constexpr std::size_t kWanted = kMostNodes / 8 * 7;
  while (n_nodes_ > kWanted) {
    std::vector<Node*> leaves;
    for (auto& [key, roots] : roots_) {
      for (auto& root : roots) {
        for_each_below(*root->top, [&](Node& node) {
          if (node.is_leaf()) {
            leaves.push_back(&node);
          }
        });
      }
    }
    std::sort(leaves.begin(), leaves.end(), [](const Node* a, const Node* b) {
      return a->used < b->used;
    });
    for (Node* leaf : leaves) {
      if (n_nodes_ <= kWanted) {
        break;
      }
      remove(leaf);
    }
  }
}

bool PrefixTree::evict_some() {
  Node* leaf = nullptr; // the least recently used
  Node* freeing_leaf = nullptr; // among those that give memory back
  Node* snapshot = nullptr; // among those of inner nodes
  const auto take_older = [](Node*& oldest, Node& node, auto Node::*used) {
    if (oldest == nullptr || node.*used < oldest->*used) {
      oldest = &node;
    }
  };
  for (auto& [key, roots] : roots_) {
    for (auto& root : roots) {
      for_each_below(*root->top, [&](Node& node) {
        if (&node == pinned_) {
          return;
        }
        if (node.is_leaf()) {
          take_older(leaf, node, &Node::used);
          if (node.frees_memory()) {
            take_older(freeing_leaf, node, &Node::used);
          }
        } else if (node.snapshot != nullptr) {
          take_older(snapshot, node, &Node::snapshot_used);
        }
      });
    }
  }
  if (snapshot != nullptr &&
      (freeing_leaf == nullptr ||
       snapshot->snapshot_used < freeing_leaf->used)) {
    snapshot->drop_snapshot();
    return true;
  }
  // A leaf that sequences hold may hide hidden blocks of its ancestors.
  Node* victim = freeing_leaf != nullptr ? freeing_leaf : leaf;
  if (victim == nullptr || kept_bytes() == 0) {
    return false;
  }
  remove(victim);
  return true;
}

} // namespace optiq::cache
