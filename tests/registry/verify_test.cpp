#include "registry/verify.h"

#include <algorithm>

#include "registry/error.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/registry_store.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using tests::spec_of;
using tests::write_file;

struct Store {
  tests::TempDir dir;
  Registry registry{dir.path() / "models"};

  Store() {
    for (const char* name : {"a", "b"}) {
      write_file(dir.path() / name, std::string(100'000, name[0]));
      registry.create(ModelName::parse(name), spec_of({dir.path() / name}), {});
    }
    registry.copy(ModelName::parse("a"), ModelName::parse("c"));
  }
  Digest weights(const char* name) const { return Digest::of(std::string(100'000, name[0])); }
  fs::path path(const char* name) const { return registry.blobs().path_of(weights(name)); }
  /// Replaces the blob by another file, as a bad disk would.
  void damage(const char* name, const std::string& content) {
    fs::remove(path(name));
    write_file(path(name), content);
  }
};

TEST_CASE("verify reads every blob once and finds a sound store sound") {
  Store store;
  for (const int n_threads : {0, 1, 3}) {
    int64_t last = 0;
    int64_t total = 0;
    const VerifyResult result =
        verify(store.registry, {}, n_threads, [&](std::string_view, int64_t done, int64_t all) {
          CHECK(done > last);
          last = done;
          total = all;
        });
    CHECK(result.n_models == 3);
    CHECK(result.n_blobs == tests::n_blobs(store.registry.root()));
    CHECK(result.bad.empty());
    CHECK(result.problems.empty());
    CHECK(result.read_bytes == last);
    CHECK(result.read_bytes == total);
    CHECK(result.read_bytes > 200'000);
  }
}

TEST_CASE("verify names damaged blobs and the models that use them") {
  Store store;
  SECTION("one bit") {
    std::string content(100'000, 'a');
    content[77'777] ^= 4;
    store.damage("a", content);
    const VerifyResult result = verify(store.registry, {}, 2, nullptr);
    REQUIRE(result.bad.size() == 1);
    CHECK(result.bad[0].digest == store.weights("a"));
    CHECK(result.bad[0].problem == "its bytes have digest " + Digest::of(content).to_string());
    REQUIRE(result.bad[0].models.size() == 2);
    CHECK(result.bad[0].models[0].model == "a");
    CHECK(result.bad[0].models[1].model == "c");
    CHECK(verify(store.registry, {ModelName::parse("b")}, 2, nullptr).bad.empty());
    CHECK(verify(store.registry, {ModelName::parse("C")}, 2, nullptr).bad.size() == 1);
  }
  SECTION("too short") {
    store.damage("b", std::string(5, 'b'));
    const VerifyResult result = verify(store.registry, {}, 2, nullptr);
    REQUIRE(result.bad.size() == 1);
    CHECK(result.bad[0].problem == "has 5 of 100000 bytes");
  }
  SECTION("missing") {
    fs::remove(store.path("b"));
    const VerifyResult result = verify(store.registry, {}, 2, nullptr);
    REQUIRE(result.bad.size() == 1);
    CHECK(result.bad[0].problem == "missing");
  }
  SECTION("a hard link whose original was written to") {
    std::string content(100'000, 'a');
    content[0] = 'z';
    write_file(store.dir.path() / "a", content);
    const VerifyResult result = verify(store.registry, {}, 2, nullptr);
    // Where the file system has reflinks the blob never shared its name's bytes.
    for (const BadBlob& bad : result.bad)
      CHECK_THAT(bad.problem,
                 Contains("shares its bytes with " + (store.dir.path() / "a").string()));
  }
  SECTION("a blob that no model uses") {
    const Digest digest = Digest::of("x");
    write_file(store.registry.blobs().path_of(digest), "y");
    const VerifyResult result = verify(store.registry, {}, 2, nullptr);
    REQUIRE(result.bad.size() == 1);
    CHECK(result.bad[0].models.empty());
  }
  SECTION("a manifest") {
    write_file(store.registry.root() / "manifests/h/o/m/t", "no manifest");
    const VerifyResult result = verify(store.registry, {}, 2, nullptr);
    CHECK(result.bad.empty());
    REQUIRE(result.problems.size() == 1);
    CHECK_THAT(result.problems[0], Contains("the manifest of h/o/m:t can't be read"));
    CHECK_THROWS_WITH(verify(store.registry, {ModelName::parse("h/o/m:t")}, 2, nullptr),
                      Contains("model 'h/o/m:t': "));
  }
}

TEST_CASE("verify of a model that is not there, and one that gives up, say so") {
  Store store;
  CHECK_THROWS_WITH(verify(store.registry, {ModelName::parse("none")}, 0, nullptr),
                    "model 'none:latest' not found");
  CHECK_THROWS_WITH(verify(store.registry, {}, 2,
                           [](std::string_view, int64_t, int64_t) { throw Error("interrupted"); }),
                    "interrupted");
}

TEST_CASE("remove_bad takes away what was read as bad, not what replaced it since") {
  Store store;
  store.damage("a", "damaged");
  store.damage("b", "damaged");
  const VerifyResult result = verify(store.registry, {}, 2, nullptr);
  REQUIRE(result.bad.size() == 2);
  const fs::path fresh = store.dir.path() / "fresh";
  write_file(fresh, std::string(100'000, 'b'));
  fs::rename(fresh, store.path("b"));  // as a pull publishes
  const auto removed = remove_bad(store.registry, result.bad, {});
  CHECK(removed == std::vector<Digest>{store.weights("a")});
  CHECK_FALSE(fs::exists(store.path("a")));
  CHECK(verify(store.registry, {ModelName::parse("b")}, 2, nullptr).bad.empty());
}

}  // namespace
}  // namespace dsctl::registry
