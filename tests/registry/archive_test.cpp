#include "registry/archive.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <thread>

#include "registry/error.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/registry_store.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using tests::read_file;
using tests::spec_of;
using tests::write_file;

/// A store with two models that share their weights, and an empty one.
struct TwoStores {
  tests::TempDir dir;
  Registry from{dir.path() / "from"};
  Registry to{dir.path() / "to"};
  fs::path tar = dir.path() / "models.tar";

  explicit TwoStores(size_t weight_bytes = 10'000) {
    write_file(dir.path() / "w.gguf", std::string(weight_bytes, 'w'));
    CreateSpec spec = spec_of({dir.path() / "w.gguf"});
    spec.system = "first";
    from.create(ModelName::parse("first"), spec, {});
    spec.system = "second";
    from.create(ModelName::parse("hf.co/me/second:Q4"), spec, {});
  }

  ExportResult export_all(Overwrite overwrite = Overwrite::kNo) {
    return export_to_file(from, {ModelName::parse("first"), ModelName::parse("hf.co/me/second:Q4")},
                          tar, overwrite, {});
  }
  size_t n_models() const { return to.list().models.size(); }
};

std::string tar_of(const std::vector<std::pair<std::string, std::string>>& files) {
  std::string bytes;
  TarWriter writer([&bytes](std::string_view data) { bytes += data; });
  for (const auto& [path, content] : files) {
    writer.begin(path, static_cast<int64_t>(content.size()), 0);
    writer.write(content);
  }
  writer.finish();
  return bytes;
}

TEST_CASE("Models travel from one store to another in one file") {
  TwoStores stores;
  const ExportResult exported = stores.export_all();
  CHECK(exported.models.size() == 2);
  CHECK(exported.n_blobs == 5);  // the weights of both, two system texts, two configs
  CHECK(exported.size_bytes == static_cast<int64_t>(fs::file_size(stores.tar)));
  CHECK(exported.size_bytes ==
        archive_size_bytes(stores.from,
                           {ModelName::parse("first"), ModelName::parse("hf.co/me/second:Q4")}));
  const ImportResult imported = import_from_file(stores.to, stores.tar, {});
  CHECK(imported.models.size() == 2);
  CHECK(imported.n_new_blobs == 5);
  CHECK(imported.n_known_blobs == 0);
  CHECK_NOTHROW(tests::check_store(stores.to.root()));
  CHECK(tests::leftovers(stores.to.root()).empty());
  for (const char* name : {"first", "hf.co/me/second:Q4"}) {
    const auto before = stores.from.find(ModelName::parse(name));
    const auto after = stores.to.find(ModelName::parse(name));
    REQUIRE(after);
    CHECK(after->digest == before->digest);
    CHECK(after->system == before->system);
    CHECK(read_file(after->weight_paths[0]) == read_file(before->weight_paths[0]));
  }

  SECTION("what is there already is not written again") {
    const ImportResult again = import_from_file(stores.to, stores.tar, {});
    CHECK(again.n_new_blobs == 0);
    CHECK(again.n_known_blobs == 5);
  }
  SECTION("a model that is replaced takes its unused blobs away") {
    CreateSpec spec = spec_of({stores.dir.path() / "w.gguf"});
    spec.system = "third";
    stores.from.create(ModelName::parse("first"), spec, {});
    stores.export_all(Overwrite::kYes);
    CHECK(import_from_file(stores.to, stores.tar, {}).n_new_blobs == 2);
    CHECK(stores.to.find(ModelName::parse("first"))->system == "third");
    CHECK(tests::n_blobs(stores.to.root()) == 5);
  }
}

TEST_CASE("The same models give the same archive, and a file that exists is kept") {
  TwoStores stores;
  stores.export_all();
  const std::string first = read_file(stores.tar);
  CHECK_THROWS_WITH(stores.export_all(), Contains("exists already; --force replaces it"));
  stores.export_all(Overwrite::kYes);
  CHECK(read_file(stores.tar) == first);
}

TEST_CASE("An export that fails leaves no file") {
  TwoStores stores;
  const auto model = stores.from.find(ModelName::parse("first"));
  const auto n_files = [&] {
    return std::distance(fs::directory_iterator(stores.dir.path()), fs::directory_iterator());
  };
  const auto before = n_files();
  SECTION("there is no such model") {
    CHECK_THROWS_WITH(
        export_to_file(stores.from, {ModelName::parse("none")}, stores.tar, Overwrite::kNo, {}),
        Contains("model 'none:latest' not found"));
  }
  SECTION("a blob is damaged") {
    const Digest system = model->manifest.layers_of(media_type::kSystem)[0].digest;
    write_file(stores.from.blobs().path_of(system), "fierst");
    write_file(stores.from.blobs().path_of(system), "fIrst");
    CHECK_THROWS_WITH(stores.export_all(), Contains("blob " + system.to_string() + " is damaged"));
  }
  SECTION("the progress gives up") {
    Observer observer;
    observer.progress = [](std::string_view, int64_t done, int64_t) {
      if (done > 5000) throw Error("interrupted");
    };
    CHECK_THROWS_WITH(export_to_file(stores.from, {ModelName::parse("first")}, stores.tar,
                                     Overwrite::kNo, observer),
                      "interrupted");
  }
  SECTION("the path is a directory") {
    CHECK_THROWS_WITH(export_to_file(stores.from, {ModelName::parse("first")}, stores.dir.path(),
                                     Overwrite::kNo, {}),
                      Contains("is a directory"));
  }
  CHECK(n_files() == before);
}

TEST_CASE("An archive may have its blobs first, as tar makes one of a store") {
  TwoStores stores;
  const auto model = stores.from.find(ModelName::parse("first"));
  std::vector<std::pair<std::string, std::string>> files;
  for (const auto& entry : fs::directory_iterator(stores.from.root() / "blobs")) {
    files.emplace_back("./blobs/" + entry.path().filename().string(), read_file(entry.path()));
  }
  files.emplace_back("./blobs/sha256-" + std::string(64, 'a') + "-partial", "unfinished");
  files.emplace_back("./manifests/registry.ollama.ai/library/first/latest",
                     read_file(stores.from.root() / "manifests" / model->name.relative_path()));
  write_file(stores.tar, tar_of(files));
  const ImportResult result = import_from_file(stores.to, stores.tar, {});
  CHECK(result.n_new_blobs == 3);  // what only the other model uses is not kept
  CHECK(tests::n_blobs(stores.to.root()) == 3);
  CHECK(stores.to.find(ModelName::parse("first"))->digest == model->digest);
  CHECK(tests::leftovers(stores.to.root()).empty());
}

TEST_CASE("A hostile or broken archive changes nothing") {
  TwoStores stores;
  const auto model = stores.from.find(ModelName::parse("first"));
  const std::string manifest =
      read_file(stores.from.root() / "manifests" / model->name.relative_path());
  const std::string at = "manifests/registry.ollama.ai/library/first/latest";
  const auto blob = [&](const Layer& layer) {
    return std::pair("blobs/" + layer.digest.file_name(),
                     read_file(stores.from.blobs().path_of(layer.digest)));
  };
  const auto config = blob(model->manifest.config);
  const auto weights = blob(model->manifest.layers[0]);
  const auto system = blob(model->manifest.layers[1]);
  const auto error_of = [&](const std::string& bytes) -> std::string {
    write_file(stores.tar, bytes);
    try {
      import_from_file(stores.to, stores.tar, {});
    } catch (const Error& error) {
      CHECK(stores.n_models() == 0);
      CHECK(tests::leftovers(stores.to.root()).empty());
      CHECK((!fs::exists(stores.to.root() / "blobs") || tests::n_blobs(stores.to.root()) == 0));
      return error.what();
    }
    return "";
  };

  SECTION("paths that lead elsewhere") {
    for (const char* path :
         {"../../x", "/etc/cron.d/x", "blobs/../../x", "manifests/../x/y/z", "manifests/h/../../x",
          "blobs/sha256-xyz", "blobs/x", "x", "blobs/sha256-a/b", "manifests/a/b/c/d/e",
          "manifests/a/b/c", "manifests/a b/c/d/e", ""}) {
      INFO(path);
      CHECK_THAT(error_of(tar_of({{at, manifest}, {path, "x"}})), Contains("refused"));
    }
    CHECK_FALSE(fs::exists(stores.dir.path() / "x"));
  }
  SECTION("a wrong digest") {
    auto wrong = weights;
    wrong.second[5000] ^= 1;
    CHECK_THAT(
        error_of(tar_of({{at, manifest}, config, system, wrong})),
        Contains("digest mismatch, expected \"" + model->manifest.layers[0].digest.to_string()));
  }
  SECTION("a blob that is not there") {
    CHECK_THAT(error_of(tar_of({{at, manifest}, config, system})),
               Contains("lacks blob " + model->manifest.layers[0].digest.to_string() +
                        " of model first:latest"));
  }
  SECTION("a manifest that lies about a size") {
    Manifest lying = model->manifest;
    ++lying.layers[0].size_bytes;
    CHECK_THAT(error_of(tar_of({{at, lying.to_json()}, config, system, weights})),
               Contains("has 10000 bytes, model first:latest says 10001"));
  }
  SECTION("a config that is none") {
    Manifest lying = model->manifest;
    lying.config = lying.layers[1];
    CHECK_THAT(error_of(tar_of({{at, lying.to_json()}, system, weights})),
               Contains("the config of model first:latest"));
  }
  SECTION("a broken manifest, a double one, a double blob, none at all") {
    CHECK_THAT(error_of(tar_of({{at, "{"}})), Contains("the manifest of first:latest"));
    CHECK_THAT(error_of(tar_of({{at, manifest}, {at, manifest}})), Contains("twice"));
    CHECK_THAT(error_of(tar_of({{at, manifest}, config, config})), Contains("twice"));
    CHECK_THAT(error_of(tar_of({})), Contains("holds no model"));
  }
  SECTION("every place where it can be cut short") {
    const std::string whole = tar_of({{at, manifest}, config, system, weights});
    for (size_t size = 0; size + 1024 <= whole.size(); size += 509)
      CHECK_THAT(error_of(whole.substr(0, size)), Contains("cut short"));
  }
  SECTION("links") {
    std::string bytes = tar_of({{at, manifest}, config, system, weights});
    bytes[156] = '2';  // the first entry's type; its checksum grows by as much
    bytes[153] = static_cast<char>(bytes[153] + 2);
    CHECK_THAT(error_of(bytes), Contains("is a link or a special file"));
  }
}

TEST_CASE("An import needs room for its blobs before it writes them") {
  TwoStores stores;
  Manifest huge = stores.from.find(ModelName::parse("first"))->manifest;
  huge.layers[0].size_bytes = int64_t{1} << 45;
  const Digest& digest = huge.config.digest;
  write_file(
      stores.tar,
      tar_of({{"manifests/h/o/m/t", huge.to_json()},
              {"blobs/" + digest.file_name(), read_file(stores.from.blobs().path_of(digest))}}));
  CHECK_THROWS_WITH(import_from_file(stores.to, stores.tar, {}),
                    Contains("the import needs 35184372") && Contains("are free"));
}

TEST_CASE("An import of what is all there clears what a killed one left") {
  TwoStores stores;
  stores.export_all();
  import_from_file(stores.to, stores.tar, {});
  std::filesystem::create_directory(stores.to.blobs().blobs_dir() / ".dsctl-staging-1-0");
  CHECK(tests::leftovers(stores.to.root()).size() == 1);
  CHECK(import_from_file(stores.to, stores.tar, {}).n_new_blobs == 0);
  CHECK(tests::leftovers(stores.to.root()).empty());
}

TEST_CASE("kill -9 of an import at any moment loses nothing, and the next one finishes") {
  TwoStores stores(3'000'000);
  stores.export_all();
  // The store has a model of its own, and an old one of the same name.
  stores.to.create(ModelName::parse("own"), spec_of({stores.dir.path() / "w.gguf"}), {});
  write_file(stores.dir.path() / "old.gguf", "old");
  std::mt19937 random(5);
  int n_finished = 0;
  for (int round = 0; round < 100; ++round) {
    stores.to.create(ModelName::parse("first"), spec_of({stores.dir.path() / "old.gguf"}), {});
    stores.to.remove(ModelName::parse("hf.co/me/second:Q4"));
    stores.to.remove(ModelName::parse("own"));
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        import_from_file(stores.to, stores.tar, {});
        ::_exit(0);
      } catch (...) {
        ::_exit(1);
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    REQUIRE((WIFSIGNALED(status) || WEXITSTATUS(status) == 0));
    n_finished += WIFEXITED(status) ? 1 : 0;
    REQUIRE_NOTHROW(tests::check_store(stores.to.root()));
    REQUIRE(stores.to.find(ModelName::parse("first")));
  }
  INFO(n_finished << " of 100 imports came to their end");
  CHECK(n_finished < 100);
  import_from_file(stores.to, stores.tar, {});
  CHECK_NOTHROW(tests::check_store(stores.to.root()));
  CHECK(tests::leftovers(stores.to.root()).empty());
  CHECK(stores.to.find(ModelName::parse("first"))->system == "first");
}

}  // namespace
}  // namespace dsctl::registry
