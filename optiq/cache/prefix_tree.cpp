#include "optiq/cache/prefix_tree.h"

#include <algorithm>
#include <utility>

#include "optiq/base/error.h"

namespace optiq::cache {

/** 64 tokens after those of the parent; a root stands for none. */
struct PrefixTree::Node {
  Node(PrefixTree& in, Node* under) : tree(in), parent(under) {}
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  ~Node() {
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      if (blocks[i] != kernels::BlockId::None) {
        tree.pool_->release(blocks[i], piece_bytes(tree.layers_[i]));
      }
    }
  }

  bool is_root() const {
    return parent == nullptr;
  }
  /** Whether its end gives memory back. */
  bool frees_memory() const {
    return snapshot != nullptr ||
        std::any_of(blocks.begin(), blocks.end(), [&](kernels::BlockId block) {
             return block != kernels::BlockId::None &&
                 !tree.pool_->is_shared(block);
           });
  }

  PrefixTree& tree;
  Node* parent;
  std::map<std::vector<std::int32_t>, std::unique_ptr<Node>> children;
  std::vector<kernels::BlockId> blocks; // per layer, None where not kept
  std::unique_ptr<Sequence> snapshot; // of the states at its end, or null
  std::uint64_t used = 0;
  std::uint64_t snapshot_used = 0;
};

namespace {

std::vector<std::int32_t> block_of(
    std::span<const std::int32_t> tokens,
    std::size_t block) {
  const auto part =
      tokens.subspan(block * kernels::kKvBlockTokens, kernels::kKvBlockTokens);
  return {part.begin(), part.end()};
}

/** Calls visit(node) for every node but the root. */
void for_each_below(auto& root, const auto& visit) {
  std::vector<std::remove_reference_t<decltype(root)>*> open{&root};
  while (!open.empty()) {
    auto* node = open.back();
    open.pop_back();
    for (auto& [tokens, child] : node->children) {
      open.push_back(child.get());
      visit(*child);
    }
  }
}

} // namespace

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

PrefixTree::PrefixTree(
    std::shared_ptr<BlockPool> pool,
    std::vector<LayerFormat> layers)
    : pool_(std::move(pool)), layers_(std::move(layers)) {
  if (fixed_bytes(layers_) > 0) {
    state_layers_.resize(layers_.size(), SharedFormat{});
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      if (const auto* state = std::get_if<RecurrentFormat>(&layers_[i])) {
        state_layers_[i] = *state;
      }
    }
  }
  pool_->set_reclaimer([this] { return evict_some(); });
}

PrefixTree::~PrefixTree() {
  pool_->set_reclaimer({});
}

PrefixTree::Path PrefixTree::walk(
    std::string_view key,
    std::span<const std::int32_t> tokens) const {
  Path path;
  const auto root = roots_.find(key);
  if (root == roots_.end()) {
    return path;
  }
  Node* node = root->second.get();
  const std::size_t blocks = tokens.size() / kernels::kKvBlockTokens;
  while (path.size() < blocks) {
    const auto child = node->children.find(block_of(tokens, path.size()));
    if (child == node->children.end()) {
      break;
    }
    node = child->second.get();
    path.push_back(node);
  }
  return path;
}

std::size_t PrefixTree::usable_blocks(const Path& path) const {
  const auto stands_at = [&](std::size_t end) {
    if (!state_layers_.empty() && path[end - 1]->snapshot == nullptr) {
      return false;
    }
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const auto* kv = std::get_if<kernels::KvFormat>(&layers_[i]);
      if (kv == nullptr) {
        continue;
      }
      const int length = static_cast<int>(end) * kernels::kKvBlockTokens;
      for (auto b = first_visible_block(*kv, length); b < end; ++b) {
        if (path[b]->blocks[i] == kernels::BlockId::None) {
          return false;
        }
      }
    }
    return true;
  };
  std::size_t end = path.size();
  while (end > 0 && !stands_at(end)) {
    --end;
  }
  return end;
}

int PrefixTree::find(std::string_view key, std::span<const std::int32_t> tokens)
    const {
  if (tokens.empty()) {
    return 0;
  }
  const Path path = walk(key, tokens.first(tokens.size() - 1));
  return static_cast<int>(usable_blocks(path)) * kernels::kKvBlockTokens;
}

int PrefixTree::resume(
    std::string_view key,
    std::span<const std::int32_t> tokens,
    Sequence& sequence) {
  const int length = find(key, tokens);
  if (length == 0) {
    return 0;
  }
  const Path path = walk(key, tokens.first(length));
  std::vector<std::vector<kernels::BlockId>> blocks(layers_.size());
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const auto* kv = std::get_if<kernels::KvFormat>(&layers_[i]);
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
  sequence.resume(length, blocks, path.back()->snapshot.get());
  return length;
}

void PrefixTree::insert(
    std::string_view key,
    std::span<const std::int32_t> tokens,
    const Sequence& sequence) {
  if (tokens.size() != static_cast<std::size_t>(sequence.length())) {
    fail(
        ErrorKind::InvalidInput,
        "[PrefixTree::insert] tokens: found {}, expected the {} that the "
        "sequence holds.",
        tokens.size(),
        sequence.length());
  }
  const std::size_t n_blocks = tokens.size() / kernels::kKvBlockTokens;
  const bool at_border = tokens.size() % kernels::kKvBlockTokens == 0;
  if (n_blocks == 0 || (!state_layers_.empty() && !at_border)) {
    return;
  }
  // First, since room for it may be made by eviction anywhere in the tree.
  std::unique_ptr<Sequence> snapshot;
  const Path there = walk(key, tokens);
  if (!state_layers_.empty() &&
      (there.size() < n_blocks || there.back()->snapshot == nullptr)) {
    if (!pool_->make_room(fixed_bytes(layers_))) {
      return;
    }
    snapshot = std::make_unique<Sequence>(pool_, state_layers_);
    snapshot->copy_states(sequence);
  }
  ++clock_;
  auto& root = roots_[std::string(key)];
  if (root == nullptr) {
    root = std::make_unique<Node>(*this, nullptr);
  }
  Node* node = root.get();
  Path path;
  for (std::size_t b = 0; b < n_blocks; ++b) {
    auto& child = node->children[block_of(tokens, b)];
    if (child == nullptr) {
      child = std::make_unique<Node>(*this, node);
      child->blocks.resize(layers_.size());
    }
    node = child.get();
    node->used = clock_;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const auto blocks = sequence.blocks(static_cast<int>(i));
      if (std::holds_alternative<kernels::KvFormat>(layers_[i]) &&
          node->blocks[i] == kernels::BlockId::None &&
          blocks[b] != kernels::BlockId::None) {
        pool_->share(blocks[b]);
        node->blocks[i] = blocks[b];
      }
    }
    path.push_back(node);
  }
  if (snapshot != nullptr) {
    node->snapshot = std::move(snapshot);
  }
  node->snapshot_used = clock_;
  if (usable_blocks(path) < n_blocks && node->children.empty()) {
    remove(node);
  }
}

std::size_t PrefixTree::n_nodes() const {
  std::size_t n = 0;
  for (const auto& [key, root] : roots_) {
    for_each_below(std::as_const(*root), [&](const Node&) { ++n; });
  }
  return n;
}

void PrefixTree::remove(Node* leaf) {
  Path path;
  for (Node* node = leaf; !node->is_root(); node = node->parent) {
    path.insert(path.begin(), node);
  }
  do {
    Node* parent = path.back()->parent;
    std::erase_if(parent->children, [&](const auto& child) {
      return child.second.get() == path.back();
    });
    path.pop_back();
  } while (!path.empty() && path.back()->children.empty() &&
           usable_blocks(path) < path.size());
  if (path.empty()) {
    std::erase_if(
        roots_, [](const auto& root) { return root.second->children.empty(); });
  }
}

bool PrefixTree::evict_some() {
  Node* leaf = nullptr; // the least recently used
  Node* freeing_leaf = nullptr; // among those that give memory back
  Node* snapshot = nullptr; // among those of inner nodes
  bool any_frees = false;
  const auto take_older = [](Node*& oldest, Node& node, auto Node::*used) {
    if (oldest == nullptr || node.*used < oldest->*used) {
      oldest = &node;
    }
  };
  for (auto& [key, root] : roots_) {
    for_each_below(*root, [&](Node& node) {
      const bool frees = node.frees_memory();
      any_frees = any_frees || frees;
      if (node.children.empty()) {
        take_older(leaf, node, &Node::used);
        if (frees) {
          take_older(freeing_leaf, node, &Node::used);
        }
      } else if (node.snapshot != nullptr) {
        take_older(snapshot, node, &Node::snapshot_used);
      }
    });
  }
  if (snapshot != nullptr &&
      (freeing_leaf == nullptr ||
       snapshot->snapshot_used < freeing_leaf->used)) {
    snapshot->snapshot.reset();
    return true;
  }
  // A leaf that sequences hold may hide hidden blocks of its ancestors.
  Node* victim = freeing_leaf != nullptr ? freeing_leaf : leaf;
  if (victim == nullptr || !any_frees) {
    return false;
  }
  remove(victim);
  return true;
}

} // namespace optiq::cache
