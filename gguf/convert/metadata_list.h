// MetadataList: the metadata of the file to be written, in order. A key set again keeps its place
// and gets the new value, as in the reference converter, so that files can be compared byte by
// byte.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "gguf/gguf_writer.h"

namespace dsctl::gguf::convert {

using MetadataValue =
    std::variant<bool, uint32_t, int32_t, float, std::string, std::vector<std::string>,
                 std::vector<int32_t>, std::vector<float>>;

class MetadataList {
 public:
  struct Entry {
    std::string key;
    MetadataValue value;
  };

  /// Empty strings and arrays are left out.
  void set(std::string_view key, MetadataValue value);
  void remove(std::string_view key);
  const MetadataValue* find(std::string_view key) const;
  const std::vector<Entry>& entries() const { return entries_; }

  void write_to(GgufWriter& writer) const;

 private:
  std::vector<Entry> entries_;
};

}  // namespace dsctl::gguf::convert
