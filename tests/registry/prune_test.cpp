#include "registry/prune.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>

#include "registry/error.h"
#include "registry/file_io.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/registry_store.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using tests::spec_of;
using tests::write_file;
using Mode = PruneOptions::Mode;

struct Store {
  tests::TempDir dir;
  Registry registry{dir.path() / "models"};

  Store() {
    write_file(dir.path() / "w.gguf", std::string(10'000, 'w'));
    registry.create(ModelName::parse("kept"), spec_of({dir.path() / "w.gguf"}), {});
  }
  fs::path blob(const std::string& content, const std::string& ending = "") {
    const fs::path path = registry.root() / "blobs" / (Digest::of(content).file_name() + ending);
    write_file(path, content);
    return path;
  }
  PruneResult prune_all(Mode mode = Mode::kRemove) {
    PruneOptions options;
    options.mode = mode;
    options.blob_age = options.partial_age = std::chrono::seconds(0);
    return prune(registry, options, {});
  }
};

std::vector<std::string> paths_of(const PruneResult& result, PruneKind kind) {
  std::vector<std::string> paths;
  for (const PruneItem& item : result.items) {
    if (item.kind == kind) paths.push_back(item.path.string());
  }
  return paths;
}

TEST_CASE("prune removes blobs that no manifest names and nothing else") {
  Store store;
  const fs::path orphan = store.blob("nobody's");
  const auto before = store.registry.find(ModelName::parse("kept"));
  const PruneResult dry = store.prune_all(Mode::kDryRun);
  CHECK(fs::exists(orphan));
  const PruneResult result = store.prune_all();
  for (const PruneResult& one : {dry, result}) {
    REQUIRE(one.items.size() == 1);
    CHECK(one.items[0].kind == PruneKind::kBlob);
    CHECK(one.items[0].path == fs::path("blobs") / orphan.filename());
    CHECK(one.freed_bytes == 8);
  }
  CHECK_FALSE(fs::exists(orphan));
  CHECK_NOTHROW(tests::check_store(store.registry.root()));
  CHECK(store.registry.find(ModelName::parse("kept"))->digest == before->digest);
  CHECK(store.prune_all().items.empty());
}

TEST_CASE("prune keeps a new blob that no manifest names yet") {
  Store store;
  const fs::path fresh = store.blob("just uploaded");
  const PruneResult result = prune(store.registry, {}, {});
  CHECK(result.items.empty());
  REQUIRE(result.notes.size() == 1);
  CHECK_THAT(result.notes[0], Contains("1 unused blob was kept"));
  CHECK(fs::exists(fresh));
}

TEST_CASE("prune keeps all blobs when a manifest can't be read") {
  Store store;
  const fs::path orphan = store.blob("nobody's");
  write_file(store.registry.root() / "manifests/h/o/broken/latest", "{");
  const PruneResult result = store.prune_all();
  CHECK(result.items.empty());
  REQUIRE(result.notes.size() == 1);
  CHECK_THAT(result.notes[0],
             Contains("blobs were kept, because the manifest of h/o/broken:latest can't be read"));
  CHECK(fs::exists(orphan));
}

TEST_CASE("prune removes old partial downloads, ours and Ollama's, but not one in progress") {
  Store store;
  const fs::path partial = store.blob("half", "-partial");
  const fs::path state = store.blob("half", "-partial-0");
  const fs::path busy = store.blob("other half", ".partial");
  const fs::path journal = store.blob("other half", ".partial.journal");
  SECTION("young ones stay") {
    const PruneResult result = prune(store.registry, {}, {});
    CHECK(result.items.empty());
    CHECK(result.notes.size() == 2);
    CHECK_THAT(result.notes[0], Contains("it is less than 7 days old"));
  }
  SECTION("one that a process has locked stays") {
    const FileDescriptor lock = open_file(journal, O_RDWR);
    REQUIRE(::flock(lock.get(), LOCK_EX) == 0);
    const PruneResult result = store.prune_all();
    CHECK(paths_of(result, PruneKind::kPartial).size() == 2);
    CHECK_FALSE(fs::exists(partial));
    CHECK_FALSE(fs::exists(state));
    CHECK(fs::exists(busy));
    CHECK(fs::exists(journal));
    REQUIRE(result.notes.size() == 1);
    CHECK_THAT(result.notes[0], Contains("a process is at it"));
  }
  SECTION("all are counted by what they take on disk") {
    fs::resize_file(partial, 1'000'000'000);  // sparse
    const PruneResult result = store.prune_all();
    CHECK(paths_of(result, PruneKind::kPartial).size() == 4);
    CHECK(result.freed_bytes < 1'000'000);
    CHECK(tests::leftovers(store.registry.root()).empty());
  }
}

TEST_CASE("prune keeps the finished shards of a pull that is not at its end") {
  Store store;
  const fs::path shard = store.blob("shard one");
  PruneOptions options;
  options.blob_age = std::chrono::seconds(0);
  SECTION("it goes on at this moment, however old its files are") {
    const fs::path journal = store.blob("shard two", "-partial.journal");
    const FileDescriptor lock = open_file(journal, O_RDWR);
    REQUIRE(::flock(lock.get(), LOCK_EX) == 0);
    options.partial_age = std::chrono::seconds(0);
    const PruneResult result = prune(store.registry, options, {});
    CHECK(result.items.empty());
    REQUIRE(result.notes.size() == 2);
    CHECK_THAT(result.notes[1], Contains("an unfinished pull may need it"));
    CHECK(fs::exists(shard));
  }
  SECTION("it was interrupted and may be taken up") {
    write_file(store.registry.root() / "blobs" / ("git-" + std::string(40, 'a') + "-partial"), "x");
    CHECK(prune(store.registry, options, {}).items.empty());
    CHECK(fs::exists(shard));
    CHECK(store.prune_all().items.size() == 2);
    CHECK_FALSE(fs::exists(shard));
    CHECK(tests::leftovers(store.registry.root()).empty());
  }
}

TEST_CASE("prune removes what a dead import left, but not a living one's work") {
  Store store;
  const fs::path dead = store.registry.root() / "blobs/.dsctl-staging-1-dead";
  write_file(dead / "lock", "");
  write_file(dead / "0", std::string(100'000, 'x'));
  Staging living(store.registry.blobs(), nullptr);  // takes the dead one away itself
  CHECK_FALSE(fs::exists(dead));
  write_file(dead / "0", std::string(100'000, 'x'));
  const PruneResult result = store.prune_all();
  CHECK(paths_of(result, PruneKind::kStaging) ==
        std::vector<std::string>{"blobs/.dsctl-staging-1-dead"});
  CHECK(result.freed_bytes >= 100'000);
  CHECK_FALSE(fs::exists(dead));
  CHECK(fs::exists(living.dir()));
}

TEST_CASE("prune removes empty directories of manifests and records of blobs that are gone") {
  Store store;
  const fs::path manifests = store.registry.root() / "manifests";
  fs::create_directories(manifests / "h/o/empty");
  fs::create_directories(manifests / "h/p");
  fs::create_directories(manifests / "registry.ollama.ai/library/gone");
  const fs::path record = store.registry.root() / ".dsctl/imports" / Digest::of("gone").file_name();
  write_file(record,
             R"({"source":"/x","hard_link":true,"device":1,"inode":2,"size":3,"mtime_ns":4,)"
             R"("recorded_ns":5})");
  const PruneResult dry = store.prune_all(Mode::kDryRun);
  CHECK(fs::exists(manifests / "h/o/empty"));
  CHECK(fs::exists(record));
  const PruneResult result = store.prune_all();
  for (const PruneResult& one : {dry, result}) {
    CHECK(paths_of(one, PruneKind::kDirectory) ==
          std::vector<std::string>{"manifests/h/o/empty", "manifests/h/o", "manifests/h/p",
                                   "manifests/h", "manifests/registry.ollama.ai/library/gone"});
    CHECK(paths_of(one, PruneKind::kRecord).size() == 1);
  }
  CHECK_FALSE(fs::exists(manifests / "h"));
  CHECK_FALSE(fs::exists(record));
  CHECK(store.registry.find(ModelName::parse("kept")).has_value());
}

TEST_CASE("prune frees nothing for a hard link whose other name lives on") {
  Store store;
  store.registry.create(ModelName::parse("also"), spec_of({store.dir.path() / "w.gguf"}), {});
  fs::remove_all(store.registry.root() / "manifests");
  const PruneResult result = store.prune_all();
  CHECK(tests::n_blobs(store.registry.root()) == 0);
  const auto weights = Digest::of(std::string(10'000, 'w')).file_name();
  for (const PruneItem& item : result.items) {
    const bool is_link =
        item.path.filename() == weights && fs::hard_link_count(store.dir.path() / "w.gguf") == 1;
    if (is_link) CHECK(item.freed_bytes <= 10'000);
  }
  CHECK(fs::exists(store.dir.path() / "w.gguf"));
}

TEST_CASE("prune of a store that is not there does nothing") {
  const tests::TempDir dir;
  const Registry registry(dir.path() / "none");
  CHECK(prune(registry, {}, {}).items.empty());
  CHECK_FALSE(fs::exists(dir.path() / "none"));
}

}  // namespace
}  // namespace dsctl::registry
