#include <cmath>
#include <random>

#include "gguf/convert/int4_weight.h"
#include "gguf/error.h"
#include "gguf/quants/all.h"
#include "gguf/quants/half.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_safetensors.h"

namespace dsctl::gguf::convert {
namespace {

using Catch::Matchers::Contains;

constexpr int kGroup = 128;

/// A quantised matrix as its checkpoint means it, and packed as AWQ or GPTQ packs it.
struct Int4Matrix {
  int n_in = 0;
  int n_out = 0;
  std::vector<int> codes;     // (n_in, n_out)
  std::vector<int> zeros;     // (n_groups, n_out)
  std::vector<float> scales;  // (n_groups, n_out), values of f16

  static Int4Matrix random(int n_in, int n_out, int min_zero, int max_zero, int seed) {
    std::mt19937 generator(static_cast<unsigned>(seed));
    const auto pick = [&](int min, int max) {
      return min + static_cast<int>(generator() % static_cast<unsigned>(max - min + 1));
    };
    Int4Matrix matrix{n_in, n_out, {}, {}, {}};
    for (int i = 0; i < n_in * n_out; ++i)
      matrix.codes.push_back(pick(0, 15));
    for (int i = 0; i < n_in / kGroup * n_out; ++i) {
      matrix.zeros.push_back(pick(min_zero, max_zero));
      matrix.scales.push_back(half_to_float(static_cast<uint16_t>(pick(0x1000, 0x2fff))));
    }
    return matrix;
  }

  /// (n_out, n_in), in double: nothing is rounded.
  double value(int out, int in) const {
    const auto group = static_cast<size_t>(in / kGroup * n_out + out);
    return static_cast<double>(scales[group]) *
           (codes[static_cast<size_t>(in * n_out + out)] - zeros[group]);
  }

  tests::RawTensor packed_zeros(const std::vector<int>& order, int less) const {
    std::vector<uint32_t> words;
    for (int group = 0; group < n_in / kGroup; ++group) {
      for (int word = 0; word < n_out / 8; ++word) {
        uint32_t bits = 0;
        for (int i = 0; i < 8; ++i) {
          const int zero =
              zeros[static_cast<size_t>(group * n_out + 8 * word + order[static_cast<size_t>(i)])];
          bits |= static_cast<uint32_t>(zero - less) << (4 * i);
        }
        words.push_back(bits);
      }
    }
    return tests::i32_tensor("w.qzeros", {n_in / kGroup, n_out / 8}, words);
  }

  /// AutoAWQ's packing: nibble i of a word holds output order[i] of eight.
  std::vector<tests::RawTensor> awq() const {
    const std::vector<int> order = {0, 2, 4, 6, 1, 3, 5, 7};
    std::vector<uint32_t> words;
    for (int in = 0; in < n_in; ++in) {
      for (int word = 0; word < n_out / 8; ++word) {
        uint32_t bits = 0;
        for (int i = 0; i < 8; ++i) {
          bits |=
              static_cast<uint32_t>(
                  codes[static_cast<size_t>(in * n_out + 8 * word + order[static_cast<size_t>(i)])])
              << (4 * i);
        }
        words.push_back(bits);
      }
    }
    return {tests::i32_tensor("w.qweight", {n_in, n_out / 8}, words), packed_zeros(order, 0),
            tests::f16_tensor("w.scales", {n_in / kGroup, n_out}, scales)};
  }

  /// AutoGPTQ's packing: nibble i of a word holds input i of eight; zero points less one.
  std::vector<tests::RawTensor> gptq(int less = 1) const {
    std::vector<uint32_t> words;
    std::vector<uint32_t> g_idx;
    for (int row = 0; row < n_in / 8; ++row) {
      for (int out = 0; out < n_out; ++out) {
        uint32_t bits = 0;
        for (int i = 0; i < 8; ++i) {
          bits |= static_cast<uint32_t>(codes[static_cast<size_t>((8 * row + i) * n_out + out)])
                  << (4 * i);
        }
        words.push_back(bits);
      }
    }
    for (int in = 0; in < n_in; ++in)
      g_idx.push_back(static_cast<uint32_t>(in / kGroup));
    return {tests::i32_tensor("w.qweight", {n_in / 8, n_out}, words),
            packed_zeros({0, 1, 2, 3, 4, 5, 6, 7}, less),
            tests::f16_tensor("w.scales", {n_in / kGroup, n_out}, scales),
            tests::i32_tensor("w.g_idx", {n_in}, g_idx)};
  }
};

/// A file and the weight in it.
struct Loaded {
  std::string bytes;
  std::vector<SafeTensor> tensors;
  WeightPtr weight;

  Loaded(Int4Layout layout, const std::vector<tests::RawTensor>& raw)
      : bytes(tests::safetensors_bytes(raw)),
        tensors(parse_safetensors(std::as_bytes(std::span(bytes)), "x")) {
    const auto find = [&](std::string_view name) -> const SafeTensor* {
      for (const SafeTensor& tensor : tensors) {
        if (tensor.name == name) return &tensor;
      }
      return nullptr;
    };
    weight = int4_weight(layout, {.qweight = find("w.qweight"),
                                  .qzeros = find("w.qzeros"),
                                  .scales = find("w.scales"),
                                  .g_idx = find("w.g_idx")});
  }

  std::vector<float> values(DType dtype) const {
    const int64_t n = weight->n_rows() * weight->n_cols();
    std::vector<float> result(static_cast<size_t>(n));
    if (dtype == DType::F32) {
      weight->read_rows(0, weight->n_rows(), result.data());
      return result;
    }
    std::vector<std::byte> blocks(static_cast<size_t>(row_size_bytes(dtype, n)));
    weight->copy_rows(dtype, 0, weight->n_rows(), blocks.data());
    dequantize_row(dtype, blocks.data(), result.data(), n);
    return result;
  }
};

/// True when the values are those of `matrix`, to the last bit.
bool is_equal(const Int4Matrix& matrix, const std::vector<float>& values) {
  size_t i = 0;
  for (int out = 0; out < matrix.n_out; ++out) {
    for (int in = 0; in < matrix.n_in; ++in, ++i) {
      if (static_cast<double>(values[i]) != matrix.value(out, in)) return false;
    }
  }
  return i == values.size();
}

TEST_CASE("AWQ codes become Q4_0 when every zero point is 8, equal in every weight") {
  const Int4Matrix matrix = Int4Matrix::random(256, 64, 8, 8, 1);
  const Loaded loaded(Int4Layout::kAwq, matrix.awq());
  CHECK(loaded.weight->shape() == std::vector<int64_t>{64, 256});
  CHECK(exact_dtype(*loaded.weight) == DType::Q4_0);
  for (const DType dtype : {DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::F32}) {
    CAPTURE(dtype_info(dtype).name);
    CHECK(is_equal(matrix, loaded.values(dtype)));
  }
}

TEST_CASE("AWQ codes become Q4_1 when zero times scale is an f16, equal in every weight") {
  Int4Matrix matrix = Int4Matrix::random(256, 64, 0, 15, 2);
  // Scales of 7 bits: times 4 bits of a zero point that is 11.
  for (float& scale : matrix.scales)
    scale = half_to_float(static_cast<uint16_t>(float_to_half(scale) & 0xfff0U));
  const Loaded loaded(Int4Layout::kAwq, matrix.awq());
  CHECK(exact_dtype(*loaded.weight) == DType::Q4_1);
  CHECK_FALSE(loaded.weight->is_exact_in(DType::Q4_0));
  for (const DType dtype : {DType::Q4_1, DType::Q5_0, DType::F32}) {
    CAPTURE(dtype_info(dtype).name);
    CHECK(is_equal(matrix, loaded.values(dtype)));
  }
}

TEST_CASE("any AWQ codes are exact in Q5_0; Q4_1 takes the nearest minimum") {
  const Int4Matrix matrix = Int4Matrix::random(384, 128, 0, 15, 3);
  const Loaded loaded(Int4Layout::kAwq, matrix.awq());
  CHECK(exact_dtype(*loaded.weight) == DType::Q5_0);
  CHECK_FALSE(loaded.weight->is_exact_in(DType::Q4_1));
  CHECK(is_equal(matrix, loaded.values(DType::Q5_0)));
  CHECK(is_equal(matrix, loaded.values(DType::F32)));

  CHECK(loaded.weight->can_approximate(DType::Q4_1));
  const std::vector<float> nearest = loaded.values(DType::Q4_1);
  CHECK_FALSE(is_equal(matrix, nearest));
  double worst = 0;  // in steps of the code
  for (int out = 0; out < matrix.n_out; ++out) {
    for (int in = 0; in < matrix.n_in; ++in) {
      const double scale = matrix.scales[static_cast<size_t>(in / kGroup * matrix.n_out + out)];
      const double error =
          std::abs(static_cast<double>(nearest[static_cast<size_t>(out * matrix.n_in + in)]) -
                   matrix.value(out, in));
      worst = std::max(worst, error / scale);
    }
  }
  CHECK(worst <= 15.0 / 2048);  // half a unit in the last place of 15 * scale
}

TEST_CASE("GPTQ codes are equal in every weight, zero point 16 too") {
  for (const int less : {1, 0}) {
    const Int4Matrix matrix = Int4Matrix::random(256, 64, less, 15 + less, 4);
    const Loaded loaded(less ? Int4Layout::kGptq : Int4Layout::kGptqV2, matrix.gptq(less));
    CHECK(exact_dtype(*loaded.weight) == DType::Q5_0);
    CHECK(is_equal(matrix, loaded.values(DType::Q5_0)));
    CHECK(is_equal(matrix, loaded.values(DType::F32)));
  }
  const Int4Matrix symmetric = Int4Matrix::random(256, 64, 8, 8, 5);
  const Loaded loaded(Int4Layout::kGptq, symmetric.gptq());
  CHECK(exact_dtype(*loaded.weight) == DType::Q4_0);
  CHECK(is_equal(symmetric, loaded.values(DType::Q4_0)));
}

TEST_CASE("int4 rows read one by one are the rows read together") {
  const Int4Matrix matrix = Int4Matrix::random(256, 64, 0, 15, 6);
  for (const Int4Layout layout : {Int4Layout::kAwq, Int4Layout::kGptqV2}) {
    const Loaded loaded(layout, layout == Int4Layout::kAwq ? matrix.awq() : matrix.gptq(0));
    const std::vector<float> all = loaded.values(DType::F32);
    std::vector<float> row(256);
    for (int i = 0; i < 64; ++i) {
      loaded.weight->read_rows(i, i + 1, row.data());
      CHECK(std::equal(row.begin(), row.end(), all.begin() + 256 * i));
    }
  }
}

TEST_CASE("int4 weights that have no blocks are refused by name") {
  const Int4Matrix matrix = Int4Matrix::random(256, 64, 1, 15, 7);
  auto reordered = matrix.gptq();
  reordered[3].data[0] = 1;
  CHECK_THROWS_WITH(Loaded(Int4Layout::kGptq, reordered), Contains("w.g_idx") && Contains("order"));

  auto wrong_zeros = matrix.awq();
  wrong_zeros[1].shape = {1, 16};
  CHECK_THROWS_WITH(Loaded(Int4Layout::kAwq, wrong_zeros), Contains("w.qzeros"));

  auto wrong_type = matrix.awq();
  wrong_type[0].type = "U32";
  CHECK_THROWS_WITH(Loaded(Int4Layout::kAwq, wrong_type), Contains("w.qweight"));

  auto odd_groups = matrix.awq();  // 256 inputs over 16 groups: 16 each
  odd_groups[2] = tests::f16_tensor("w.scales", {16, 64}, std::vector<float>(16 * 64, 1.0F));
  CHECK_THROWS_WITH(Loaded(Int4Layout::kAwq, odd_groups), Contains("multiple of 32"));

  auto bf16 = matrix.awq();
  bf16[2] = tests::bf16_tensor("w.scales", {2, 64}, std::vector<float>(128, 1e-10F));
  CHECK_THROWS_WITH(Loaded(Int4Layout::kAwq, bf16), Contains("F16 can't hold"));
  bf16[2] = tests::bf16_tensor("w.scales", {2, 64}, std::vector<float>(128, 0.0625F));
  CHECK_NOTHROW(Loaded(Int4Layout::kAwq, bf16));
}

}  // namespace
}  // namespace dsctl::gguf::convert
