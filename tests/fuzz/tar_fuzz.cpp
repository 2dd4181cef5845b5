// Archives of unknown origin: whatever the bytes are, the reader gives entries or an Error, never
// more data than there is, and reads the same however the bytes arrive.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "registry/error.h"
#include "registry/tar.h"

namespace {

using dsctl::registry::TarEntry;
using dsctl::registry::TarInput;
using dsctl::registry::TarReader;

void require(bool holds) {
  if (!holds) std::abort();
}

/// What an archive holds, as text; ends where it is broken.
std::string read_all(const uint8_t* data, size_t size, size_t step, bool can_skip) {
  size_t at = 0;
  TarInput input;
  input.read = [&](std::span<std::byte> out) {
    const size_t n = std::min({step, out.size(), size - at});
    if (n > 0) std::memcpy(out.data(), data + at, n);  // of an empty input data may be null
    at += n;
    return n;
  };
  if (can_skip) {
    input.skip = [&](int64_t n) {
      if (n > static_cast<int64_t>(size - at)) return false;
      at += static_cast<size_t>(n);
      return true;
    };
  }
  std::string seen;
  TarReader reader(std::move(input));
  try {
    while (const auto entry = reader.next()) {
      require(entry->size_bytes >= 0);
      seen += entry->path + std::to_string(entry->size_bytes) +
              std::to_string(static_cast<int>(entry->type));
      if (entry->path.size() % 2 == 0) continue;  // some are gone past
      std::byte buffer[64];
      int64_t total = 0;
      while (const size_t n = reader.read(buffer))
        total += static_cast<int64_t>(n);
      require(total == entry->size_bytes);
      require(total <= static_cast<int64_t>(size));
    }
    seen += "end";
  } catch (const dsctl::registry::Error&) {
    seen += "error";
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A mutated header rarely keeps its checksum, and then nothing behind it would be reached.
  std::vector<uint8_t> bytes(data, data + size);
  for (size_t block = 0; block + 512 <= bytes.size(); block += 512) {
    if (std::memcmp(&bytes[block + 257], "ustar", 5) != 0) continue;
    std::memset(&bytes[block + 148], ' ', 8);
    unsigned sum = 0;
    for (size_t i = 0; i < 512; ++i)
      sum += bytes[block + i];
    for (size_t i = 6; i-- > 0; sum >>= 3)
      bytes[block + 148 + i] = static_cast<uint8_t>('0' + (sum & 7));
  }
  const std::string one = read_all(bytes.data(), bytes.size(), 1'000'000, false);
  require(one == read_all(bytes.data(), bytes.size(), 13, false));
  require(one == read_all(bytes.data(), bytes.size(), 512, true));
  return 0;
}
