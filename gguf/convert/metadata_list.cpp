#include "gguf/convert/metadata_list.h"

#include <algorithm>
#include <span>
#include <type_traits>

namespace dsctl::gguf::convert {
namespace {

template <typename T>
constexpr bool kIsVector = false;
template <typename T>
constexpr bool kIsVector<std::vector<T>> = true;

bool is_empty(const MetadataValue& value) {
  return std::visit(
      [](const auto& data) {
        using T = std::decay_t<decltype(data)>;
        if constexpr (kIsVector<T> || std::is_same_v<T, std::string>) return data.empty();
        return false;
      },
      value);
}

}  // namespace

void MetadataList::set(std::string_view key, MetadataValue value) {
  if (is_empty(value)) return;
  for (Entry& entry : entries_) {
    if (entry.key != key) continue;
    entry.value = std::move(value);
    return;
  }
  entries_.push_back({std::string(key), std::move(value)});
}

void MetadataList::remove(std::string_view key) {
  std::erase_if(entries_, [&](const Entry& entry) { return entry.key == key; });
}

const MetadataValue* MetadataList::find(std::string_view key) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.key == key; });
  return found == entries_.end() ? nullptr : &found->value;
}

void MetadataList::write_to(GgufWriter& writer) const {
  for (const Entry& entry : entries_) {
    std::visit(
        [&](const auto& data) {
          using T = std::decay_t<decltype(data)>;
          if constexpr (std::is_same_v<T, std::vector<std::string>>) {
            writer.add_strings(entry.key, data);
          } else if constexpr (kIsVector<T>) {
            writer.add_array(entry.key, data);
          } else if constexpr (std::is_same_v<T, std::string>) {
            writer.add(entry.key, std::string_view(data));
          } else {
            writer.add(entry.key, data);
          }
        },
        entry.value);
  }
}

}  // namespace dsctl::gguf::convert
