#include "gguf/gguf_writer.h"

#include <cstring>
#include <fstream>
#include <numeric>

#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

std::vector<float> numbers(size_t count, float first) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), first);
  return values;
}

/// A writer with one value of every type and three tensors.
GgufWriter full_writer(GgufWriterOptions options = {}) {
  GgufWriter writer(options);
  writer.add("general.architecture", "llama");
  writer.add("a.u8", uint8_t{255});
  writer.add("a.i8", int8_t{-128});
  writer.add("a.u16", uint16_t{65535});
  writer.add("a.i16", int16_t{-32768});
  writer.add("a.u32", uint32_t{4294967295});
  writer.add("a.i32", int32_t{-2147483647});
  writer.add("a.u64", uint64_t{18446744073709551615u});
  writer.add("a.i64", int64_t{-9223372036854775807});
  writer.add("a.f32", 0.1f);
  writer.add("a.f64", 0.1);
  writer.add("a.true", true);
  writer.add("a.false", false);
  writer.add("a.empty", "");
  writer.add_array("a.ints", std::vector<int32_t>{1, -2, 3});
  writer.add_array("a.bytes", std::vector<uint8_t>{0, 255});
  writer.add_array("a.floats", std::vector<float>{0.5f, -1.5f});
  writer.add_array("a.none", std::vector<uint64_t>{});
  writer.add_bools("a.bools", {true, false, true});
  writer.add_strings("a.strings", std::vector<std::string>{"", "two", std::string("nul\0in", 6)});
  writer.add_tensor("token_embd.weight", {4, 3}, numbers(12, 1.0f));
  writer.add_tensor("blk.0.bytes", DType::I8, {5},
                    std::vector<std::byte>(5, std::byte{7}));  // 5 bytes: needs padding
  writer.add_tensor("output.weight", {2, 2, 2}, numbers(8, 100.0f));
  return writer;
}

void check_full(const GgufFile& file) {
  CHECK(file.architecture() == "llama");
  CHECK(file.get_uint("a.u8") == 255);
  CHECK(file.find_int("a.i8") == -128);
  CHECK(file.get_uint("a.u16") == 65535);
  CHECK(file.find_int("a.i16") == -32768);
  CHECK(file.get_uint("a.u32") == 4294967295);
  CHECK(file.find_int("a.i32") == -2147483647);
  CHECK(file.get_uint("a.u64") == 18446744073709551615u);
  CHECK(file.find_int("a.i64") == -9223372036854775807);
  CHECK(file.get_float("a.f32") == double{0.1f});
  CHECK(file.get_float("a.f64") == 0.1);
  CHECK(file.find_bool("a.true") == true);
  CHECK(file.find_bool("a.false") == false);
  CHECK(file.get_string("a.empty").empty());
  CHECK(std::get<std::vector<int64_t>>(file.find_array("a.ints")->elements) ==
        std::vector<int64_t>{1, -2, 3});
  CHECK(std::get<std::vector<uint64_t>>(file.find_array("a.bytes")->elements) ==
        std::vector<uint64_t>{0, 255});
  CHECK(std::get<std::vector<double>>(file.find_array("a.floats")->elements) ==
        std::vector<double>{0.5, -1.5});
  CHECK(file.find_array("a.none")->size() == 0);
  CHECK(std::get<std::vector<int64_t>>(file.find_array("a.bools")->elements) ==
        std::vector<int64_t>{1, 0, 1});
  CHECK(std::get<std::vector<std::string_view>>(file.find_array("a.strings")->elements) ==
        std::vector<std::string_view>{"", "two", std::string_view("nul\0in", 6)});

  REQUIRE(file.tensors().size() == 3);
  const TensorInfo* embd = file.find_tensor("token_embd.weight");
  REQUIRE(embd != nullptr);
  CHECK(embd->dims == std::array<int64_t, 4>{4, 3, 1, 1});
  CHECK(embd->n_dims == 2);
  CHECK(embd->size_bytes == 48);
  float value = 0;
  std::memcpy(&value, embd->data + 44, 4);
  CHECK(value == 12.0f);
  const TensorInfo* bytes = file.find_tensor("blk.0.bytes");
  REQUIRE(bytes != nullptr);
  CHECK(bytes->data[4] == std::byte{7});
  const TensorInfo* output = file.find_tensor("output.weight");
  REQUIRE(output != nullptr);
  CHECK(output->n_elems() == 8);
  std::memcpy(&value, output->data, 4);
  CHECK(value == 100.0f);
}

size_t n_files(const std::filesystem::path& directory) {
  const std::filesystem::directory_iterator files(directory);
  return static_cast<size_t>(std::distance(begin(files), end(files)));
}

TEST_CASE("GgufWriter writes what GgufFile reads, in versions 2 and 3 and any alignment") {
  const tests::TempDir dir;
  const auto path = dir.path() / "model.gguf";
  const auto version = GENERATE(uint32_t{2}, uint32_t{3});
  const auto alignment = GENERATE(uint32_t{8}, uint32_t{32}, uint32_t{64}, uint32_t{4096});
  full_writer({version, alignment}).write(path);
  const GgufFile file = GgufFile::open(path);
  CHECK(file.version() == version);
  check_full(file);
  for (const TensorInfo& tensor : file.tensors())
    CHECK(tensor.offset_bytes % alignment == 0);
  CHECK(n_files(dir.path()) == 1);  // no temporary file is left
}

TEST_CASE("GgufWriter copies values of another file with their types") {
  const tests::TempDir dir;
  full_writer().write(dir.path() / "a.gguf");
  const GgufFile first = GgufFile::open(dir.path() / "a.gguf");
  GgufWriter writer;
  for (const KeyValue& entry : first.metadata())
    writer.add_value(entry.key, entry.value);
  for (const TensorInfo& tensor : first.tensors()) {
    writer.add_tensor_view(tensor.name, tensor.dtype,
                           std::span(tensor.dims).first(static_cast<size_t>(tensor.n_dims)),
                           {tensor.data, static_cast<size_t>(tensor.size_bytes)});
  }
  writer.write(dir.path() / "b.gguf");
  std::ifstream a(dir.path() / "a.gguf", std::ios::binary);
  std::ifstream b(dir.path() / "b.gguf", std::ios::binary);
  const std::string bytes_a{std::istreambuf_iterator<char>(a), {}};
  const std::string bytes_b{std::istreambuf_iterator<char>(b), {}};
  CHECK(!bytes_a.empty());
  CHECK(bytes_a == bytes_b);
}

TEST_CASE("GgufWriter replaces a file and leaves nothing behind when it can't") {
  const tests::TempDir dir;
  const auto path = dir.path() / "model.gguf";
  std::ofstream(path) << "old";
  full_writer().write(path);
  check_full(GgufFile::open(path));
  const auto taken = dir.path() / "directory";
  std::filesystem::create_directories(taken / "full");
  CHECK_THROWS_AS(full_writer().write(taken), Error);
  CHECK_THROWS_AS(full_writer().write(dir.path() / "missing" / "model.gguf"), Error);
  CHECK(n_files(dir.path()) == 2);
}

TEST_CASE("GgufWriter splits a model that any shard opens") {
  const tests::TempDir dir;
  const auto first_shard =
      GENERATE(SplitOptions::FirstShard::WithTensors, SplitOptions::FirstShard::MetadataOnly);
  const auto alignment = GENERATE(uint32_t{32}, uint32_t{64});
  SplitOptions options;
  options.n_tensors_per_shard = 1;
  options.first_shard = first_shard;
  const auto paths = full_writer({3, alignment}).write_split(dir.path(), "tiny", options);
  const bool metadata_only = first_shard == SplitOptions::FirstShard::MetadataOnly;
  REQUIRE(paths.size() == (metadata_only ? 4U : 3U));
  for (const auto& path : paths) {
    const GgufFile file = GgufFile::open(path);
    check_full(file);
    CHECK(file.shards().size() == paths.size());
    CHECK(file.tensors()[0].shard_idx == (metadata_only ? 1 : 0));
  }
  check_full(GgufFile::open_shards(paths));
}

TEST_CASE("GgufWriter splits into as many shards as asked") {
  const tests::TempDir dir;
  SplitOptions options;
  options.n_shards = 2;
  const auto paths = full_writer().write_split(dir.path(), "tiny", options);
  CHECK(paths.size() == 2);
  CHECK(paths[0].filename() == "tiny-00001-of-00002.gguf");
  check_full(GgufFile::open(paths[1]));
}

TEST_CASE("GgufWriter refuses what no reader would accept") {
  GgufWriter writer;
  writer.add("key", 1);
  CHECK_THROWS_AS(writer.add("key", 2), Error);
  CHECK_THROWS_AS(writer.add("", 2), Error);
  CHECK_THROWS_AS(writer.add_tensor("t", {4}, numbers(3, 0)), Error);
  CHECK_THROWS_AS(writer.add_tensor("t", {0}, numbers(0, 0)), Error);
  CHECK_THROWS_AS(writer.add_tensor("", {1}, numbers(1, 0)), Error);
  CHECK_THROWS_AS(writer.add_tensor(std::string(64, 'n'), {1}, numbers(1, 0)), Error);
  CHECK_THROWS_AS(writer.add_tensor("t", DType::Q4_0, {16}, std::vector<std::byte>(9)), Error);
  writer.add_tensor("t", {1}, numbers(1, 0));
  CHECK_THROWS_AS(writer.add_tensor("t", {1}, numbers(1, 0)), Error);
  CHECK_THROWS_AS(GgufWriter({3, 24}), Error);
  CHECK_THROWS_AS(GgufWriter({1, 32}), Error);
}

}  // namespace
}  // namespace dsctl::gguf
