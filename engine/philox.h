// Philox4x32-10, a counter-based random generator (Salmon et al., "Parallel random numbers: as easy
// as 1, 2, 3", SC 2011): the numbers depend on key and counter alone, so that a draw is the same
// alone or in a batch, on the CPU or a GPU.
#pragma once

#include <array>
#include <cstdint>

namespace dsctl::engine {

/// Four random words for one key and counter.
constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, uint64_t key) {
  auto key_lo = static_cast<uint32_t>(key);
  auto key_hi = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product_0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product_2 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product_2 >> 32) ^ counter[1] ^ key_lo,
               static_cast<uint32_t>(product_2),
               static_cast<uint32_t>(product_0 >> 32) ^ counter[3] ^ key_hi,
               static_cast<uint32_t>(product_0)};
    key_lo += 0x9E3779B9;
    key_hi += 0xBB67AE85;
  }
  return counter;
}

/// What a draw is for; part of the counter, so that two draws for one token are independent.
enum class DrawPurpose : uint32_t { kToken = 0, kXtc = 1 };

/// The draws for the token at one position of one request.
class TokenRandom {
 public:
  TokenRandom(uint64_t seed, uint64_t position) : seed_(seed), position_(position) {}

  /// The random word of one token id (words are made four at a time and the last four kept).
  uint32_t token_word(int32_t id) {
    const uint32_t group = static_cast<uint32_t>(id) / 4;
    if (group != group_) {
      words_ = words(DrawPurpose::kToken, group);
      group_ = group;
    }
    return words_[static_cast<uint32_t>(id) % 4];
  }

  /// A number in (0, 1).
  double xtc() const { return to_unit(words(DrawPurpose::kXtc, 0)[0]); }

  static double to_unit(uint32_t word) { return (word + 0.5) * 0x1p-32; }

 private:
  std::array<uint32_t, 4> words(DrawPurpose purpose, uint32_t group) const {
    return philox4x32({group, static_cast<uint32_t>(purpose), static_cast<uint32_t>(position_),
                       static_cast<uint32_t>(position_ >> 32)},
                      seed_);
  }

  uint64_t seed_;
  uint64_t position_;
  uint32_t group_ = UINT32_MAX;
  std::array<uint32_t, 4> words_{};
};

}  // namespace dsctl::engine
