// GGUF files byte by byte, so that tests can break each field on its own.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "gguf/error.h"

namespace dsctl::tests {

/// Appends fields as they lie in a file. Every method returns the object, for chains.
class GgufBytes {
 public:
  template <typename T>
  GgufBytes& scalar(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  GgufBytes& u32(uint32_t value) { return scalar(value); }
  GgufBytes& u64(uint64_t value) { return scalar(value); }
  GgufBytes& raw(std::string_view text) {
    bytes_ += text;
    return *this;
  }
  GgufBytes& text(std::string_view text) { return u64(text.size()).raw(text); }
  GgufBytes& header(uint64_t n_tensors, uint64_t n_metadata, uint32_t version = 3) {
    return raw("GGUF").u32(version).u64(n_tensors).u64(n_metadata);
  }
  /// A key and the id of its value's type; the value follows.
  GgufBytes& key(std::string_view name, uint32_t type) { return text(name).u32(type); }
  GgufBytes& string_entry(std::string_view name, std::string_view value) {
    return key(name, 8).text(value);
  }
  GgufBytes& u32_entry(std::string_view name, uint32_t value) { return key(name, 4).u32(value); }
  GgufBytes& tensor(std::string_view name, std::initializer_list<uint64_t> dims, uint32_t type,
                    uint64_t offset) {
    text(name).u32(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims)
      u64(dim);
    return u32(type).u64(offset);
  }
  /// Zeros up to a multiple of `alignment`.
  GgufBytes& pad(size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  GgufBytes& zeros(size_t count) {
    bytes_.append(count, '\0');
    return *this;
  }

  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

inline void write_text(const std::filesystem::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The message of the gguf::Error that `action` throws, or "" when it throws none.
template <typename Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const gguf::Error& error) {
    return error.what();
  }
  return "";
}

/// The largest single allocation since the last call; how tests see that a claim was not believed.
size_t take_largest_allocation();

}  // namespace dsctl::tests
