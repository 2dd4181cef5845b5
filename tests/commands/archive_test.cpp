#include "commands/archive.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "commands/prune.h"
#include "commands/verify.h"
#include "registry/error.h"
#include "tests/support/catch.h"
#include "tests/support/commands_store.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using Json = nlohmann::json;

struct Store : tests::ModelStore {
  fs::path tar = dir.path() / "models.tar";

  Store() {
    write_model("m.gguf");
    create("a", "FROM m.gguf\n");
    create("me/b:1", "FROM m.gguf\nSYSTEM b\n");
    console.printed.clear();
    console.notes.clear();
  }
  Json json() { return Json::parse(std::exchange(console.printed, "")); }
};

TEST_CASE("export and import carry models and tell about them") {
  Store store;
  const tests::ModelStore other;
  tests::RecordingConsole console;
  SECTION("as text") {
    CHECK(export_archive(store.settings, {{"a", "ME/B:1"}, store.tar}, store.console) == 0);
    CHECK_THAT(store.console.printed,
               Contains("exported 2 models, 4 blobs, ") && Contains(" to " + store.tar.string()));
    CHECK(import_archive(other.settings, {store.tar}, console) == 0);
    CHECK(console.printed == "imported 'a:latest'\nimported 'me/b:1'\n");
    CHECK_THAT(console.notes, Contains("4 new blobs") && Contains("0 blobs known already"));
  }
  SECTION("as JSON") {
    CHECK(export_archive(store.settings, {{"a"}, store.tar, false, true}, store.console) == 0);
    const Json exported = store.json();
    CHECK(exported["models"] == std::vector<std::string>{"a:latest"});
    CHECK(exported["blobs"] == 2);
    CHECK(exported["size"] == fs::file_size(store.tar));
    CHECK(import_archive(other.settings, {store.tar, true}, console) == 0);
    const Json imported = Json::parse(console.printed);
    CHECK(imported["models"] == std::vector<std::string>{"a:latest"});
    CHECK(imported["new_blobs"] == 2);
    CHECK(imported["known_blobs"] == 0);
    CHECK(imported["new_bytes"].get<int64_t>() < exported["size"].get<int64_t>());
  }
  CHECK(other.registry().list().models.front().digest ==
        store.registry().find(other.registry().list().models.front().name)->digest);
}

TEST_CASE("Ctrl-C ends export and import with nothing left") {
  Store store;
  store.console.is_interrupted = true;
  CHECK_THROWS_WITH(export_archive(store.settings, {{"a"}, store.tar}, store.console),
                    "interrupted");
  CHECK_FALSE(fs::exists(store.tar));
  store.console.is_interrupted = false;
  export_archive(store.settings, {{"a"}, store.tar}, store.console);
  store.console.is_interrupted = true;
  const tests::ModelStore other;
  CHECK_THROWS_WITH(import_archive(other.settings, {store.tar}, store.console), "interrupted");
  CHECK(other.registry().list().models.empty());
}

TEST_CASE("export to standard output can't print JSON too") {
  Store store;
  CHECK_THROWS_WITH(export_archive(store.settings, {{"a"}, "-", false, true}, store.console),
                    Contains("--json needs -o FILE"));
}

TEST_CASE("prune tells what it removes, or would remove") {
  Store store;
  const fs::path orphan = store.write("models/blobs/sha256-" + std::string(64, 'a'), "12345");
  CHECK(prune(store.settings, {.dry_run = true, .older_than = "0"}, store.console) == 0);
  CHECK(store.console.printed ==
        "would remove blobs/sha256-" + std::string(64, 'a') + " (5 B)\nwould free 5 B\n");
  store.console.printed.clear();
  CHECK(prune(store.settings, {}, store.console) == 0);
  CHECK(store.console.printed == "freed 0 B\n");
  CHECK_THAT(store.console.notes, Contains("1 unused blob was kept"));
  CHECK(fs::exists(orphan));
  store.console.printed.clear();
  CHECK(prune(store.settings, {.older_than = "0", .json = true}, store.console) == 0);
  const Json json = store.json();
  CHECK(json["dry_run"] == false);
  CHECK(json["freed_bytes"] == 5);
  CHECK(json["removed"][0]["kind"] == "blob");
  CHECK_FALSE(fs::exists(orphan));
  CHECK_THROWS_WITH(prune(store.settings, {.older_than = "soon"}, store.console), Contains("soon"));
  CHECK_THROWS_WITH(prune(store.settings, {.older_than = "-1h"}, store.console),
                    Contains("--older-than -1h"));
}

TEST_CASE("verify fails for a damaged blob, names its models, and removes it when told") {
  Store store;
  CHECK(verify(store.settings, {}, store.console) == 0);
  CHECK_THAT(store.console.printed,
             Contains("verified 4 blobs of 2 models: ") && Contains("/s, all sound\n"));
  const auto model = store.registry().find(registry::ModelName::parse("a"));
  const fs::path blob = model->weight_paths[0];
  const auto size = fs::file_size(blob);
  fs::remove(blob);
  std::ofstream(blob) << std::string(size, 'x');
  store.console.printed.clear();
  CHECK(verify(store.settings, {}, store.console) == 1);
  CHECK_THAT(store.console.printed,
             Contains("bad: " + model->manifest.layers[0].digest.to_string()) &&
                 Contains("; used by a:latest, me/b:1\n") && Contains(", 1 bad\n"));
  store.console.printed.clear();
  CHECK(verify(store.settings, {.names = {"a"}, .remove = true, .json = true}, store.console) == 1);
  const Json json = store.json();
  CHECK(json["models"] == 1);
  CHECK(json["blobs"] == 2);
  CHECK(json["bad"][0]["removed"] == true);
  CHECK(json["bad"][0]["models"] == std::vector<std::string>{"a:latest"});
  CHECK(json["bytes_per_second"].get<double>() > 0);
  CHECK_FALSE(fs::exists(blob));
}

}  // namespace
}  // namespace dsctl::commands
