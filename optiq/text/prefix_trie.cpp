#include <algorithm>

#include "optiq/text/prefix_trie_impl.h"

namespace optiq::text {

PrefixTrie::PrefixTrie(std::vector<Entry> entries) {
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return a.text < b.text;
  });
  struct Range { // of the sorted entries below a node
    std::size_t begin;
    std::size_t end;
    std::size_t depth;
  };
  std::vector<Range> ranges{{0, entries.size(), 0}}; // by node
  labels_.push_back('\0');
  for (std::size_t node = 0; node < ranges.size(); ++node) {
    auto [begin, end, depth] = ranges[node];
    nodes_.push_back({static_cast<std::uint32_t>(ranges.size()), kNoValue});
    if (begin < end && entries[begin].text.size() == depth) {
      nodes_.back().value = entries[begin++].value;
    }
    while (begin < end) {
      const char label = entries[begin].text[depth];
      std::size_t last = begin;
      while (last < end && entries[last].text[depth] == label) {
        ++last;
      }
      if (node == 0) {
        roots_[static_cast<unsigned char>(label)] =
            static_cast<std::uint32_t>(ranges.size());
      }
      ranges.push_back({begin, last, depth + 1});
      labels_.push_back(label);
      begin = last;
    }
  }
  nodes_.push_back({static_cast<std::uint32_t>(ranges.size()), kNoValue});
}

} // namespace optiq::text
