#include "gguf/imatrix.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "gguf/error.h"
#include "gguf/gguf_writer.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

using Catch::Matchers::Contains;
namespace fs = std::filesystem;

ImportanceMatrix sample() {
  ImportanceMatrix matrix;
  matrix.datasets = {"wiki.txt", "code.txt"};
  matrix.n_chunks = 7;
  matrix.chunk_tokens = 512;
  matrix.entries.push_back({"blk.0.attn_q.weight", 3, {2, 4, 8}, {2}});
  matrix.entries.push_back({"blk.0.ffn_up_exps.weight", 2, {1, 2, 0, 0}, {4, 0}});
  return matrix;
}

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::string legacy(int32_t n_entries, const std::string& name, int32_t n_calls,
                   const std::vector<float>& values) {
  std::string out;
  put(out, n_entries);
  put(out, static_cast<int32_t>(name.size()));
  out += name;
  put(out, n_calls);
  put(out, static_cast<int32_t>(values.size()));
  for (const float value : values)
    put(out, value);
  return out;
}

ImportanceMatrix parse(const std::string& text) {
  return ImportanceMatrix::parse_legacy(std::as_bytes(std::span(text)), "old.dat");
}

TEST_CASE("ImportanceMatrix comes back from its file") {
  const tests::TempDir dir;
  sample().write(dir.path() / "m.gguf");
  const auto matrix = ImportanceMatrix::read(dir.path() / "m.gguf");
  CHECK(matrix.datasets == sample().datasets);
  CHECK(matrix.n_chunks == 7);
  CHECK(matrix.chunk_tokens == 512);
  REQUIRE(matrix.entries.size() == 2);
  CHECK(matrix.entries[0].sums == std::vector<float>{2, 4, 8});
  const ImportanceEntry* experts = matrix.find("blk.0.ffn_up_exps.weight");
  REQUIRE(experts != nullptr);
  CHECK(experts->n_cols == 2);
  CHECK(experts->counts == std::vector<float>{4, 0});
  CHECK(matrix.find("blk.0.attn_k.weight") == nullptr);
}

TEST_CASE("mean_squares divides by the count, and is 1 where nothing was seen") {
  const auto matrix = sample();
  CHECK(mean_squares(matrix.entries[0]) == std::vector<float>{1, 2, 4});
  CHECK(mean_squares(matrix.entries[1]) == std::vector<float>{0.25F, 0.5F, 1, 1});
}

TEST_CASE("ImportanceMatrix reads the old binary form") {
  std::string text = legacy(1, "blk.0.attn_q.weight", 4, {4, 8});
  const auto without_end = parse(text);
  REQUIRE(without_end.entries.size() == 1);
  CHECK(mean_squares(without_end.entries[0]) == std::vector<float>{1, 2});
  CHECK(without_end.n_chunks == 0);

  put(text, int32_t{21});
  put(text, int32_t{8});
  text += "wiki.txt";
  const tests::TempDir dir;
  std::ofstream(dir.path() / "old.dat", std::ios::binary) << text;
  const auto matrix = ImportanceMatrix::read(dir.path() / "old.dat");
  CHECK(matrix.n_chunks == 21);
  CHECK(matrix.datasets == std::vector<std::string>{"wiki.txt"});
}

TEST_CASE("ImportanceMatrix refuses a damaged old file") {
  const std::string good = legacy(1, "blk.0.attn_q.weight", 4, {4, 8});
  for (size_t size = 0; size < good.size(); ++size)
    CHECK_THROWS_WITH(parse(good.substr(0, size)), Contains("old.dat: ends at byte"));
  CHECK_THROWS_WITH(parse(legacy(-1, "a", 1, {1})), Contains("number of entries is -1"));
  CHECK_THROWS_WITH(parse(legacy(1, "a", -2, {1})), Contains("number of calls is -2"));
  CHECK_THROWS_WITH(parse(legacy(1, "a", 1, {})), Contains("a: has no values"));
  CHECK_THROWS_WITH(parse(legacy(1, "a", 1, {-1})), Contains("expected numbers from 0 up"));
  CHECK_THROWS_WITH(parse(legacy(1, "a", 1, {NAN})), Contains("expected numbers from 0 up"));
  const std::string entry = legacy(1, "a", 1, {1}).substr(4);
  std::string twice;
  put(twice, int32_t{2});
  CHECK_THROWS_WITH(parse(twice + entry + entry), Contains("a: is there twice"));
  // A number of values that no file holds allocates nothing.
  std::string huge = legacy(1, "a", 1, {});
  const int32_t most = INT32_MAX;
  std::memcpy(huge.data() + huge.size() - 4, &most, 4);
  CHECK_THROWS_WITH(parse(huge), Contains("ends at byte"));
}

TEST_CASE("ImportanceMatrix refuses a GGUF file that is none, or broken") {
  const tests::TempDir dir;
  const fs::path path = dir.path() / "m.gguf";
  const auto message = [&](const GgufWriter& writer) -> std::string {
    writer.write(path);
    try {
      ImportanceMatrix::read(path);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  GgufWriter model;
  model.add("general.type", "model");
  CHECK_THAT(message(model), Contains("general.type is 'model', expected 'imatrix'"));

  const auto matrix = [] {
    GgufWriter writer;
    writer.add("general.type", "imatrix");
    return writer;
  };
  GgufWriter lonely = matrix();
  lonely.add_tensor("a.in_sum2", {2}, std::vector<float>{1, 2});
  CHECK_THAT(message(lonely), Contains("a: has sums but no counts"));

  GgufWriter uneven = matrix();
  uneven.add_tensor("a.in_sum2", {2, 3}, std::vector<float>(6, 1));
  uneven.add_tensor("a.counts", {1, 2}, std::vector<float>(2, 1));
  CHECK_THAT(message(uneven), Contains("a: 2 counts for 3 rows"));

  GgufWriter negative = matrix();
  negative.add_tensor("a.in_sum2", {2}, std::vector<float>{1, -2});
  negative.add_tensor("a.counts", {1}, std::vector<float>{1});
  CHECK_THAT(message(negative), Contains("a: has -2"));

  GgufWriter halves = matrix();
  halves.add_tensor("a.in_sum2", DType::F16, {2}, std::vector<std::byte>(4));
  halves.add_tensor("a.counts", {1}, std::vector<float>{1});
  CHECK_THAT(message(halves), Contains("a.in_sum2: type F16, expected F32"));

  // One count for several matrices of a dense weight counts for each.
  GgufWriter one = matrix();
  one.add_tensor("a.in_sum2", {2, 3}, std::vector<float>(6, 4));
  one.add_tensor("a.counts", {1}, std::vector<float>{2});
  CHECK(message(one).empty());
  CHECK(mean_squares(ImportanceMatrix::read(path).entries[0]) == std::vector<float>(6, 2));
}

}  // namespace
}  // namespace dsctl::gguf
