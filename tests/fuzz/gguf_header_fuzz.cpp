// Headers that arrive in pieces: whatever the bytes are, asking for more ends, a prefix never
// decides otherwise than the whole, and what opens by its header opens as a file does.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "gguf/shard_parser.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

/// The header's size, or nothing when it is broken.
std::optional<int64_t> header_size(std::span<const std::byte> file, int64_t file_size,
                                   int64_t step) {
  int64_t have = 0;
  try {
    while (true) {
      const int64_t needed = dsctl::gguf::header_bytes_needed(
          "fuzz", file.first(static_cast<size_t>(have)), file_size);
      require(needed <= file_size);
      if (needed <= have) return needed;
      if (needed > static_cast<int64_t>(file.size())) return std::nullopt;
      have = std::min(static_cast<int64_t>(file.size()), std::max(needed, have + step));
    }
  } catch (const dsctl::gguf::Error&) {
    return std::nullopt;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  // Behind what is here the file may go on with data.
  const auto file_size = static_cast<int64_t>(size) + (size % 2 == 0 ? 0 : 100'000);
  const auto slow = header_size(file, file_size, 1);
  const auto fast = header_size(file, file_size, 1 << 20);
  require(slow == fast);
  if (!slow) return 0;
  dsctl::gguf::PartialFile partial;
  partial.path = "fuzz";
  partial.prefix.assign(file.begin(), file.end());
  partial.size_bytes = file_size;
  try {
    const auto model = dsctl::gguf::GgufFile::open_headers({partial});
    for (const dsctl::gguf::TensorInfo& tensor : model.tensors()) {
      require(tensor.offset_bytes >= *slow);
      require(tensor.offset_bytes + tensor.size_bytes <= file_size);
    }
  } catch (const dsctl::gguf::Error&) {
    // a key or name that appears twice, or a shard of a split
  }
  return 0;
}
