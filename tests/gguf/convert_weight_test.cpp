#include "gguf/convert/weight.h"
#include "gguf/error.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_safetensors.h"

namespace dsctl::gguf::convert {
namespace {

using Catch::Matchers::Contains;
using tests::ramp;

/// A file of one or two tensors, which must live as long as their weights.
struct File {
  explicit File(const std::vector<tests::RawTensor>& raw)
      : bytes(tests::safetensors_bytes(raw)),
        tensors(parse_safetensors(std::as_bytes(std::span(bytes)), "x")) {}
  std::string bytes;
  std::vector<SafeTensor> tensors;
};

std::vector<float> all_rows(const Weight& weight) {
  std::vector<float> values(static_cast<size_t>(weight.n_rows() * weight.n_cols()));
  weight.read_rows(0, weight.n_rows(), values.data());
  // Row by row gives the same.
  std::vector<float> row(static_cast<size_t>(weight.n_cols()));
  for (int64_t i = 0; i < weight.n_rows(); ++i) {
    weight.read_rows(i, i + 1, row.data());
    REQUIRE(std::equal(row.begin(), row.end(), values.begin() + i * weight.n_cols()));
  }
  return values;
}

TEST_CASE("plain_weight reads every float type; others are no weights") {
  const std::vector<float> values = ramp(24);
  for (const auto& raw :
       {tests::f32_tensor("w", {4, 6}, values), tests::f16_tensor("w", {4, 6}, values),
        tests::bf16_tensor("w", {4, 6}, values)}) {
    const File file({raw});
    const WeightPtr weight = plain_weight(file.tensors[0]);
    CHECK(weight->n_rows() == 4);
    CHECK(all_rows(*weight) == values);
  }
  const File file({tests::i32_tensor("w", {1}, {1})});
  CHECK_THROWS_WITH(plain_weight(file.tensors[0]), Contains("\"w\": type I32"));
}

TEST_CASE("interleaved_weight puts row j of half i to 2j + i in each head") {
  const File file({tests::f32_tensor("w", {8, 1}, {0, 1, 2, 3, 4, 5, 6, 7}),
                   tests::f32_tensor("x", {8}, {0, 1, 2, 3, 4, 5, 6, 7})});
  for (const SafeTensor& tensor : file.tensors) {
    const WeightPtr weight = interleaved_weight(plain_weight(tensor), 2);
    CHECK(all_rows(*weight) == std::vector<float>{0, 2, 1, 3, 4, 6, 5, 7});
  }
  CHECK_THROWS_AS(interleaved_weight(plain_weight(file.tensors[0]), 3), Error);
  CHECK_THROWS_AS(interleaved_weight(plain_weight(file.tensors[0]), 8), Error);
}

TEST_CASE("shifted_weight rounds in f16 when that is stored") {
  const File file(
      {tests::f16_tensor("h", {1}, {0x1p-11F}), tests::f32_tensor("s", {1}, {0x1p-11F})});
  CHECK(all_rows(*shifted_weight(plain_weight(file.tensors[0]), 1)) == std::vector<float>{1});
  CHECK(all_rows(*shifted_weight(plain_weight(file.tensors[1]), 1)) ==
        std::vector<float>{1 + 0x1p-11F});
}

TEST_CASE("stacked_weight stacks weights of one shape") {
  const File file({tests::f32_tensor("a", {2, 2}, {1, 2, 3, 4}),
                   tests::f32_tensor("b", {2, 2}, {5, 6, 7, 8}), tests::f32_tensor("c", {1}, {0})});
  std::vector<WeightPtr> parts;
  parts.push_back(plain_weight(file.tensors[0]));
  parts.push_back(plain_weight(file.tensors[1]));
  const WeightPtr stack = stacked_weight(std::move(parts));
  CHECK(stack->shape() == std::vector<int64_t>{2, 2, 2});
  CHECK(all_rows(*stack) == std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(stack->is_exact_in(DType::F32));
  std::vector<WeightPtr> uneven;
  uneven.push_back(plain_weight(file.tensors[0]));
  uneven.push_back(plain_weight(file.tensors[2]));
  CHECK_THROWS_WITH(stacked_weight(std::move(uneven)), Contains("expected one shape"));
}

TEST_CASE("kv_b_proj splits into heads of which the first half is transposed") {
  // Two heads of three rows (two of k, one of v) and two columns.
  const File file({tests::f32_tensor("w", {6, 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})});
  const std::shared_ptr<const Weight> kv_b = plain_weight(file.tensors[0]);
  const WeightPtr k_b = transposed_head_rows(kv_b, 2, 0, 2);
  CHECK(k_b->shape() == std::vector<int64_t>{2, 2, 2});
  CHECK(all_rows(*k_b) == std::vector<float>{1, 3, 2, 4, 7, 9, 8, 10});
  const WeightPtr v_b = head_rows(kv_b, 2, 2, 3);
  CHECK(v_b->shape() == std::vector<int64_t>{2, 1, 2});
  CHECK(all_rows(*v_b) == std::vector<float>{5, 6, 11, 12});
  CHECK_THROWS_AS(head_rows(kv_b, 4, 0, 1), Error);
}

TEST_CASE("scaled_fp8_weight multiplies each block by its scale") {
  // 0x38 is 1, 0xb8 is -1, 0x7e is 448, 0x01 is 2^-9.
  const File file({{"w", "F8_E4M3", {2, 3}, std::string("\x38\xb8\x7e\x01\x00\x38", 6)},
                   tests::f32_tensor("w_scale_inv", {1, 2}, {2, 3})});
  const WeightPtr weight = scaled_fp8_weight(file.tensors[0], file.tensors[1], 2, 2);
  CHECK(all_rows(*weight) == std::vector<float>{2, -2, 1344, 0x1p-8F, 0, 3});
  CHECK_THROWS_WITH(scaled_fp8_weight(file.tensors[0], file.tensors[1], 1, 2),
                    Contains("w_scale_inv") && Contains("expected [2, 2]"));
  CHECK_THROWS_AS(scaled_fp8_weight(file.tensors[1], file.tensors[1], 1, 1), Error);
}

}  // namespace
}  // namespace dsctl::gguf::convert
