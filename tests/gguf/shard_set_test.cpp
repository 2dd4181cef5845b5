#include "gguf/shard_set.h"

#include "gguf/error.h"
#include "gguf/foreign_file.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_bytes.h"
#include "tests/support/gguf_shards.h"
#include "tests/support/paths.h"

namespace dsctl::gguf {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;

std::string error_of_set(const std::vector<fs::path>& inputs) {
  return tests::error_of([&] { open_shard_set(inputs); });
}

TEST_CASE("A shard, several, all, their directory or a pattern name the same model") {
  const tests::TempDir dir;
  const auto shards = tests::write_shards(dir.path(), "m", 6);
  const std::vector<std::vector<fs::path>> ways = {
      {shards[0]},
      {shards[2]},
      {shards[2], shards[0]},
      {shards[2], shards[1], shards[0], shards[1]},
      {dir.path()},
      {dir.path() / ""},
      {dir.path() / "m-*.gguf"},
      {dir.path() / "m-0000[12]-of-?????.gguf"},
      {dir.path(), shards[1]},
  };
  for (const auto& inputs : ways) {
    INFO(inputs.front());
    const GgufFile model = open_shard_set(inputs);
    CHECK(model.shards().size() == 3);
    CHECK(model.tensors().size() == 6);
    CHECK(model.tensors()[5].name == "blk.5.weight");
  }
}

TEST_CASE("Shards under other names, or in several directories, are ordered by what they say") {
  const tests::TempDir dir;
  const auto shards = tests::write_shards(dir.path(), "m", 6);
  fs::create_directories(dir.path() / "other");
  fs::rename(shards[1], dir.path() / "other" / shards[1].filename());
  fs::rename(shards[2], dir.path() / "sha256-c");
  const GgufFile model = open_shard_set(
      {dir.path() / "sha256-c", dir.path() / "other" / shards[1].filename(), shards[0]});
  CHECK(model.tensors()[2].name == "blk.2.weight");
  CHECK_THAT(error_of_set({dir.path() / "sha256-c", shards[0]}),
             Contains("shards missing of the 3 that") && Contains(": 2; give all of them"));
  fs::copy_file(shards[0], dir.path() / "copy");
  CHECK_THAT(error_of_set({dir.path() / "sha256-c", shards[0], dir.path() / "copy"}),
             Contains("copy: is shard 1 of 3, and so is"));
}

TEST_CASE("A set of shards that is not one model is refused with the names") {
  const tests::TempDir dir;
  const auto m = tests::write_shards(dir.path(), "m", 6);
  const auto n = tests::write_shards(dir.path(), "n", 4);
  CHECK_THAT(error_of_set({dir.path()}), Contains("holds shards of 2 models (m, n)"));
  CHECK_THAT(error_of_set({m[0], n[0]}), Contains("they are of two models"));
  CHECK_THAT(error_of_set({dir.path() / "x*.gguf"}), Contains("no file matches this pattern"));
  CHECK_THAT(error_of_set({dir.path() / "x.gguf"}), Contains("x.gguf: can't be opened: No such"));
  fs::create_directories(dir.path() / "empty");
  CHECK_THAT(error_of_set({dir.path() / "empty"}), Contains("holds no shards"));
  CHECK_THROWS_AS(open_shard_set({}), Error);
  fs::remove(m[1]);
  CHECK_THAT(error_of_set({m[2]}),
             Contains("1 of 3 shards missing: ") && Contains("m-00002-of-00003.gguf"));
  // A shard of another model under the name that is missing.
  const tests::TempDir other;
  const auto foreign = tests::write_shards(other.path(), "m", 5);
  fs::copy_file(foreign[1], m[1]);
  CHECK_THAT(error_of_set({m[0]}), Contains("it is a shard of another model"));
}

TEST_CASE("Git-LFS pointers among the shards are one line that says what to do") {
  const tests::TempDir dir;
  const auto shards = tests::write_shards(dir.path() / "repo/Q4", "m", 6);
  fs::create_directories(dir.path() / "repo/.git");
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\noid sha256:" + std::string(64, 'a') +
      "\nsize 48339779936\n";
  tests::write_text(shards[1], pointer);
  tests::write_text(shards[2], pointer);
  const std::string expected =
      "m-00002-of-00003.gguf: is a Git-LFS pointer, not the model itself (as are 2 of the 3 files "
      "here; the real ones have 96.7 GB): run git lfs pull --include=\"Q4/m*\" in the repository, "
      "or fetch the model with dsctl pull --local-dir ";
  CHECK_THAT(error_of_set({shards[0]}), Contains(expected));
  CHECK_THAT(error_of_set({shards[2]}), Contains(expected));
  CHECK_THAT(error_of_set({dir.path() / "repo/Q4"}), Contains(expected));
}

TEST_CASE("A Git-LFS pointer is read strictly") {
  const std::string oid = "oid sha256:" + std::string(64, '0') + "\n";
  const std::string version = "version https://git-lfs.github.com/spec/v1\n";
  const auto pointer = parse_lfs_pointer(version + oid + "size 12\n");
  REQUIRE(pointer);
  CHECK(pointer->size_bytes == 12);
  CHECK(pointer->sha256 == std::string(64, '0'));
  CHECK(parse_lfs_pointer("version https://hawser.github.com/spec/v1\n" + oid + "size 0\n"));
  CHECK(parse_lfs_pointer(version + "ext-0-x sha256:1\n" + oid + "size 3"));
  for (const std::string& text :
       {std::string("GGUF"), version, version + oid, version + "size 12\n",
        version + oid + "size -1\n", version + oid + "size 12x\n", version + oid + "size \n",
        version + oid + "size 99999999999999999999\n", version + "oid sha256:00\nsize 1\n",
        version + oid + "size 1\n" + std::string(1024, '\n'), std::string()}) {
    CHECK_FALSE(parse_lfs_pointer(text));
  }
}

}  // namespace
}  // namespace dsctl::gguf
