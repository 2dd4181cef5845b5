#include "registry/sources/glob.h"

#include <algorithm>
#include <cstdint>

#include "registry/error.h"

namespace dsctl::registry {
namespace {

constexpr size_t kMaxPatterns = 256;
constexpr std::string_view kAnyFolders = "**";

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

/// What one step of a pattern matches in a name, and where the pattern goes on.
struct Step {
  bool matches = false;
  size_t next = 0;
};

/// The bracket expression at pattern[begin] == '['; without its end it is an ordinary character.
Step match_bracket(std::string_view pattern, size_t begin, char c) {
  size_t i = begin + 1;
  const bool negated = i < pattern.size() && (pattern[i] == '!' || pattern[i] == '^');
  if (negated) ++i;
  bool found = false;
  const auto byte = [](char value) { return static_cast<uint8_t>(value); };
  for (bool first = true; i < pattern.size(); first = false) {
    if (pattern[i] == ']' && !first) return {found != negated, i + 1};
    if (pattern[i] == '\\' && i + 1 < pattern.size()) ++i;
    const char low = pattern[i++];
    char high = low;
    if (i + 1 < pattern.size() && pattern[i] == '-' && pattern[i + 1] != ']') {
      high = pattern[i + 1];
      i += 2;
    }
    found = found || (byte(low) <= byte(c) && byte(c) <= byte(high));
  }
  return {c == '[', begin + 1};
}

Step match_one(std::string_view pattern, size_t i, char c) {
  switch (pattern[i]) {
    case '?':
      return {true, i + 1};
    case '[':
      return match_bracket(pattern, i, c);
    case '\\':
      if (i + 1 < pattern.size()) return {pattern[i + 1] == c, i + 2};
      return {c == '\\', i + 1};
    default:
      return {pattern[i] == c, i + 1};
  }
}

/// One name against one part of a pattern. Of several stars only the last one is ever taken back,
/// so the time is at most the product of the lengths.
bool match_name(std::string_view pattern, std::string_view name) {
  size_t p = 0;
  size_t n = 0;
  size_t star = std::string_view::npos;
  size_t star_name = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_name = n;
      continue;
    }
    const Step step = p < pattern.size() ? match_one(pattern, p, name[n]) : Step();
    if (step.matches) {
      p = step.next;
      ++n;
      continue;
    }
    if (star == std::string_view::npos) return false;
    p = star + 1;
    n = ++star_name;
  }
  while (p < pattern.size() && pattern[p] == '*')
    ++p;
  return p == pattern.size();
}

std::vector<LfsPattern> parse_patterns(std::string_view list) {
  std::vector<LfsPattern> patterns;
  if (list.empty()) return patterns;
  for (std::string_view text : split(list, ',')) {
    while (!text.empty() && text.front() == ' ')
      text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ')
      text.remove_suffix(1);
    if (text.empty()) continue;
    if (patterns.size() == kMaxPatterns) throw Error("more than 256 patterns");
    patterns.emplace_back(text);
  }
  return patterns;
}

bool any_matches(const std::vector<LfsPattern>& patterns, std::string_view path) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const LfsPattern& pattern) { return pattern.matches(path); });
}

}  // namespace

LfsPattern::LfsPattern(std::string_view text) {
  if (text.size() > kMaxBytes) throw Error("a pattern has more than 4096 bytes");
  std::string_view rest = text;
  folders_only_ = rest.ends_with('/');
  while (rest.ends_with('/'))
    rest.remove_suffix(1);
  const bool anchored = rest.find('/') != std::string_view::npos;
  if (!anchored) parts_.emplace_back(kAnyFolders);
  if (rest.starts_with('/')) rest.remove_prefix(1);
  for (const std::string_view part : split(rest, '/')) {
    if (part == kAnyFolders && !parts_.empty() && parts_.back() == kAnyFolders) continue;
    parts_.emplace_back(part);
  }
  // What matches "DIR/**" is in DIR, as for "DIR/".
  while (parts_.size() > 1 && parts_.back() == kAnyFolders) {
    parts_.pop_back();
    folders_only_ = true;
  }
  if (rest.empty()) throw Error("the pattern \"" + std::string(text) + "\" is empty");
}

bool LfsPattern::matches(std::string_view path) const {
  const std::vector<std::string_view> names = split(path, '/');
  // reached[i]: the parts so far match the first i names.
  std::vector<bool> reached(names.size() + 1);
  reached[0] = true;
  for (const std::string& part : parts_) {
    std::vector<bool> next(names.size() + 1);
    bool before = false;
    for (size_t i = 0; i <= names.size(); ++i) {
      if (part == kAnyFolders) {
        before = before || reached[i];
        next[i] = before;
      } else if (i > 0) {
        next[i] = reached[i - 1] && match_name(part, names[i - 1]);
      }
    }
    reached = std::move(next);
  }
  const auto first = reached.begin() + 1;
  const auto last = folders_only_ ? reached.end() - 1 : reached.end();
  return std::find(first, last, true) != last;
}

LfsFilter::LfsFilter(std::string_view include, std::string_view exclude)
    : include_(parse_patterns(include)), exclude_(parse_patterns(exclude)) {}

bool LfsFilter::wants(std::string_view path) const {
  return (include_.empty() || any_matches(include_, path)) && !any_matches(exclude_, path);
}

}  // namespace dsctl::registry
