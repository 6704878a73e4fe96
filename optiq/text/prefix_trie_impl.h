#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace optiq::text {

/**
 * Finds which of many strings a text begins with. The nodes lie breadth first,
 * so that the children of one are neighbours and a node needs no list of them.
 */
class PrefixTrie {
 public:
  struct Entry {
    std::string_view text; // not empty; no two are equal
    std::uint32_t value;
  };
  explicit PrefixTrie(std::vector<Entry> entries);

  /** Calls visit(bytes, value) for each entry that `text` begins with, the
   * shortest first. */
  template <typename Visit>
  void for_each_prefix(std::string_view text, Visit visit) const {
    std::uint32_t node =
        text.empty() ? 0 : roots_[static_cast<unsigned char>(text[0])];
    for (std::size_t size = 1; node != 0; ++size) {
      if (nodes_[node].value != kNoValue) {
        visit(size, nodes_[node].value);
      }
      node = size < text.size() ? child(node, text[size]) : 0;
    }
  }

 private:
  static constexpr std::uint32_t kNoValue = ~0u;
  struct Node {
    std::uint32_t first_child; // the last one is before the next node's first
    std::uint32_t value;
  };
  /** 0, the root, when there is none. */
  std::uint32_t child(std::uint32_t node, char label) const {
    const std::uint32_t end = nodes_[node + 1].first_child;
    for (std::uint32_t at = nodes_[node].first_child; at < end; ++at) {
      if (labels_[at] == label) {
        return at;
      }
    }
    return 0;
  }

  std::vector<Node> nodes_; // and one behind the last
  std::string labels_; // of the edge to each node
  std::array<std::uint32_t, 256> roots_{}; // the root's children by label
};

} // namespace optiq::text
