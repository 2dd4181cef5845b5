#include "gguf/quants/iq_grids.h"

#include <array>
#include <cstddef>

#include "gguf/quants/iq_codebooks.h"

namespace dsctl::gguf {
namespace {

/// Element `e` of an entry is `values[bits e * n_bits .. of code]`.
template <typename T, size_t kEntries, size_t kElems, size_t kValues>
constexpr void expand(T (&grid)[kEntries][kElems], const std::array<uint16_t, kEntries>& codes,
                      int n_bits, const std::array<T, kValues>& values) {
  for (size_t i = 0; i < kEntries; ++i) {
    for (size_t e = 0; e < kElems; ++e) {
      const int code = (codes[i] >> (static_cast<int>(e) * n_bits)) & ((1 << n_bits) - 1);
      grid[i][e] = values[static_cast<size_t>(code)];
    }
  }
}

constexpr IqGrids make_grids() {
  constexpr std::array<uint8_t, 3> kIq2Values{8, 25, 43};
  constexpr std::array<uint8_t, 8> kIq3XxsValues{4, 12, 20, 28, 36, 44, 52, 62};
  constexpr std::array<uint8_t, 8> kIq3SValues{1, 3, 5, 7, 9, 11, 13, 15};
  constexpr std::array<int8_t, 3> kIq1Values{-1, 0, 1};
  IqGrids grids{};
  expand(grids.iq2_xxs, kIq2XxsCodes, 2, kIq2Values);
  expand(grids.iq2_xs, kIq2XsCodes, 2, kIq2Values);
  expand(grids.iq2_s, kIq2SCodes, 2, kIq2Values);
  expand(grids.iq3_xxs, kIq3XxsCodes, 3, kIq3XxsValues);
  expand(grids.iq3_s, kIq3SCodes, 3, kIq3SValues);
  expand(grids.iq1_s, kIq1SCodes, 2, kIq1Values);
  return grids;
}

constexpr IqGrids kGrids = make_grids();

}  // namespace

const IqGrids& iq_grids() {
  return kGrids;
}

}  // namespace dsctl::gguf
