#include "engine/tokenizer/special_matcher.h"

#include <algorithm>

namespace dsctl::engine {

namespace {

size_t pair_of(unsigned char first, unsigned char second) {
  return size_t{first} << 8 | second;
}

}  // namespace

void SpecialMatcher::add(std::string_view text, int32_t id) {
  if (text.empty()) return;
  const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  first_bytes_.set(byte(0));
  if (text.size() > 1) {
    first_two_bytes_.set(pair_of(byte(0), byte(1)));
  } else {
    for (size_t second = 0; second < 256; ++second) {
      first_two_bytes_.set(pair_of(byte(0), static_cast<unsigned char>(second)));
    }
  }
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    uint32_t next = child(node, byte(i));
    if (next == 0) {
      next = static_cast<uint32_t>(nodes_.size());
      nodes_.emplace_back();
      auto& children = nodes_[node].children;
      const std::pair<unsigned char, uint32_t> entry(byte(i), next);
      children.insert(std::ranges::lower_bound(children, entry), entry);
    }
    node = next;
  }
  nodes_[node].id = id;
}

uint32_t SpecialMatcher::child(uint32_t node, unsigned char byte) const {
  const auto& children = nodes_[node].children;
  const auto it =
      std::ranges::lower_bound(children, byte, {}, [](const auto& c) { return c.first; });
  return it != children.end() && it->first == byte ? it->second : 0;
}

SpecialMatcher::Match SpecialMatcher::find(std::string_view text, size_t from) const {
  if (first_bytes_.none()) return {};
  for (size_t begin = from; begin < text.size(); ++begin) {
    const auto first = static_cast<unsigned char>(text[begin]);
    if (!first_bytes_[first]) continue;
    const bool is_last = begin + 1 == text.size();
    if (!is_last &&
        !first_two_bytes_[pair_of(first, static_cast<unsigned char>(text[begin + 1]))]) {
      continue;
    }
    Match match;
    uint32_t node = 0;
    for (size_t i = begin; i < text.size(); ++i) {
      node = child(node, static_cast<unsigned char>(text[i]));
      if (node == 0) break;
      if (nodes_[node].id >= 0) match = {begin, i + 1, nodes_[node].id};
    }
    if (match.id >= 0) return match;
  }
  return {};
}

}  // namespace dsctl::engine
