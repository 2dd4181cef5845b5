#include "engine/cpu/fast/pack.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "engine/cpu/fast/panel.h"
#include "gguf/quants/all.h"
#include "gguf/quants/iq4_nl.h"
#include "gguf/quants/iq4_xs.h"
#include "gguf/quants/k4_scales.h"
#include "gguf/quants/mxfp4.h"
#include "gguf/quants/q2_k.h"
#include "gguf/quants/q3_k.h"
#include "gguf/quants/q4_0.h"
#include "gguf/quants/q4_1.h"
#include "gguf/quants/q4_k.h"
#include "gguf/quants/q5_0.h"
#include "gguf/quants/q5_1.h"
#include "gguf/quants/q5_k.h"
#include "gguf/quants/q6_k.h"
#include "gguf/quants/q8_0.h"

namespace dsctl::engine::fast {
namespace {

using gguf::DType;

constexpr int kMaxGroupCols = 256;
constexpr int kSteps = 8;  // of 4 columns in a block

/// One row's share of a group, as plain integers and with the scales as the file has them.
struct GroupRow {
  uint8_t q[kMaxGroupCols];
  uint16_t d[4];    // f16 (u8 exponent for MXFP4) of each 32-column block or the super block
  uint16_t min[4];  // f16
  uint8_t scale[16];
  uint8_t sub_min[16];
};

void split_nibbles(const uint8_t (&qs)[16], uint8_t* q) {
  for (int i = 0; i < 16; ++i) {
    q[i] = qs[i] & 15;
    q[i + 16] = qs[i] >> 4;
  }
}

template <typename Block>
void add_fifth_bits(const Block& block, uint8_t* q) {
  const uint32_t qh = block.qh.value();
  for (int i = 0; i < 32; ++i)
    q[i] = static_cast<uint8_t>(q[i] | ((qh >> i) & 1) << 4);
}

// unpack(block, idx of the block in its group, row)

void unpack(const gguf::Q4_0::Block& block, int idx, GroupRow& row) {
  row.d[idx] = block.d.value();
  split_nibbles(block.qs, row.q + 32 * idx);
}

void unpack(const gguf::Q4_1::Block& block, int idx, GroupRow& row) {
  row.d[idx] = block.d.value();
  row.min[idx] = block.m.value();
  split_nibbles(block.qs, row.q + 32 * idx);
}

void unpack(const gguf::Q5_0::Block& block, int idx, GroupRow& row) {
  row.d[idx] = block.d.value();
  split_nibbles(block.qs, row.q + 32 * idx);
  add_fifth_bits(block, row.q + 32 * idx);
}

void unpack(const gguf::Q5_1::Block& block, int idx, GroupRow& row) {
  row.d[idx] = block.d.value();
  row.min[idx] = block.m.value();
  split_nibbles(block.qs, row.q + 32 * idx);
  add_fifth_bits(block, row.q + 32 * idx);
}

void unpack(const gguf::Q8_0::Block& block, int idx, GroupRow& row) {
  row.d[idx] = block.d.value();
  for (int i = 0; i < 32; ++i) {
    row.q[32 * idx + i] = static_cast<uint8_t>(static_cast<uint8_t>(block.qs[i]) ^ 0x80);
  }
}

void unpack(const gguf::IQ4_NL::Block& block, int idx, GroupRow& row) {
  row.d[idx] = block.d.value();
  split_nibbles(block.qs, row.q + 32 * idx);
}

void unpack(const gguf::MXFP4::Block& block, int idx, GroupRow& row) {
  row.d[idx] = block.e;
  split_nibbles(block.qs, row.q + 32 * idx);
}

void unpack(const gguf::Q2_K::Block& block, int, GroupRow& row) {
  row.d[0] = block.d.value();
  row.min[0] = block.dmin.value();
  std::memcpy(row.scale, block.scales, 16);
  for (int group = 0; group < 8; ++group) {
    const uint8_t* qs = block.qs + group / 4 * 32;
    const int shift = group % 4 * 2;
    for (int i = 0; i < 32; ++i) {
      row.q[group * 32 + i] = static_cast<uint8_t>((qs[i] >> shift) & 3);
    }
  }
}

void unpack(const gguf::Q3_K::Block& block, int, GroupRow& row) {
  row.d[0] = block.d.value();
  for (int group = 0; group < 16; ++group) {
    const int low = gguf::nibble(block.scales[group % 8], group / 8);
    const int high = (block.scales[8 + group % 4] >> (2 * (group / 4))) & 3;
    row.scale[group] = static_cast<uint8_t>((low | (high << 4)) - 32);
  }
  for (int group = 0; group < 8; ++group) {
    const uint8_t* qs = block.qs + group / 4 * 32;
    const int shift = group % 4 * 2;
    for (int i = 0; i < 32; ++i) {
      row.q[group * 32 + i] =
          static_cast<uint8_t>(((qs[i] >> shift) & 3) | (((block.hmask[i] >> group) & 1) << 2));
    }
  }
}

template <typename Block>
void unpack_k4(const Block& block, GroupRow& row) {
  row.d[0] = block.d.value();
  row.min[0] = block.dmin.value();
  const gguf::K4Scales scales(block.scales);
  std::memcpy(row.scale, scales.scale, 8);
  std::memcpy(row.sub_min, scales.min, 8);
  for (int pair = 0; pair < 4; ++pair) {
    for (int i = 0; i < 32; ++i) {
      row.q[64 * pair + i] = block.qs[32 * pair + i] & 15;
      row.q[64 * pair + 32 + i] = block.qs[32 * pair + i] >> 4;
    }
  }
}

void unpack(const gguf::Q4_K::Block& block, int, GroupRow& row) {
  unpack_k4(block, row);
}

void unpack(const gguf::Q5_K::Block& block, int, GroupRow& row) {
  unpack_k4(block, row);
  for (int group = 0; group < 8; ++group) {
    for (int i = 0; i < 32; ++i) {
      row.q[32 * group + i] =
          static_cast<uint8_t>(row.q[32 * group + i] | ((block.qh[i] >> group) & 1) << 4);
    }
  }
}

void unpack(const gguf::Q6_K::Block& block, int, GroupRow& row) {
  row.d[0] = block.d.value();
  std::memcpy(row.scale, block.scales, 16);
  for (int group = 0; group < 8; ++group) {
    const uint8_t* ql = block.ql + group / 4 * 64 + group % 2 * 32;
    const uint8_t* qh = block.qh + group / 4 * 32;
    const int ql_shift = group % 4 / 2 * 4;
    const int qh_shift = group % 4 * 2;
    for (int i = 0; i < 32; ++i) {
      row.q[32 * group + i] =
          static_cast<uint8_t>(((ql[i] >> ql_shift) & 15) | (((qh[i] >> qh_shift) & 3) << 4));
    }
  }
}

void unpack(const gguf::IQ4_XS::Block& block, int, GroupRow& row) {
  row.d[0] = block.d.value();
  const int scales_h = block.scales_h.value();
  for (int group = 0; group < 8; ++group) {
    const int scale =
        gguf::nibble(block.scales_l[group / 2], group % 2) | (((scales_h >> (2 * group)) & 3) << 4);
    row.scale[group] = static_cast<uint8_t>(scale - 32);
    for (int i = 0; i < 16; ++i) {
      row.q[32 * group + i] = block.qs[16 * group + i] & 15;
      row.q[32 * group + 16 + i] = block.qs[16 * group + i] >> 4;
    }
  }
}

void store_half(uint16_t value, std::byte* to) {
  std::memcpy(to, &value, sizeof(value));
}

/// Writes the scales of row `lane` into the group's scale area.
void pack_scales(ScaleKind kind, const GroupRow& row, int lane, std::byte* area) {
  const auto put_bytes = [&](const uint8_t* values, int n, int64_t offset) {
    for (int i = 0; i < n; ++i)
      area[offset + 16 * i + lane] = std::byte{values[i]};
  };
  switch (kind) {
    case ScaleKind::kHalf:
      store_half(row.d[0], area + 2 * lane);
      store_half(row.d[1], area + 32 + 2 * lane);
      return;
    case ScaleKind::kHalfMin:
      store_half(row.d[0], area + 2 * lane);
      store_half(row.min[0], area + 32 + 2 * lane);
      return;
    case ScaleKind::kExponent:
      for (int b = 0; b < 4; ++b)
        area[16 * b + lane] = std::byte(row.d[b]);
      return;
    case ScaleKind::kSuper:
      store_half(row.d[0], area + 2 * lane);
      put_bytes(row.scale, 8, 32);
      return;
    case ScaleKind::kSuperMin:
      store_half(row.d[0], area + 2 * lane);
      store_half(row.min[0], area + 32 + 2 * lane);
      put_bytes(row.scale, 8, 64);
      put_bytes(row.sub_min, 8, 64 + 128);
      return;
    case ScaleKind::kSuper16:
      store_half(row.d[0], area + 2 * lane);
      put_bytes(row.scale, 16, 32);
      return;
    case ScaleKind::kSuperMin16:
      store_half(row.d[0], area + 2 * lane);
      store_half(row.min[0], area + 32 + 2 * lane);
      put_bytes(row.scale, 16, 64);
      return;
  }
}

/// Writes one row's 32 integers into the bit planes of a block.
template <int kBits>
void pack_block(const uint8_t* q, int lane, std::byte* block) {
  uint32_t step[kSteps];
  for (int s = 0; s < kSteps; ++s) {
    const uint8_t columns[] = {q[4 * s], q[4 * s + 2], q[4 * s + 1], q[4 * s + 3]};
    std::memcpy(step + s, columns, sizeof(columns));
  }
  const auto put = [&](int vector, uint32_t value) {
    std::memcpy(block + 64 * vector + 4 * lane, &value, sizeof(value));
  };
  int vector = 0;
  if constexpr (kBits == 8) {
    for (int s = 0; s < kSteps; ++s)
      put(vector++, step[s]);
    return;
  }
  if constexpr (kBits >= 4) {
    constexpr uint32_t kLow = 0x0f0f0f0f;
    for (int j = 0; j < 4; ++j) {
      put(vector++, (step[j] & kLow) | ((step[j + 4] & kLow) << 4));
    }
  }
  constexpr int kPairShift = kBits == 6 ? 4 : 0;
  if constexpr (kBits == 2 || kBits == 3 || kBits == 6) {
    for (int j = 0; j < 2; ++j) {
      uint32_t value = 0;
      for (int f = 0; f < 4; ++f) {
        value |= ((step[4 * j + f] >> kPairShift) & 0x03030303u) << (2 * f);
      }
      put(vector++, value);
    }
  }
  if constexpr (kBits == 3 || kBits == 5) {
    uint32_t value = 0;
    for (int s = 0; s < kSteps; ++s)
      value |= ((step[s] >> (kBits - 1)) & 0x01010101u) << s;
    put(vector++, value);
  }
}

template <typename Format>
void pack_quantised(const std::byte* rows, int64_t row_stride_bytes, int n_rows, int64_t n_cols,
                    std::byte* panel) {
  constexpr PanelFormat kFormat = panel_format(Format::kDType);
  constexpr int kBlocksOfFile = kFormat.group_cols() / Format::kBlockElems;  // in a group
  using Block = typename Format::Block;
  const int64_t n_blocks = n_cols / Format::kBlockElems;
  const int64_t n_groups = (n_cols + kFormat.group_cols() - 1) / kFormat.group_cols();
  if (n_rows < kPanelRows) {
    std::memset(panel, 0, static_cast<size_t>(n_groups * kFormat.group_bytes()));
  }
  GroupRow row;
  for (int64_t g = 0; g < n_groups; ++g, panel += kFormat.group_bytes()) {
    const bool whole = (g + 1) * kBlocksOfFile <= n_blocks;
    for (int lane = 0; lane < n_rows; ++lane) {
      if (!whole) std::memset(&row, 0, sizeof(row));
      for (int b = 0; b < kBlocksOfFile && g * kBlocksOfFile + b < n_blocks; ++b) {
        Block block;
        std::memcpy(&block,
                    rows + lane * row_stride_bytes +
                        (g * kBlocksOfFile + b) * static_cast<int64_t>(sizeof(Block)),
                    sizeof(block));
        unpack(block, b, row);
      }
      pack_scales(kFormat.scale_kind, row, lane, panel);
      for (int b = 0; b < kFormat.group_blocks(); ++b) {
        pack_block<kFormat.bits>(row.q + kBlockCols * b, lane,
                                 panel + kFormat.scale_bytes() + b * kFormat.block_bytes());
      }
    }
  }
}

template <typename Value>
void pack_plain(const std::byte* rows, int64_t row_stride_bytes, int n_rows, int64_t n_cols,
                std::byte* panel) {
  std::memset(panel, 0, static_cast<size_t>(n_cols * kPanelRows) * sizeof(Value));
  for (int lane = 0; lane < n_rows; ++lane) {
    const std::byte* row = rows + lane * row_stride_bytes;
    for (int64_t k = 0; k < n_cols; ++k) {
      std::memcpy(panel + (k * kPanelRows + lane) * static_cast<int64_t>(sizeof(Value)),
                  row + k * static_cast<int64_t>(sizeof(Value)), sizeof(Value));
    }
  }
}

}  // namespace

int64_t panel_bytes(DType dtype, int64_t n_cols) {
  const PanelFormat format = panel_format(dtype);
  if (format.bits == 0) return gguf::row_size_bytes(dtype, n_cols * kPanelRows);
  return (n_cols + format.group_cols() - 1) / format.group_cols() * format.group_bytes();
}

void pack_panel(DType dtype, const std::byte* rows, int64_t row_stride_bytes, int n_rows,
                int64_t n_cols, std::byte* panel) {
  assert(n_rows >= 1 && n_rows <= kPanelRows);
  const auto pack = [&]<typename Format>() {
    pack_quantised<Format>(rows, row_stride_bytes, n_rows, n_cols, panel);
  };
  if (dtype == DType::Q4_0) return pack.operator()<gguf::Q4_0>();
  if (dtype == DType::Q4_1) return pack.operator()<gguf::Q4_1>();
  if (dtype == DType::Q5_0) return pack.operator()<gguf::Q5_0>();
  if (dtype == DType::Q5_1) return pack.operator()<gguf::Q5_1>();
  if (dtype == DType::Q8_0) return pack.operator()<gguf::Q8_0>();
  if (dtype == DType::Q2_K) return pack.operator()<gguf::Q2_K>();
  if (dtype == DType::Q3_K) return pack.operator()<gguf::Q3_K>();
  if (dtype == DType::Q4_K) return pack.operator()<gguf::Q4_K>();
  if (dtype == DType::Q5_K) return pack.operator()<gguf::Q5_K>();
  if (dtype == DType::Q6_K) return pack.operator()<gguf::Q6_K>();
  if (dtype == DType::IQ4_NL) return pack.operator()<gguf::IQ4_NL>();
  if (dtype == DType::IQ4_XS) return pack.operator()<gguf::IQ4_XS>();
  if (dtype == DType::MXFP4) return pack.operator()<gguf::MXFP4>();
  if (dtype == DType::F32) {
    return pack_plain<float>(rows, row_stride_bytes, n_rows, n_cols, panel);
  }
  assert(dtype == DType::F16 || dtype == DType::BF16);
  pack_plain<uint16_t>(rows, row_stride_bytes, n_rows, n_cols, panel);
}

void dequantize_panel(DType dtype, const std::byte* rows, int64_t row_stride_bytes, int n_rows,
                      int64_t n_cols, float* row, float* panel) {
  assert(n_rows >= 1 && n_rows <= kPanelRows);
  if (n_rows < kPanelRows) std::fill_n(panel, n_cols * kPanelRows, 0.0f);
  for (int lane = 0; lane < n_rows; ++lane) {
    gguf::dequantize_row(dtype, rows + lane * row_stride_bytes, row, n_cols);
    for (int64_t k = 0; k < n_cols; ++k)
      panel[k * kPanelRows + lane] = row[k];
  }
}

}  // namespace dsctl::engine::fast
