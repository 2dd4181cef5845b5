#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gguf/dtype.h"
#include "gguf/error.h"
#include "gguf/quants/all.h"
#include "gguf/quants/encode.h"
#include "gguf/quants/half.h"
#include "gguf/quants/iq_grids.h"
#include "gguf/quants/iq_signs.h"
#include "gguf/quants/q8_1.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

using nlohmann::json;

json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  REQUIRE(file);
  return json::parse(file);
}

json goldens() {
  return read_json(tests::source_dir() / "tests/golden/gguf/quant_goldens.json");
}

/// Word i of the generator that make_quant_goldens.py uses.
uint64_t splitmix64(uint64_t seed, uint64_t i) {
  uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

std::vector<std::byte> random_bytes(uint64_t seed, size_t count) {
  std::vector<std::byte> bytes((count + 7) / 8 * 8);
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t word = splitmix64(seed, i / 8);
    std::memcpy(bytes.data() + i, &word, 8);
  }
  bytes.resize(count);
  return bytes;
}

std::vector<float> random_floats(uint64_t seed, size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    const auto number = static_cast<int64_t>(splitmix64(seed, i) >> 42) - (1 << 21);
    values[i] = static_cast<float>(number) / (1 << 20);
  }
  return values;
}

std::string fnv1a(const void* data, size_t size) {
  uint64_t hash = 0xcbf29ce484222325U;
  for (size_t i = 0; i < size; ++i) {
    hash = (hash ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001b3U;
  }
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

std::vector<uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (const float value : values) {
    bits.push_back(std::isnan(value) ? 0x7fc00000U : bits_from_float(value));
  }
  return bits;
}

std::vector<float> dequantized(DType dtype, const std::vector<std::byte>& blocks) {
  const DTypeInfo& info = dtype_info(dtype);
  const auto n_blocks = static_cast<int64_t>(blocks.size()) / info.block_bytes;
  std::vector<float> values(static_cast<size_t>(n_blocks * info.block_elems));
  dequantize_row(dtype, blocks.data(), values.data(), n_blocks * info.block_elems);
  return values;
}

std::vector<std::byte> from_hex(const std::string& hex) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

TEST_CASE("dequantize_row equals the reference's values bit for bit") {
  if (tests::shared_dir().empty()) {
    WARN("no shared test data: the vectors of the specification are not compared");
    return;
  }
  const json vectors = read_json(tests::shared_dir() / "data/vectors/quant_vectors.json");
  REQUIRE(vectors.size() == 26);
  for (const auto& [name, entry] : vectors.items()) {
    INFO(name);
    const std::optional<DType> dtype = dtype_from_name(name);
    REQUIRE(dtype);
    CHECK(dtype_info(*dtype).block_elems == entry["block_elems"].get<int>());
    CHECK(dtype_info(*dtype).block_bytes == entry["block_bytes"].get<int>());
    for (const json& test_case : entry["cases"]) {
      const auto values = dequantized(*dtype, from_hex(test_case["hex"]));
      CHECK(bits_of(values) == test_case["f32bits"].get<std::vector<uint32_t>>());
    }
  }
}

TEST_CASE("dequantize_row equals Python's gguf package on random blocks") {
  const json golden = goldens();
  const auto n_blocks = golden["n_blocks"].get<size_t>();
  REQUIRE(golden["dequantize"].size() >= 26);
  for (const auto& [name, expected] : golden["dequantize"].items()) {
    INFO(name);
    const DType dtype = dtype_from_name(name).value();
    const auto size = n_blocks * static_cast<size_t>(dtype_info(dtype).block_bytes);
    const uint64_t seed = golden["seed"].get<uint64_t>() + static_cast<uint64_t>(dtype);
    const auto bits = bits_of(dequantized(dtype, random_bytes(seed, size)));
    for (size_t i = 0; i < expected["first"].size(); ++i) {
      CHECK(bits[i] == std::stoul(expected["first"][i].get<std::string>(), nullptr, 16));
    }
    CHECK(fnv1a(bits.data(), bits.size() * 4) == expected["hash"].get<std::string>());
  }
}

TEST_CASE("dequantize_row reads blocks at any address") {
  const auto blocks = random_bytes(7, 144 * 4);
  std::vector<std::byte> shifted(blocks.size() + 1);
  std::copy(blocks.begin(), blocks.end(), shifted.begin() + 1);
  std::vector<float> values(1024);
  dequantize_row(DType::Q4_K, shifted.data() + 1, values.data(), 1024);
  CHECK(bits_of(values) == bits_of(dequantized(DType::Q4_K, blocks)));
}

TEST_CASE("dequantize_row widens integers and doubles") {
  const auto convert = [](DType dtype, auto value) {
    std::vector<std::byte> bytes(sizeof(value));
    std::memcpy(bytes.data(), &value, sizeof(value));
    return dequantized(dtype, bytes).at(0);
  };
  CHECK(convert(DType::I8, int8_t{-128}) == -128.0F);
  CHECK(convert(DType::I16, int16_t{-32768}) == -32768.0F);
  CHECK(convert(DType::I32, int32_t{16777217}) == 16777216.0F);
  CHECK(convert(DType::I64, int64_t{-5'000'000'000}) == -5e9F);
  CHECK(convert(DType::F64, 0.1) == 0.1F);
}

TEST_CASE("dequantize_row reads Q8_1 past its sum") {
  Q8_1::Block block{};
  const uint16_t half_of_two = 0x4000;
  std::memcpy(block.d.bytes, &half_of_two, 2);
  block.s.bytes[0] = 0xff;
  block.qs[0] = -128;
  block.qs[31] = 5;
  std::vector<std::byte> bytes(sizeof(block));
  std::memcpy(bytes.data(), &block, sizeof(block));
  const auto values = dequantized(DType::Q8_1, bytes);
  CHECK(values[0] == -256.0F);
  CHECK(values[1] == 0.0F);
  CHECK(values[31] == 10.0F);
}

TEST_CASE("half_to_float is exact for all 65536 halves") {
  std::vector<float> values;
  for (uint32_t half = 0; half < 65536; ++half) {
    values.push_back(half_to_float(static_cast<uint16_t>(half)));
    if (!std::isnan(values.back())) CHECK(float_to_half(values.back()) == half);
  }
  const auto bits = bits_of(values);
  CHECK(fnv1a(bits.data(), bits.size() * 4) == goldens()["all_halves"].get<std::string>());
  CHECK(std::isnan(half_to_float(float_to_half(std::nanf("")))));
}

TEST_CASE("float_to_half rounds to nearest even as numpy does") {
  const json golden = goldens();
  std::vector<uint16_t> halves;
  for (uint64_t i = 0; i < 65536; ++i) {
    const auto word = static_cast<uint32_t>(splitmix64(golden["seed"].get<uint64_t>(), i) >> 32);
    halves.push_back(float_to_half(float_from_bits((word & 0x87ffffffU) | 0x30000000U)));
  }
  CHECK(fnv1a(halves.data(), halves.size() * 2) == golden["floats_to_half"].get<std::string>());
  CHECK(float_to_half(65504.0F) == 0x7bff);
  CHECK(float_to_half(65519.0F) == 0x7bff);
  CHECK(float_to_half(65520.0F) == 0x7c00);
  CHECK(float_to_half(1e30F) == 0x7c00);
  CHECK(float_to_half(-INFINITY) == 0xfc00);
  CHECK(float_to_half(0x1p-24F) == 1);
  CHECK(float_to_half(0x1p-25F) == 0);          // a tie, to even
  CHECK(float_to_half(0x1.8p-24F) == 2);        // a tie, to even
  CHECK(float_to_half(0x1.ffcp-15F) == 0x400);  // the largest subnormal and a half: a tie, to even
  CHECK(float_to_half(-0.0F) == 0x8000);
}

TEST_CASE("float_to_bfloat rounds to nearest even and keeps NaN") {
  CHECK(float_to_bfloat(1.0F) == 0x3f80);
  CHECK(float_to_bfloat(float_from_bits(0x3f808000)) == 0x3f80);
  CHECK(float_to_bfloat(float_from_bits(0x3f818000)) == 0x3f82);
  CHECK(float_to_bfloat(float_from_bits(0x3f808001)) == 0x3f81);
  CHECK(std::isnan(bfloat_to_float(float_to_bfloat(float_from_bits(0x7f800001)))));
}

TEST_CASE("iq_grids are the tables of the specification") {
  if (tests::shared_dir().empty()) {
    WARN("no shared test data: the grids are only tested through the goldens");
    return;
  }
  const json tables = read_json(tests::shared_dir() / "data/vectors/iq_tables.json");
  const auto check = [&](const char* name, const auto& grid) {
    INFO(name);
    const json& words = tables[name];
    REQUIRE(words.size() == std::size(grid));
    for (size_t i = 0; i < std::size(grid); ++i) {
      const auto word = words[i].get<uint64_t>();
      CHECK(std::memcmp(grid[i], &word, sizeof(grid[i])) == 0);
    }
  };
  const IqGrids& grids = iq_grids();
  check("iq2xxs_grid", grids.iq2_xxs);
  check("iq2xs_grid", grids.iq2_xs);
  check("iq2s_grid", grids.iq2_s);
  check("iq3xxs_grid", grids.iq3_xxs);
  check("iq3s_grid", grids.iq3_s);
  check("iq1s_grid", grids.iq1_s);
  for (uint32_t i = 0; i < 128; ++i)
    CHECK(even_signs(i) == tables["ksigns_iq2xs"][i]);
}

TEST_CASE("quantize_row equals Python's gguf package for the simple formats") {
  const json golden = goldens();
  for (const auto& [name, expected] : golden["quantize"].items()) {
    INFO(name);
    const DType dtype = dtype_from_name(name).value();
    const auto n_elems = expected["n_elems"].get<size_t>();
    auto values =
        random_floats(golden["seed"].get<uint64_t>() + static_cast<uint64_t>(dtype), n_elems);
    std::fill(values.begin(), values.begin() + 32, 0.0F);
    std::vector<std::byte> data(
        static_cast<size_t>(row_size_bytes(dtype, static_cast<int64_t>(n_elems))));
    quantize_row(dtype, values.data(), data.data(), static_cast<int64_t>(n_elems));
    CHECK(fnv1a(data.data(), data.size()) == expected["hash"].get<std::string>());
  }
}

/// Largest error of a round trip through `dtype`, relative to the largest value of the input.
double round_trip_error(DType dtype, const std::vector<float>& values) {
  const auto n_elems = static_cast<int64_t>(values.size());
  std::vector<std::byte> data(static_cast<size_t>(row_size_bytes(dtype, n_elems)));
  quantize_row(dtype, values.data(), data.data(), n_elems);
  const auto back = dequantized(dtype, data);
  double worst = 0;
  double largest = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(back[i]) - values[i]));
    largest = std::max(largest, std::abs(static_cast<double>(values[i])));
  }
  return largest == 0 ? worst : worst / largest;
}

TEST_CASE("quantize_row of K-quants comes back within a step") {
  // A step is range / codes; scales and minimums of 6 bits add up to a hundredth of the range.
  const auto values = random_floats(3, 256 * 64);  // in [-2, 2): a range of twice the largest
  CHECK(round_trip_error(DType::Q4_K, values) < 2.0 / 15 / 2 + 0.04);
  CHECK(round_trip_error(DType::Q5_K, values) < 2.0 / 31 / 2 + 0.04);
  CHECK(round_trip_error(DType::Q6_K, values) < 1.0 / 31 + 0.005);
  auto positive = values;
  for (float& value : positive)
    value = std::abs(value) + 1.0F;
  CHECK(round_trip_error(DType::Q4_K, positive) < 1.0 / 15 / 2 + 0.02);
  CHECK(round_trip_error(DType::Q6_K, positive) < 1.0 / 31 + 0.005);
  for (const DType dtype : {DType::Q4_K, DType::Q5_K, DType::Q6_K}) {
    CHECK(round_trip_error(dtype, std::vector<float>(256, 0.0F)) == 0.0);
    CHECK(round_trip_error(dtype, std::vector<float>(256, 1e-30F)) <= 1.0);
  }
}

TEST_CASE("quantize_row gives defined codes for NaN and infinity") {
  std::vector<float> values = random_floats(5, 256);
  values[3] = NAN;
  values[100] = INFINITY;
  values[200] = -INFINITY;
  for (uint32_t id = 0; id < 43; ++id) {
    const std::optional<DType> dtype = dtype_from_id(id);
    if (!dtype || !can_quantize(*dtype)) continue;
    std::vector<std::byte> data(static_cast<size_t>(row_size_bytes(*dtype, 256)));
    CHECK_NOTHROW(quantize_row(*dtype, values.data(), data.data(), 256));
  }
}

TEST_CASE("quantize_row names a type it can't write") {
  std::vector<float> values(256);
  std::vector<std::byte> data(256);
  std::string message;
  try {
    quantize_row(DType::IQ1_S, values.data(), data.data(), 256);
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK(message == "can't quantise to IQ1_S: there is no encoder for it");
}

}  // namespace
}  // namespace dsctl::gguf
