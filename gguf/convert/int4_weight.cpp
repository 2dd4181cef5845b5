#include "gguf/convert/int4_weight.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "gguf/error.h"
#include "gguf/printable.h"
#include "gguf/quants/half.h"
#include "gguf/quants/q4_0.h"
#include "gguf/quants/q4_1.h"
#include "gguf/quants/q5_0.h"

namespace dsctl::gguf::convert {
namespace {

constexpr int kPerWord = 8;     // 4-bit codes of an I32
constexpr int64_t kBlock = 32;  // elements of a block of GGUF's old formats
// Where AWQ keeps output j of eight: nibble kAwqNibble[j] of the word.
constexpr std::array<int, kPerWord> kAwqNibble = {0, 4, 1, 5, 2, 6, 3, 7};

uint32_t word_at(const SafeTensor& tensor, int64_t idx) {
  uint32_t word;
  std::memcpy(&word, tensor.data.data() + 4 * idx, sizeof(word));
  return word;
}

uint8_t nibble_of(uint32_t word, int idx) {
  return static_cast<uint8_t>((word >> (4 * idx)) & 15U);
}

PackedU16 pack(uint16_t value) {
  PackedU16 packed;
  std::memcpy(packed.bytes, &value, sizeof(value));
  return packed;
}

/// -zero * scale, the minimum of a Q4_1 block. Exact in f32: 5 bits times 11.
float minimum(uint16_t scale, int zero) {
  return -static_cast<float>(zero) * half_to_float(scale);
}

[[noreturn]] void fail(const SafeTensor& tensor, const std::string& message) {
  throw Error("tensor \"" + printable(tensor.name) + "\": " + message);
}

void expect(const SafeTensor& tensor, ScalarType type, const std::vector<int64_t>& shape) {
  if (tensor.type == type && tensor.shape == shape) return;
  const auto text = [](ScalarType scalar, const std::vector<int64_t>& dims) {
    std::string result(scalar_name(scalar));
    for (const int64_t dim : dims)
      result += " " + std::to_string(dim);
    return result;
  };
  fail(tensor, text(tensor.type, tensor.shape) + ", expected " + text(type, shape));
}

/// One row of codes with its groups' scales and zero points.
struct Row {
  const uint8_t* codes = nullptr;    // (n_cols)
  const uint16_t* scales = nullptr;  // (n_groups) f16
  const uint8_t* zeros = nullptr;    // (n_groups), up to 16
};

class Int4Weight final : public Weight {
 public:
  Int4Weight(Int4Layout layout, const Int4Tensors& tensors)
      : Weight({}),
        layout_(layout),
        qweight_(*tensors.qweight),
        qzeros_(*tensors.qzeros),
        scales_(*tensors.scales) {
    if (qweight_.shape.size() != 2 || scales_.shape.size() != 2) {
      fail(qweight_, "expected a matrix, and scales that are a matrix");
    }
    n_out_ = scales_.shape[1];
    n_groups_ = scales_.shape[0];
    const int64_t n_in = qweight_.shape[0] * (is_awq() ? 1 : kPerWord);
    if (n_out_ <= 0 || n_out_ % kPerWord != 0 || n_groups_ <= 0 || n_in % n_groups_ != 0) {
      fail(scales_, std::to_string(n_groups_) + " groups of " + std::to_string(n_out_) +
                        " outputs don't suit " + std::to_string(n_in) + " inputs");
    }
    group_ = n_in / n_groups_;
    if (group_ % kBlock != 0 || group_ == 0) {
      fail(scales_, "groups of " + std::to_string(group_) + ", expected a multiple of 32");
    }
    expect(qweight_, ScalarType::kI32,
           is_awq() ? std::vector<int64_t>{n_in, n_out_ / kPerWord}
                    : std::vector<int64_t>{n_in / kPerWord, n_out_});
    expect(qzeros_, ScalarType::kI32, {n_groups_, n_out_ / kPerWord});
    shape_ = {n_out_, n_in};
    if (tensors.g_idx) check_order(*tensors.g_idx);
    examine();
  }

  void read_rows(int64_t begin, int64_t end, float* out) const override {
    for_rows(begin, end, [&](const Row& row) {
      for (int64_t group = 0; group < n_groups_; ++group) {
        const float scale = half_to_float(row.scales[group]);
        const int zero = row.zeros[group];
        for (int64_t i = 0; i < group_; ++i, ++out)
          *out = scale * static_cast<float>(row.codes[group * group_ + i] - zero);
      }
    });
  }

  bool is_exact_in(DType dtype) const override {
    if (dtype == DType::Q5_0) return true;
    if (dtype == DType::Q4_0) return all_zeros_are_8_;
    return dtype == DType::Q4_1 && minimums_are_exact_;
  }
  bool can_approximate(DType dtype) const override { return dtype == DType::Q4_1; }

  void copy_rows(DType dtype, int64_t begin, int64_t end, std::byte* out) const override {
    for_rows(begin, end, [&](const Row& row) {
      for (int64_t block = 0; block < n_cols() / kBlock; ++block) {
        const int64_t group = block * kBlock / group_;
        const uint8_t* codes = row.codes + block * kBlock;
        if (dtype == DType::Q4_0) out = put_q4_0(codes, row.scales[group], out);
        if (dtype == DType::Q4_1) out = put_q4_1(codes, row.scales[group], row.zeros[group], out);
        if (dtype == DType::Q5_0) out = put_q5_0(codes, row.scales[group], row.zeros[group], out);
      }
    });
  }

  std::string stored_type() const override { return is_awq() ? "AWQ" : "GPTQ"; }
  bool is_quantized() const override { return true; }

 private:
  bool is_awq() const { return layout_ == Int4Layout::kAwq; }

  /// Only the order in which groups lie one after the other has blocks to become.
  void check_order(const SafeTensor& g_idx) const {
    expect(g_idx, ScalarType::kI32, {n_cols()});
    for (int64_t i = 0; i < n_cols(); ++i) {
      if (word_at(g_idx, i) == static_cast<uint32_t>(i / group_)) continue;
      fail(g_idx,
           "its groups are not in order (act-order, desc_act), so they are no blocks of a "
           "GGUF type");
    }
  }

  /// The f16 scale of a group of a row.
  uint16_t scale_at(int64_t group, int64_t row) const {
    uint16_t bits;
    std::memcpy(&bits, scales_.data.data() + 2 * (group * n_out_ + row), sizeof(bits));
    return scales_.type == ScalarType::kBF16 ? float_to_half(bfloat_to_float(bits)) : bits;
  }

  /// The zero point of a group of a row, 0 to 16.
  uint8_t zero_at(int64_t group, int64_t row) const {
    const uint32_t word = word_at(qzeros_, (group * n_out_ + row) / kPerWord);
    const int j = static_cast<int>(row % kPerWord);
    const uint8_t stored = nibble_of(word, is_awq() ? kAwqNibble[static_cast<size_t>(j)] : j);
    return layout_ == Int4Layout::kGptq ? static_cast<uint8_t>(stored + 1) : stored;
  }

  /// Finds out which types are exact. Nothing of it is kept: the scales of a large model are
  /// gigabytes.
  void examine() {
    const bool is_bf16 = scales_.type == ScalarType::kBF16;
    if (!is_bf16) expect(scales_, ScalarType::kF16, scales_.shape);
    for (int64_t group = 0; group < n_groups_; ++group) {
      for (int64_t row = 0; row < n_out_; ++row) {
        const uint16_t scale = scale_at(group, row);
        const uint8_t zero = zero_at(group, row);
        if (is_bf16) {
          uint16_t bits;
          std::memcpy(&bits, scales_.data.data() + 2 * (group * n_out_ + row), sizeof(bits));
          if (half_to_float(scale) != bfloat_to_float(bits)) {
            fail(scales_, "has a scale that an F16 can't hold");
          }
        }
        all_zeros_are_8_ = all_zeros_are_8_ && zero == 8;
        const float m = minimum(scale, zero);
        minimums_are_exact_ = minimums_are_exact_ && half_to_float(float_to_half(m)) == m;
        if (!all_zeros_are_8_ && !minimums_are_exact_ && !is_bf16) return;
      }
    }
  }

  template <typename Use>
  void for_rows(int64_t begin, int64_t end, const Use& use) const {
    const auto n = static_cast<size_t>(end - begin);
    std::vector<uint8_t> codes(n * static_cast<size_t>(n_cols()));
    is_awq() ? unpack_awq(begin, end, codes.data()) : unpack_gptq(begin, end, codes.data());
    std::vector<uint16_t> scales(n * static_cast<size_t>(n_groups_));
    std::vector<uint8_t> zeros(scales.size());
    for (int64_t group = 0; group < n_groups_; ++group) {
      for (int64_t row = begin; row < end; ++row) {
        const auto at = static_cast<size_t>((row - begin) * n_groups_ + group);
        scales[at] = scale_at(group, row);
        zeros[at] = zero_at(group, row);
      }
    }
    for (size_t row = 0; row < n; ++row) {
      const size_t at = row * static_cast<size_t>(n_groups_);
      use(Row{codes.data() + row * static_cast<size_t>(n_cols()), scales.data() + at,
              zeros.data() + at});
    }
  }

  /// Goes along the stored rows, so that each word is read once.
  void unpack_awq(int64_t begin, int64_t end, uint8_t* codes) const {
    const int64_t words = n_out_ / kPerWord;
    for (int64_t col = 0; col < n_cols(); ++col) {
      for (int64_t word_idx = begin / kPerWord; word_idx * kPerWord < end; ++word_idx) {
        const uint32_t word = word_at(qweight_, col * words + word_idx);
        for (int j = 0; j < kPerWord; ++j) {
          const int64_t row = word_idx * kPerWord + j;
          if (row < begin || row >= end) continue;
          codes[(row - begin) * n_cols() + col] =
              nibble_of(word, kAwqNibble[static_cast<size_t>(j)]);
        }
      }
    }
  }

  void unpack_gptq(int64_t begin, int64_t end, uint8_t* codes) const {
    for (int64_t word_row = 0; word_row < n_cols() / kPerWord; ++word_row) {
      for (int64_t row = begin; row < end; ++row) {
        const uint32_t word = word_at(qweight_, word_row * n_out_ + row);
        for (int i = 0; i < kPerWord; ++i)
          codes[(row - begin) * n_cols() + word_row * kPerWord + i] = nibble_of(word, i);
      }
    }
  }

  static std::byte* put_q4_0(const uint8_t* codes, uint16_t scale, std::byte* out) {
    Q4_0::Block block;
    block.d = pack(scale);
    for (int i = 0; i < 16; ++i)
      block.qs[i] = static_cast<uint8_t>(codes[i] | (codes[i + 16] << 4));
    std::memcpy(out, &block, sizeof(block));
    return out + sizeof(block);
  }

  static std::byte* put_q4_1(const uint8_t* codes, uint16_t scale, uint8_t zero, std::byte* out) {
    Q4_1::Block block;
    block.d = pack(scale);
    block.m = pack(float_to_half(minimum(scale, zero)));
    for (int i = 0; i < 16; ++i)
      block.qs[i] = static_cast<uint8_t>(codes[i] | (codes[i + 16] << 4));
    std::memcpy(out, &block, sizeof(block));
    return out + sizeof(block);
  }

  static std::byte* put_q5_0(const uint8_t* codes, uint16_t scale, uint8_t zero, std::byte* out) {
    Q5_0::Block block;
    block.d = pack(scale);
    uint32_t high = 0;
    uint8_t low[kBlock];
    for (int i = 0; i < kBlock; ++i) {
      const int code = codes[i] - zero + 16;
      low[i] = static_cast<uint8_t>(code & 15);
      high |= static_cast<uint32_t>(code >> 4) << i;
    }
    std::memcpy(block.qh.bytes, &high, sizeof(high));
    for (int i = 0; i < 16; ++i)
      block.qs[i] = static_cast<uint8_t>(low[i] | (low[i + 16] << 4));
    std::memcpy(out, &block, sizeof(block));
    return out + sizeof(block);
  }

  Int4Layout layout_;
  SafeTensor qweight_;
  SafeTensor qzeros_;
  SafeTensor scales_;
  int64_t n_out_ = 0;
  int64_t n_groups_ = 0;
  int64_t group_ = 0;
  bool all_zeros_are_8_ = true;
  bool minimums_are_exact_ = true;
};

}  // namespace

WeightPtr int4_weight(Int4Layout layout, const Int4Tensors& tensors) {
  return std::make_unique<Int4Weight>(layout, tensors);
}

DType exact_dtype(const Weight& weight) {
  for (const DType dtype : {DType::Q4_0, DType::Q4_1, DType::Q5_0}) {
    if (weight.is_exact_in(dtype)) return dtype;
  }
  return DType::F32;
}

}  // namespace dsctl::gguf::convert
