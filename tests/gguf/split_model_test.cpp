#include "gguf/split_model.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "gguf/error.h"
#include "gguf/shard_set.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_bytes.h"
#include "tests/support/gguf_shards.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using FirstShard = SplitOptions::FirstShard;

void check_same(const fs::path& directory, const std::string& prefix, size_t n_shards) {
  const auto names = tests::names_in(directory);
  REQUIRE(names.size() == n_shards);
  for (const std::string& name : names) {
    INFO(name);
    CHECK(name.starts_with(prefix));
    CHECK(tests::read_text(directory / name) == tests::read_text(tests::golden_shards() / name));
  }
}

TEST_CASE("write_split writes byte for byte what llama-gguf-split writes") {
  const tests::TempDir dir;
  const auto verify = GENERATE(Verify::kNo, Verify::kYes);
  SECTION("so many tensors each") {
    const GgufFile tiny = GgufFile::open(tests::golden_shards() / "tiny.gguf");
    write_split(tiny, plan_split(tiny, dir.path() / "two", {.n_tensors = 2}), {.verify = verify});
    check_same(dir.path(), "two", 3);
  }
  SECTION("no tensors in the first") {
    const GgufFile tiny = GgufFile::open(tests::golden_shards() / "tiny.gguf");
    const SplitRule rule{.n_tensors = 4, .first_shard = FirstShard::MetadataOnly};
    write_split(tiny, plan_split(tiny, dir.path() / "bare", rule), {.verify = verify});
    check_same(dir.path(), "bare", 3);
  }
  SECTION("what was split and merged before") {
    const GgufFile merged = GgufFile::open(tests::golden_shards() / "merged.gguf");
    write_split(merged, plan_split(merged, dir.path() / "again", {.n_tensors = 5}), {});
    check_same(dir.path(), "again", 2);
  }
  SECTION("from shards, without merging them first") {
    const GgufFile two = open_shard_set({tests::golden_shards() / "two-00002-of-00003.gguf"});
    write_split(two, plan_split(two, dir.path() / "again", {.n_tensors = 5}), {});
    check_same(dir.path(), "again", 2);
  }
}

TEST_CASE("plan_split fills shards by size as llama-gguf-split does") {
  std::ifstream file(tests::source_dir() / "tests/golden/gguf/split_sizes.json");
  const auto golden = nlohmann::json::parse(file);
  const tests::TempDir dir;
  GgufWriter writer;
  writer.add("general.architecture", "llama");
  int i = 0;
  for (const int64_t size : golden["sizes"])
    writer.declare_tensor("t" + std::to_string(i++), DType::I8, {size});
  const GgufLayout layout = writer.layout();
  tests::write_text(dir.path() / "zeros.gguf", layout.header);
  fs::resize_file(dir.path() / "zeros.gguf", static_cast<uintmax_t>(layout.size_bytes));
  const GgufFile model = GgufFile::open(dir.path() / "zeros.gguf");
  for (const auto& one : golden["cases"]) {
    const bool bare = one["first_has_no_tensors"];
    const auto shards =
        plan_split(model, dir.path() / "s",
                   {.max_size_bytes = one["max_size"],
                    .first_shard = bare ? FirstShard::MetadataOnly : FirstShard::WithTensors});
    std::vector<size_t> n_tensors;
    for (const PlannedShard& shard : shards)
      n_tensors.push_back(shard.end - shard.begin);
    CHECK(n_tensors == one["n_tensors"].get<std::vector<size_t>>());
  }
}

TEST_CASE("plan_split gives a tensor that is too large a shard of its own") {
  const GgufFile tiny = GgufFile::open(tests::golden_shards() / "tiny.gguf");
  const auto shards = plan_split(tiny, "x", {.max_size_bytes = 1});
  REQUIRE(shards.size() == tiny.tensors().size());
  for (const PlannedShard& shard : shards)
    CHECK(shard.end == shard.begin + 1);
  CHECK(shards[1].path == "x-00002-of-00006.gguf");
  CHECK_THROWS_AS(plan_split(tiny, "x", {}), Error);
}

TEST_CASE("What write_split wrote merges to the same model") {
  const tests::TempDir dir;
  const GgufFile two = open_shard_set({tests::golden_shards() / "two-00001-of-00003.gguf"});
  const auto n_tensors = GENERATE(1, 2, 3, 4, 6, 7);
  const auto first = GENERATE(FirstShard::WithTensors, FirstShard::MetadataOnly);
  const auto shards =
      plan_split(two, dir.path() / "s", {.n_tensors = n_tensors, .first_shard = first});
  write_split(two, shards, {});
  merge(open_shard_set({shards.back().path}), dir.path() / "m.gguf", {});
  CHECK(tests::read_text(dir.path() / "m.gguf") ==
        tests::read_text(tests::golden_shards() / "merged.gguf"));
}

TEST_CASE("write_split leaves nothing when it can't finish, and replaces only when told to") {
  const tests::TempDir dir;
  const GgufFile tiny = GgufFile::open(tests::golden_shards() / "tiny.gguf");
  const auto shards = plan_split(tiny, dir.path() / "s", {.n_tensors = 2});
  const auto stop = [](std::string_view, int64_t, int64_t) { throw std::runtime_error("stop"); };
  CHECK_THROWS_AS(write_split(tiny, shards, {.progress = stop}), std::runtime_error);
  CHECK(tests::names_in(dir.path()).empty());
  tests::write_text(shards[1].path, "old");
  CHECK_THAT(tests::error_of([&] { write_split(tiny, shards, {}); }),
             Contains("s-00002-of-00003.gguf: exists already"));
  CHECK(tests::names_in(dir.path()).size() == 1);
  write_split(tiny, shards, {.if_exists = IfExists::kReplace});
  CHECK(open_shard_set({dir.path()}).tensors().size() == 6);
}

}  // namespace
}  // namespace dsctl::gguf
