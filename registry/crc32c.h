// CRC-32C: the cheap checksum that tells whether bytes on disk are still those that arrived. Not a
// digest: it finds accidents, not forgeries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace dsctl::registry {

/// The CRC-32C (Castagnoli) of what `crc` covers followed by `data`; start with 0. Uses the
/// processor's instruction where there is one.
uint32_t crc32c(uint32_t crc, std::span<const std::byte> data);

}  // namespace dsctl::registry
