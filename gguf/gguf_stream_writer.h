// GgufStreamWriter: a GGUF file whose tensors arrive in pieces, in any order and from many threads,
// so that a model larger than memory can be written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "gguf/gguf_writer.h"

namespace dsctl::gguf {

/// One file on its way to disk. It gets its name when it is whole; until then it is a temporary
/// beside it, which the destructor removes.
class GgufStreamWriter {
 public:
  /// Writes the header of `header`, and the data of the tensors that were added with theirs, and
  /// reserves the space of the rest. Throws Error when the file can't be made or the disk has not
  /// that much room.
  GgufStreamWriter(const std::filesystem::path& path, const GgufWriter& header);
  ~GgufStreamWriter();
  GgufStreamWriter(const GgufStreamWriter&) = delete;
  GgufStreamWriter& operator=(const GgufStreamWriter&) = delete;

  /// Where everything lies; `tensor_idx` below is a place in its tensors, in the order in which
  /// they were declared.
  const GgufLayout& layout() const;

  /// Writes `data` into tensor `tensor_idx`, from its byte `offset_bytes` on. Thread-safe as long
  /// as no two calls write the same bytes at once. Throws Error when the data leaves the tensor or
  /// can't be written.
  void write(size_t tensor_idx, int64_t offset_bytes, std::span<const std::byte> data);

  /// Checks that every byte of every tensor was written, syncs the file and gives it its name.
  /// Throws Error naming a tensor that is not whole.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dsctl::gguf
