#include "commands/merge.h"

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "commands/error.h"
#include "commands/shard_report.h"
#include "commands/split.h"
#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "gguf/merge_in_place.h"
#include "tests/support/catch.h"
#include "tests/support/commands_store.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Golden shards in the directory of a store: two-0000N-of-00003.gguf and what they merge to.
struct Shards : tests::ModelStore {
  fs::path golden = tests::source_dir() / "tests/golden/gguf/split";
  std::string merged = bytes_of(golden / "merged.gguf");

  Shards() {
    for (int i = 1; i <= 3; ++i)
      fs::copy_file(golden / fs::path(name(i)), path(name(i)));
  }
  static std::string name(int number) {
    return "two-0000" + std::to_string(number) + "-of-00003.gguf";
  }
  fs::path path(const std::string& file) const { return dir.path() / file; }
  int run(MergeOptions options) { return merge(settings, options, console); }
};

TEST_CASE("merge writes one file and says what it did") {
  Shards shards;
  CHECK(shards.run({.shards = {shards.path(Shards::name(2))}, .out = shards.path("out.gguf")}) ==
        0);
  CHECK((bytes_of(shards.path("out.gguf")) == shards.merged));
  CHECK_THAT(shards.console.printed, Contains("out.gguf: 6 tensors of 3 shards, 1.57 kB in"));

  SECTION("and as JSON, compared, over an old file") {
    shards.console.printed.clear();
    CHECK(shards.run({.shards = {shards.path("two*")},
                      .out = shards.path("out.gguf"),
                      .verify = true,
                      .force = true,
                      .json = true}) == 0);
    const auto json = nlohmann::json::parse(shards.console.printed);
    CHECK(json["out"] == shards.path("out.gguf").string());
    CHECK(json["size"] == 1568);
    CHECK(json["tensors"] == 6);
    CHECK(json["shards"].size() == 3);
    CHECK(json["shards"][1]["path"] == shards.path(Shards::name(2)).string());
    CHECK(json["copied"].get<int64_t>() + json["shared"].get<int64_t>() == 551);
    CHECK(json["verified"] == true);
  }
  SECTION("in a directory it is named after the shards") {
    fs::create_directories(shards.path("d"));
    shards.run({.shards = {shards.path(Shards::name(1))}, .out = shards.path("d")});
    CHECK((bytes_of(shards.path("d/two.gguf")) == shards.merged));
  }
  SECTION("through a link its target is written") {
    fs::create_symlink(shards.path("real.gguf"), shards.path("link.gguf"));
    shards.run({.shards = {shards.path(Shards::name(1))}, .out = shards.path("link.gguf")});
    CHECK(fs::is_symlink(shards.path("link.gguf")));
    CHECK((bytes_of(shards.path("real.gguf")) == shards.merged));
    fs::create_symlink("loop.gguf", shards.path("loop.gguf"));
    CHECK_THROWS_WITH(
        shards.run({.shards = {shards.path(Shards::name(1))}, .out = shards.path("loop.gguf")}),
        Contains("loop.gguf: its symbolic link can't be followed"));
  }
  SECTION("not over a file unless told to") {
    CHECK_THROWS_WITH(
        shards.run({.shards = {shards.path(Shards::name(1))}, .out = shards.path("out.gguf")}),
        Contains("exists already; --force replaces it"));
  }
}

TEST_CASE("merge --dry-run says what would be done and writes nothing") {
  Shards shards;
  MergeOptions options{.shards = {shards.dir.path()}, .out = shards.path("o"), .dry_run = true};
  CHECK(shards.run(options) == 0);
  CHECK_THAT(shards.console.printed, Contains("SHARD                      TENSORS    SIZE\n"
                                              "two-00001-of-00003.gguf    2          1.09 kB\n") &&
                                         Contains("3 shards, 6 tensors -> ") &&
                                         Contains("1.57 kB (1,568 bytes)") &&
                                         Contains("needs 1.57 kB; ") && Contains(" free there"));
  options.json = true;
  options.in_place = true;
  shards.console.printed.clear();
  CHECK(shards.run(options) == 0);
  const auto json = nlohmann::json::parse(shards.console.printed);
  CHECK(json["fits"] == true);
  CHECK(json["in_place"] == true);
  CHECK(json["free"].get<int64_t>() > json["needed"].get<int64_t>());
  CHECK_FALSE(fs::exists(shards.path("o")));
  CHECK(fs::exists(shards.path(Shards::name(1))));
}

TEST_CASE("merge --in-place warns first, and the same command finishes what was interrupted") {
  Shards shards;
  const MergeOptions options{
      .shards = {shards.path(Shards::name(1))}, .out = shards.path("o"), .in_place = true};
  SECTION("in one go") {
    CHECK(shards.run(options) == 0);
    CHECK_THAT(shards.console.notes,
               Contains("in place: each of the 3 shards is removed once its data is safe in "));
  }
  SECTION("after Ctrl-C with a shard gone") {
    struct Interrupting : tests::RecordingConsole {
      fs::path first;
      bool interrupted() const override { return !fs::exists(first); }
    } console;
    console.first = shards.path(Shards::name(1));
    CHECK_THROWS_WITH(merge(shards.settings, options, console),
                      Contains("interrupted; nothing is lost: run the same command again"));
    REQUIRE(gguf::has_unfinished_merge(shards.path("o")));
    MergeOptions plain = options;
    plain.in_place = false;
    CHECK_THROWS_WITH(shards.run(plain), Contains("run the command with --in-place to finish it"));
    MergeOptions dry = options;
    dry.dry_run = true;
    CHECK(shards.run(dry) == 0);
    CHECK_THAT(shards.console.printed, Contains("would be finished"));
    REQUIRE(gguf::has_unfinished_merge(shards.path("o")));
    CHECK(shards.run(options) == 0);
    CHECK_THAT(shards.console.printed, Contains("o: finished, 6 tensors, 1.57 kB"));
  }
  SECTION("after Ctrl-C before any shard is gone, from the start") {
    shards.console.is_interrupted = true;
    CHECK_THROWS_WITH(shards.run(options), Catch::Equals("interrupted"));
    CHECK(fs::exists(shards.path(Shards::name(1))));
    shards.console.is_interrupted = false;
    CHECK(shards.run(options) == 0);
  }
  CHECK((bytes_of(shards.path("o")) == shards.merged));
  for (int i = 1; i <= 3; ++i)
    CHECK_FALSE(fs::exists(shards.path(Shards::name(i))));
  CHECK(std::distance(fs::directory_iterator(shards.dir.path()), fs::directory_iterator()) == 1);
}

TEST_CASE("merge takes a stored model by name, but never its blobs away") {
  Shards shards;
  shards.create("two", "FROM " + Shards::name(1) + "\n");
  CHECK(shards.run({.shards = {"two"}, .out = shards.path("o")}) == 0);
  CHECK((bytes_of(shards.path("o")) == shards.merged));
  CHECK_THROWS_WITH(shards.run({.shards = {"two"}, .out = shards.path("p"), .in_place = true}),
                    Contains("belongs to a stored model, which merging in place would destroy"));
  // Hard links to the same bytes are as dangerous where `create` made such.
  if (fs::hard_link_count(shards.path(Shards::name(1))) > 1) {
    CHECK_THROWS_WITH(
        shards.run(
            {.shards = {shards.path(Shards::name(1))}, .out = shards.path("p"), .in_place = true}),
        Contains("has 2 names"));
  }
  CHECK_FALSE(fs::exists(shards.path("p")));
  CHECK_THROWS_AS(shards.run({.shards = {"three"}, .out = shards.path("p")}), gguf::Error);
}

TEST_CASE("split writes shards and says which") {
  Shards shards;
  fs::copy_file(shards.golden / "tiny.gguf", shards.path("tiny.gguf"));
  SplitOptions options{.file = shards.path("tiny.gguf"),
                       .prefix = shards.path("bare.gguf"),
                       .max_tensors = 4,
                       .no_tensor_first_split = true};
  options.dry_run = true;
  CHECK(split(shards.settings, options, shards.console) == 0);
  CHECK_THAT(shards.console.printed,
             Contains("bare-00001-of-00003.gguf    0          576 bytes\n") &&
                 Contains("3 shards in ") && Contains(" free there"));
  CHECK_FALSE(fs::exists(shards.path("bare-00001-of-00003.gguf")));

  options.dry_run = false;
  options.json = true;
  options.verify = true;
  shards.console.printed.clear();
  CHECK(split(shards.settings, options, shards.console) == 0);
  const auto json = nlohmann::json::parse(shards.console.printed);
  REQUIRE(json["shards"].size() == 3);
  CHECK(json["tensors"] == 6);
  for (const auto& shard : json["shards"]) {
    const fs::path path = shard["path"].get<std::string>();
    CHECK((bytes_of(path) == bytes_of(shards.golden / path.filename())));
    CHECK(shard["size"] == fs::file_size(path));
  }
  CHECK_THROWS_WITH(split(shards.settings, options, shards.console), Contains("exists already"));
  options.force = true;
  CHECK(split(shards.settings, options, shards.console) == 0);

  fs::create_directories(shards.path("d"));
  split(shards.settings,
        {.file = shards.path("tiny.gguf"), .prefix = shards.path("d"), .max_size_bytes = 1 << 20},
        shards.console);
  CHECK(fs::exists(shards.path("d/tiny-00001-of-00001.gguf")));
}

TEST_CASE("Sizes of shards read well") {
  CHECK(format_exact(0) == "0");
  CHECK(format_exact(999) == "999");
  CHECK(format_exact(1000) == "1,000");
  CHECK(format_exact(404'430'188'544) == "404,430,188,544");
  CHECK(format_room(10'000, 12'000) == "12.0 kB free there");
  CHECK(format_room(404'430'188'544, 66'000'000'000) ==
        "66.0 GB free there, not enough: 338 GB are missing");
  CHECK(format_speed(404'000'000'000, std::chrono::seconds(404)) == "404 GB in 6m44s, 1.00 GB/s");
  CHECK(format_count(1, "shard") == "1 shard");
}

}  // namespace
}  // namespace dsctl::commands
