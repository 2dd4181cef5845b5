#include "gguf/split.h"

#include <algorithm>
#include <cctype>

namespace dsctl::gguf {
namespace {

constexpr int kDigits = 5;
constexpr std::string_view kExtension = ".gguf";

std::string five_digits(int number) {
  const std::string text = std::to_string(number);
  return std::string(text.size() < kDigits ? kDigits - text.size() : 0, '0') + text;
}

/// The five digits that end `text`, taken off it.
std::optional<int> take_digits(std::string_view& text) {
  if (text.size() < kDigits) return std::nullopt;
  const std::string_view digits = text.substr(text.size() - kDigits);
  int number = 0;
  for (const char c : digits) {
    if (!std::isdigit(static_cast<unsigned char>(c))) return std::nullopt;
    number = number * 10 + (c - '0');
  }
  text.remove_suffix(kDigits);
  return number;
}

bool take_suffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(suffix.size());
  return true;
}

}  // namespace

std::optional<ShardName> parse_shard_name(std::string_view file_name) {
  std::string_view rest = file_name;
  if (!take_suffix(rest, kExtension)) return std::nullopt;
  const std::optional<int> count = take_digits(rest);
  if (!count || !take_suffix(rest, "-of-")) return std::nullopt;
  const std::optional<int> number = take_digits(rest);
  if (!number || !take_suffix(rest, "-") || rest.empty()) return std::nullopt;
  if (*number < 1 || *number > *count) return std::nullopt;
  return ShardName{std::string(rest), *number - 1, *count};
}

std::string shard_file_name(const ShardName& name) {
  return name.prefix + "-" + five_digits(name.shard_idx + 1) + "-of-" + five_digits(name.n_shards) +
         std::string(kExtension);
}

}  // namespace dsctl::gguf
