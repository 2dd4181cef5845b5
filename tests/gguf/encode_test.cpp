#include "gguf/quants/encode.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gguf/quants/all.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

using nlohmann::json;

const std::vector<DType> kTypes{DType::F32,   DType::F16,  DType::BF16,   DType::Q4_0,
                                DType::Q4_1,  DType::Q5_0, DType::Q5_1,   DType::Q8_0,
                                DType::MXFP4, DType::Q2_K, DType::Q3_K,   DType::Q4_K,
                                DType::Q5_K,  DType::Q6_K, DType::IQ4_NL, DType::IQ4_XS};
const std::vector<EncoderIsa> kIsas{EncoderIsa::kBase, EncoderIsa::kAvx2, EncoderIsa::kAvx512};

uint64_t splitmix64(uint64_t seed, uint64_t i) {
  uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

/// Multiples of 2^-20 in [-2, 2).
std::vector<float> random_floats(uint64_t seed, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto number = static_cast<int64_t>(splitmix64(seed, i) >> 42) - (1 << 21);
    values[i] = static_cast<float>(number) / (1 << 20);
  }
  return values;
}

/// Rows of different kinds, as make_encode_goldens.py makes them.
std::vector<float> test_rows(uint64_t seed, int64_t n_rows, int64_t n_cols) {
  auto values = random_floats(seed, n_rows * n_cols);
  for (int64_t row = 0; row < n_rows; ++row) {
    float* x = values.data() + row * n_cols;
    for (int64_t i = 0; i < n_cols; ++i) {
      switch (row % 8) {
        case 1:
          x[i] = x[i] * x[i] * x[i];
          break;
        case 2:
          x[i] = x[i] + 2.5F;
          break;
        case 3:
          if (i < n_cols / 2) x[i] = 0;
          break;
        case 4:
          if (i % 97 == 0) x[i] = x[i] * 16;
          break;
        case 5:
          x[i] = x[i] * 0x1p-17F;
          break;
        case 6:
          x[i] = x[i] - 2.5F;
          break;
        case 7:
          if (i >= 32 && i < 64) x[i] = -0.75F;
          if (i >= 256 && i < 512) x[i] = 0.125F;
          break;
        default:
          break;
      }
    }
  }
  return values;
}

std::vector<float> test_importance(uint64_t seed, int64_t n_cols) {
  auto values = random_floats(seed, n_cols);
  for (float& value : values)
    value = value * value;
  for (size_t i = 5; i < values.size(); i += 50)
    values[i] = 0;
  return values;
}

std::vector<std::byte> encoded(EncoderIsa isa, DType dtype, const std::vector<float>& rows,
                               int64_t n_cols, const float* importance) {
  const int64_t n_rows = static_cast<int64_t>(rows.size()) / n_cols;
  std::vector<std::byte> data(static_cast<size_t>(n_rows * row_size_bytes(dtype, n_cols)));
  quantize_rows_on(isa, dtype, rows.data(), data.data(), n_rows, n_cols, importance);
  return data;
}

std::string fnv1a(const std::vector<std::byte>& data) {
  uint64_t value = 0xcbf29ce484222325U;
  for (const std::byte byte : data)
    value = (value ^ static_cast<uint64_t>(byte)) * 0x100000001b3U;
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
  return text;
}

TEST_CASE("quantize_rows equals llama-quantize, with and without a matrix") {
  std::ifstream file(tests::source_dir() / "tests/golden/gguf/encode_goldens.json");
  REQUIRE(file);
  const json golden = json::parse(file);
  const auto seed = golden["seed"].get<uint64_t>();
  const auto n_cols = golden["n_cols"].get<int64_t>();
  const auto rows = test_rows(seed, golden["n_rows"].get<int64_t>(), n_cols);
  const auto importance = test_importance(seed + 1, n_cols);
  for (const EncoderIsa isa : kIsas) {
    if (!has_encoder_isa(isa)) continue;
    for (const char* form : {"plain", "matrix"}) {
      const float* weights = std::strcmp(form, "matrix") == 0 ? importance.data() : nullptr;
      for (const auto& [name, expected] : golden[form].items()) {
        INFO(name << " " << form << " isa " << static_cast<int>(isa));
        const auto data = encoded(isa, dtype_from_name(name).value(), rows, n_cols, weights);
        CHECK(fnv1a(data) == expected["hash"].get<std::string>());
      }
    }
  }
}

TEST_CASE("quantize_rows gives the same bits on every instruction set") {
  // Rows of one block and of odd numbers of blocks: the last lanes are without a group.
  for (const int64_t n_cols : {256, 768, 1280}) {
    const auto rows = test_rows(7, 11, n_cols);
    const auto importance = test_importance(8, n_cols);
    for (const DType dtype : kTypes) {
      for (const float* weights : {static_cast<const float*>(nullptr), importance.data()}) {
        INFO(dtype_info(dtype).name << " " << n_cols << (weights != nullptr ? " matrix" : ""));
        const auto base = encoded(EncoderIsa::kBase, dtype, rows, n_cols, weights);
        for (const EncoderIsa isa : kIsas) {
          if (has_encoder_isa(isa)) CHECK(encoded(isa, dtype, rows, n_cols, weights) == base);
        }
      }
    }
  }
}

TEST_CASE("quantize_rows gives a row the same bits alone and among others") {
  constexpr int64_t kCols = 768;
  const auto rows = test_rows(9, 8, kCols);
  const auto importance = test_importance(10, kCols);
  for (const DType dtype : kTypes) {
    INFO(dtype_info(dtype).name);
    const auto all = encoded(EncoderIsa::kBase, dtype, rows, kCols, importance.data());
    std::vector<std::byte> joined;
    for (size_t row = 0; row < 8; ++row) {
      const std::vector<float> one(rows.begin() + static_cast<int64_t>(row) * kCols,
                                   rows.begin() + static_cast<int64_t>(row + 1) * kCols);
      const auto data = encoded(EncoderIsa::kBase, dtype, one, kCols, importance.data());
      joined.insert(joined.end(), data.begin(), data.end());
    }
    CHECK(joined == all);
  }
}

/// sum of weight * (x - back)^2 over the sum of weight * x^2.
double relative_error(DType dtype, const std::vector<float>& rows, int64_t n_cols,
                      const float* importance, const std::vector<float>& weights) {
  const auto data = encoded(EncoderIsa::kBase, dtype, rows, n_cols, importance);
  std::vector<float> back(rows.size());
  dequantize_row(dtype, data.data(), back.data(), static_cast<int64_t>(rows.size()));
  double error = 0;
  double total = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const double weight = weights[i % static_cast<size_t>(n_cols)];
    const double off = static_cast<double>(back[i]) - static_cast<double>(rows[i]);
    error += weight * off * off;
    total += weight * static_cast<double>(rows[i]) * static_cast<double>(rows[i]);
  }
  return error / total;
}

TEST_CASE("quantize_rows comes back as near as a format's bits allow") {
  // Near-normal values; bounds are a fifth above what the reference reaches on normal ones.
  constexpr int64_t kCols = 1024;
  std::vector<float> rows = random_floats(11, 16 * kCols);
  for (uint64_t seed = 12; seed < 18; ++seed) {
    const auto more = random_floats(seed, 16 * kCols);
    for (size_t i = 0; i < rows.size(); ++i)
      rows[i] += more[i];
  }
  const std::vector<float> equal(kCols, 1.0F);
  const std::vector<std::pair<DType, double>> bounds{
      {DType::F32, 0},         {DType::F16, 1e-7},     {DType::BF16, 4e-6},
      {DType::Q8_0, 4.5e-5},   {DType::Q6_K, 3.6e-4},  {DType::Q5_K, 1.6e-3},
      {DType::Q5_1, 1.8e-3},   {DType::Q5_0, 2.4e-3},  {DType::IQ4_NL, 6.5e-3},
      {DType::IQ4_XS, 6.9e-3}, {DType::Q4_K, 6.9e-3},  {DType::Q4_1, 8e-3},
      {DType::Q4_0, 1e-2},     {DType::MXFP4, 1.6e-2}, {DType::Q3_K, 3e-2},
      {DType::Q2_K, 1.1e-1}};
  for (const auto& [dtype, bound] : bounds) {
    INFO(dtype_info(dtype).name);
    CHECK(relative_error(dtype, rows, kCols, nullptr, equal) <= bound);
  }
}

TEST_CASE("a matrix lowers the error of the columns that matter") {
  constexpr int64_t kCols = 1024;
  const auto rows = random_floats(21, 16 * kCols);
  auto importance = test_importance(22, kCols);
  for (size_t i = 0; i < importance.size(); i += 16)
    importance[i] *= 100;
  for (const DType dtype :
       {DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q2_K, DType::Q3_K, DType::Q4_K,
        DType::Q5_K, DType::Q6_K, DType::IQ4_NL, DType::IQ4_XS}) {
    INFO(dtype_info(dtype).name);
    CHECK(relative_error(dtype, rows, kCols, importance.data(), importance) <
          0.95 * relative_error(dtype, rows, kCols, nullptr, importance));
  }
}

}  // namespace
}  // namespace dsctl::gguf
