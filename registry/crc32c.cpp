#include "registry/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace dsctl::registry {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected

/// Slicing by 8: table[k][b] is the CRC of byte b followed by k zero bytes.
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit)
      crc = crc >> 1 ^ (crc & 1 ? kPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = before >> 8 ^ tables[0][before & 255];
    }
  }
  return tables;
}

uint32_t update_by_table(uint32_t crc, std::span<const std::byte> data) {
  static constexpr Tables kTables = make_tables();
  const auto byte_at = [&](size_t i) { return std::to_integer<uint32_t>(data[i]); };
  while (data.size() >= 8) {
    uint32_t next = 0;
    for (size_t i = 0; i < 8; ++i) {
      const uint32_t mixed = i < 4 ? byte_at(i) ^ (crc >> (8 * i) & 255) : byte_at(i);
      next ^= kTables[7 - i][mixed];
    }
    crc = next;
    data = data.subspan(8);
  }
  for (const std::byte byte : data) {
    crc = crc >> 8 ^ kTables[0][(crc ^ std::to_integer<uint32_t>(byte)) & 255];
  }
  return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t update_by_instruction(uint32_t crc,
                                                                 std::span<const std::byte> data) {
  uint64_t value = crc;
  size_t i = 0;
  for (; i + 8 <= data.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, data.data() + i, 8);
    value = _mm_crc32_u64(value, word);
  }
  auto rest = static_cast<uint32_t>(value);
  for (; i < data.size(); ++i)
    rest = _mm_crc32_u8(rest, std::to_integer<uint8_t>(data[i]));
  return rest;
}
#endif

}  // namespace

uint32_t crc32c(uint32_t crc, std::span<const std::byte> data) {
#if defined(__x86_64__)
  static const bool has_instruction = __builtin_cpu_supports("sse4.2");
  if (has_instruction) return ~update_by_instruction(~crc, data);
#endif
  return ~update_by_table(~crc, data);
}

}  // namespace dsctl::registry
