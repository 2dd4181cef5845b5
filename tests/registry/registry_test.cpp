#include "registry/registry.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>

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

ModelName name_of(std::string_view text) {
  return ModelName::parse(text);
}

/// A store and a directory of the user's files beside it.
struct Store {
  tests::TempDir dir;
  fs::path root = dir.path() / "models";
  Registry registry{root};

  fs::path file(const std::string& name, const std::string& content) {
    const fs::path path = dir.path() / "files" / name;
    write_file(path, content);
    return path;
  }
};

TEST_CASE("Registry of a directory that does not exist is empty and stays away") {
  Store store;
  CHECK(store.registry.list().models.empty());
  CHECK_FALSE(store.registry.find(name_of("x")).has_value());
  CHECK_FALSE(store.registry.remove(name_of("x")).has_value());
  CHECK_FALSE(fs::exists(store.root));
}

TEST_CASE("Registry creates a model in Ollama's layout") {
  Store store;
  CreateSpec spec = spec_of({store.file("m.gguf", "weights")});
  spec.template_text = "{{ .Prompt }}";
  spec.system = "be brief";
  spec.parameters_json = R"({"num_ctx":8192,"stop":["a"]})";
  spec.licenses = {"L1", "L2"};
  spec.messages = {{"user", "hi"}};
  const StoredModel made = store.registry.create(name_of("Me/Model:Tag"), spec, {});

  const fs::path manifest_path = store.root / "manifests/registry.ollama.ai/Me/Model/Tag";
  const auto json = nlohmann::json::parse(read_file(manifest_path));
  CHECK(json["schemaVersion"] == 2);
  CHECK(json["mediaType"] == media_type::kManifest);
  CHECK(json["config"]["mediaType"] == media_type::kConfig);
  std::vector<std::string> kinds;
  for (const auto& layer : json["layers"]) {
    kinds.push_back(layer["mediaType"]);
    const Digest digest = *Digest::parse(layer["digest"].get<std::string>());
    const fs::path blob = store.root / "blobs" / digest.file_name();
    CHECK(Digest::of(read_file(blob)) == digest);
    CHECK(fs::file_size(blob) == layer["size"]);
  }
  CHECK(kinds == std::vector<std::string>{
                     std::string(media_type::kModel), std::string(media_type::kTemplate),
                     std::string(media_type::kLicense), std::string(media_type::kLicense),
                     std::string(media_type::kSystem), std::string(media_type::kParams),
                     std::string(media_type::kMessages)});
  const auto config = nlohmann::json::parse(
      read_file(store.root / "blobs" /
                Digest::parse(json["config"]["digest"].get<std::string>())->file_name()));
  CHECK(config["rootfs"]["diff_ids"].size() == 7);
  CHECK(config["model_family"] == "llama");

  CHECK(made.digest == Digest::of(read_file(manifest_path)));
  const auto found = store.registry.find(name_of("me/model:tag"));
  REQUIRE(found.has_value());
  CHECK(found->name.short_form() == "Me/Model:Tag");
  CHECK(found->template_text == "{{ .Prompt }}");
  CHECK(found->system == "be brief");
  CHECK(found->parameters_json == spec.parameters_json);
  CHECK(found->licenses == spec.licenses);
  CHECK(found->messages == spec.messages);
  REQUIRE(found->weight_paths.size() == 1);
  CHECK(read_file(found->weight_paths[0]) == "weights");
  CHECK(found->size_bytes == found->manifest.size_bytes());
  CHECK(tests::leftovers(store.root).empty());
  tests::check_store(store.root);
}

TEST_CASE("Registry keeps a split model's shards in order, unmerged") {
  Store store;
  std::vector<fs::path> shards;
  for (int i = 1; i <= 9; ++i) {
    shards.push_back(store.file("m-0000" + std::to_string(i) + "-of-00009.gguf",
                                std::string(1000, static_cast<char>('a' + i))));
  }
  int64_t last_done = 0;
  Observer observer;
  observer.progress = [&last_done](std::string_view, int64_t done, int64_t total) {
    CHECK(done >= last_done);
    CHECK(total == 9000);
    last_done = done;
  };
  const StoredModel model = store.registry.create(name_of("split"), spec_of(shards), observer);
  CHECK(last_done == 9000);
  REQUIRE(model.weight_paths.size() == 9);
  for (size_t i = 0; i < 9; ++i) {
    CHECK(read_file(model.weight_paths[i]) == read_file(shards[i]));
    CHECK(model.manifest.layers[i].name == shards[i].filename());
  }
}

TEST_CASE("Registry takes one copy of the disk for an imported file") {
  Store store;
  const fs::path file = store.file("m.gguf", "weights");
  const StoredModel model = store.registry.create(name_of("x"), spec_of({file}), {});
  struct stat original {};
  struct stat blob {};
  REQUIRE(::stat(file.c_str(), &original) == 0);
  REQUIRE(::stat(model.weight_paths[0].c_str(), &blob) == 0);
  // Linked where the file system has no reflinks; with reflinks the inodes differ and share blocks.
  CHECK((original.st_ino == blob.st_ino || blob.st_nlink == 1));
  CHECK(read_file(file) == "weights");
}

TEST_CASE("Registry with --copy is independent of the original") {
  Store store;
  const fs::path file = store.file("m.gguf", "weights");
  CreateSpec spec = spec_of({file});
  spec.import_mode = ImportMode::kCopy;
  store.registry.create(name_of("x"), spec, {});
  write_file(file, "changed");
  const auto model = store.registry.find(name_of("x"));
  REQUIRE(model.has_value());
  CHECK(read_file(model->weight_paths[0]) == "weights");

  SECTION("also when the blob was a link before") {
    const fs::path other = store.file("o.gguf", "other");
    store.registry.create(name_of("y"), spec_of({other}), {});
    CreateSpec copy = spec_of({other});
    copy.import_mode = ImportMode::kCopy;
    store.registry.create(name_of("y"), copy, {});
    write_file(other, "OTHER");
    CHECK(read_file(store.registry.find(name_of("y"))->weight_paths[0]) == "other");
  }
}

TEST_CASE("Registry copies a file from another file system") {
  const fs::path shm = "/dev/shm";
  struct stat here {};
  struct stat there {};
  Store store;
  if (::stat(store.dir.path().c_str(), &here) != 0 || ::stat(shm.c_str(), &there) != 0 ||
      here.st_dev == there.st_dev) {
    WARN("no second file system to copy from");
    return;
  }
  const fs::path file = shm / store.dir.path().filename();
  write_file(file, std::string(10'000'000, 'x'));
  const StoredModel model = store.registry.create(name_of("x"), spec_of({file}), {});
  fs::remove(file);
  CHECK(read_file(model.weight_paths[0]) == std::string(10'000'000, 'x'));
  tests::check_store(store.root);
}

TEST_CASE("Registry tells when a linked original was written to") {
  Store store;
  const fs::path file = store.file("m.gguf", "weights");
  const StoredModel model = store.registry.create(name_of("x"), spec_of({file}), {});
  struct stat original {};
  struct stat blob {};
  REQUIRE(::stat(file.c_str(), &original) == 0);
  REQUIRE(::stat(model.weight_paths[0].c_str(), &blob) == 0);
  if (original.st_ino != blob.st_ino) {
    WARN("this file system has reflinks: nothing to tell");
    return;
  }
  write_file(file, "longer than it was");
  CHECK_THROWS_WITH(store.registry.find(name_of("x")),
                    Contains(file.string()) && Contains("was changed after it was imported"));
  // The advice works: created again, the model has the new content and the old blob is gone.
  store.registry.create(name_of("x"), spec_of({file}), {});
  CHECK(read_file(store.registry.find(name_of("x"))->weight_paths[0]) == "longer than it was");
  tests::check_store(store.root);
}

TEST_CASE("Registry follows a symbolic link to the file itself") {
  Store store;
  const fs::path file = store.file("m.gguf", "weights");
  const fs::path link = store.dir.path() / "link.gguf";
  fs::create_symlink(file, link);
  const StoredModel model = store.registry.create(name_of("x"), spec_of({link}), {});
  CHECK(fs::is_regular_file(fs::symlink_status(model.weight_paths[0])));
}

TEST_CASE("Registry hashes an unchanged file once") {
  Store store;
  const fs::path file = store.file("m.gguf", "weights");
  // Older than the moment of import by more than a file stamp's doubt.
  fs::last_write_time(file, fs::file_time_type::clock::now() - std::chrono::hours(1));
  store.registry.create(name_of("x"), spec_of({file}), {});
  int n_reports = 0;
  Observer observer;
  observer.progress = [&n_reports](std::string_view, int64_t, int64_t) { ++n_reports; };
  CreateSpec spec = spec_of({file});
  spec.system = "new";
  store.registry.create(name_of("x"), spec, observer);
  CHECK(n_reports == 1);  // the end, with no bytes read

  SECTION("but again when it was written to") {
    write_file(file, "WEIGHTS");
    fs::last_write_time(file, fs::file_time_type::clock::now() - std::chrono::minutes(30));
    const StoredModel model = store.registry.create(name_of("x"), spec_of({file}), {});
    CHECK(read_file(model.weight_paths[0]) == "WEIGHTS");
    CHECK(model.manifest.layers[0].digest == Digest::of("WEIGHTS"));
  }
}

TEST_CASE("Registry inherits from a model as Ollama does") {
  Store store;
  CreateSpec base = spec_of({store.file("m.gguf", "weights")});
  base.template_text = "T";
  base.system = "S";
  base.licenses = {"L"};
  base.parameters_json = R"({"num_ctx":1,"stop":["a","b"],"top_k":3})";
  base.messages = {{"user", "one"}};
  store.registry.create(name_of("base"), base, {});

  SECTION("everything when nothing is given") {
    CreateSpec spec;
    spec.from = name_of("base");
    const StoredModel child = store.registry.create(name_of("child"), spec, {});
    CHECK(child.digest == store.registry.find(name_of("base"))->digest);
  }
  SECTION("overridden key by key and text by text") {
    CreateSpec spec;
    spec.from = name_of("BASE");
    spec.system = "S2";
    spec.licenses = {"L", "L2"};
    spec.parameters_json = R"({"num_ctx":2,"stop":["c"]})";
    spec.messages = {{"user", "two"}};
    const StoredModel child = store.registry.create(name_of("child"), spec, {});
    CHECK(child.template_text == "T");
    CHECK(child.system == "S2");
    CHECK(child.licenses == std::vector<std::string>{"L", "L2"});
    CHECK(child.parameters_json == R"({"num_ctx":2,"stop":["c"],"top_k":3})");
    CHECK(child.messages == spec.messages);
    CHECK(child.config.model_family == "llama");
    CHECK(child.manifest.layers_of(media_type::kSystem).size() == 1);
  }
  SECTION("from itself") {
    CreateSpec spec;
    spec.from = name_of("base");
    spec.system = "S3";
    store.registry.create(name_of("base"), spec, {});
    CHECK(store.registry.find(name_of("base"))->system == "S3");
    tests::check_store(store.root);
  }
  SECTION("not from a model that is not there") {
    CreateSpec spec;
    spec.from = name_of("nobody");
    CHECK_THROWS_WITH(store.registry.create(name_of("c"), spec, {}),
                      Contains("model \"nobody:latest\" not found"));
    CHECK_FALSE(store.registry.find(name_of("c")).has_value());
  }
}

TEST_CASE("Registry replaces a template of the old kind") {
  Store store;
  store.registry.create(name_of("old"), spec_of({store.file("m.gguf", "w")}), {});
  const fs::path path = store.root / "manifests/registry.ollama.ai/library/old/latest";
  Manifest manifest = Manifest::parse(read_file(path));
  write_file(store.registry.blobs().path_of(Digest::of("old T")), "old T");
  Layer layer;
  layer.media_type = media_type::kPrompt;
  layer.digest = Digest::of("old T");
  layer.size_bytes = 5;
  manifest.layers.push_back(layer);
  write_file(path, manifest.to_json());
  CHECK(store.registry.find(name_of("old"))->template_text == "old T");
  CreateSpec spec;
  spec.from = name_of("old");
  CHECK(store.registry.create(name_of("kept"), spec, {}).template_text == "old T");
  spec.template_text = "new T";
  const StoredModel model = store.registry.create(name_of("new"), spec, {});
  CHECK(model.template_text == "new T");
  CHECK(model.manifest.layers_of(media_type::kPrompt).empty());
}

TEST_CASE("Registry creates from blobs that are already there") {
  Store store;
  store.registry.create(name_of("a"), spec_of({store.file("m.gguf", "weights")}), {});
  CreateSpec spec;
  WeightSource weight;
  weight.source = Digest::of("weights");
  spec.weights = {weight};
  CHECK(store.registry.create(name_of("b"), spec, {}).weight_paths.size() == 1);
  spec.weights[0].source = Digest::of("unknown");
  CHECK_THROWS_WITH(store.registry.create(name_of("c"), spec, {}),
                    Contains("blob " + Digest::of("unknown").to_string() + " is missing"));
  CHECK_THROWS_WITH(store.registry.create(name_of("c"), CreateSpec(), {}), Contains("no weights"));
}

TEST_CASE("Registry stores one model for names that differ in case") {
  Store store;
  store.registry.create(name_of("Model"), spec_of({store.file("m.gguf", "1")}), {});
  store.registry.create(name_of("MODEL"), spec_of({store.file("n.gguf", "2")}), {});
  REQUIRE(store.registry.list().models.size() == 1);
  CHECK(store.registry.list().models[0].name.short_form() == "Model:latest");
  CHECK(read_file(store.registry.find(name_of("model"))->weight_paths[0]) == "2");
}

TEST_CASE("Registry removes blobs with the last model that uses them") {
  Store store;
  CreateSpec spec = spec_of({store.file("m.gguf", "weights")});
  spec.import_mode = ImportMode::kCopy;
  store.registry.create(name_of("a"), spec, {});
  spec.system = "S";
  store.registry.create(name_of("b"), spec, {});
  CHECK(tests::n_blobs(store.root) == 4);  // weights, system, two configs

  const auto first = store.registry.remove(name_of("B"));
  REQUIRE(first.has_value());
  CHECK(tests::n_blobs(store.root) == 2);
  CHECK(store.registry.find(name_of("a")).has_value());
  CHECK_FALSE(store.registry.find(name_of("b")).has_value());
  CHECK_FALSE(store.registry.remove(name_of("b")).has_value());

  const auto second = store.registry.remove(name_of("a"));
  REQUIRE(second.has_value());
  CHECK(second->freed_bytes > 7);
  CHECK(tests::n_blobs(store.root) == 0);
  CHECK(fs::is_empty(store.root / "manifests"));
  CHECK(fs::is_empty(store.root / ".dsctl" / "imports"));
  CHECK(fs::exists(store.dir.path() / "files" / "m.gguf"));
}

TEST_CASE("Registry removes what a replaced model alone used") {
  Store store;
  store.registry.create(name_of("a"), spec_of({store.file("m.gguf", "one")}), {});
  store.registry.create(name_of("a"), spec_of({store.file("n.gguf", "two")}), {});
  CHECK_FALSE(store.registry.blobs().has(Digest::of("one")));
  tests::check_store(store.root);
}

TEST_CASE("Registry copies a model by name only") {
  Store store;
  store.registry.create(name_of("a"), spec_of({store.file("m.gguf", "weights")}), {});
  store.registry.copy(name_of("A"), name_of("me/b:1"));
  CHECK(store.registry.find(name_of("me/b:1"))->digest ==
        store.registry.find(name_of("a"))->digest);
  store.registry.copy(name_of("a"), name_of("A"));
  store.registry.remove(name_of("a"));
  CHECK(store.registry.find(name_of("me/b:1")).has_value());
  CHECK_THROWS_WITH(store.registry.copy(name_of("a"), name_of("c")),
                    Contains("model \"a:latest\" not found"));
}

TEST_CASE("Registry lists newest first and skips manifests it can't read") {
  Store store;
  const fs::path library = store.root / "manifests/registry.ollama.ai/library";
  for (const char* name : {"old", "new", "middle"}) {
    store.registry.create(name_of(name), spec_of({store.file("m.gguf", "weights")}), {});
  }
  const auto now = fs::file_time_type::clock::now();
  fs::last_write_time(library / "old/latest", now - std::chrono::hours(2));
  fs::last_write_time(library / "middle/latest", now - std::chrono::hours(1));
  write_file(library / "broken/latest", "{\"schemaVersion\":2");
  write_file(library / "empty/latest", "");
  write_file(library / "bad name!/latest", "{}");
  write_file(library / "large/latest", std::string(Manifest::kMaxBytes + 1, ' '));
  fs::create_directories(library / "dir/latest");
  fs::create_symlink("nowhere", library / "old/dangling");

  const ModelList list = store.registry.list();
  std::vector<std::string> names;
  for (const ModelEntry& entry : list.models)
    names.push_back(entry.name.short_form());
  CHECK(names == std::vector<std::string>{"new:latest", "middle:latest", "old:latest"});
  CHECK(list.problems.size() == 5);
  for (const std::string& problem : list.problems)
    CHECK_THAT(problem, Contains(library.string()));
  CHECK(list.models[0].config.model_family == "llama");

  CHECK_THROWS_WITH(store.registry.find(name_of("broken")),
                    Contains("model \"broken:latest\": manifest: is no valid JSON"));
  SECTION("and keeps all blobs while one of them can't be judged") {
    const auto result = store.registry.remove(name_of("old"));
    REQUIRE(result.has_value());
    CHECK(result->notes.size() == 1);
    CHECK(store.registry.find(name_of("new")).has_value());
    for (const char* name : {"broken", "empty", "large"})
      CHECK(store.registry.remove(name_of(name)).has_value());
  }
}

TEST_CASE("Registry names a blob that is missing or short when the model is used") {
  Store store;
  const StoredModel model =
      store.registry.create(name_of("a"), spec_of({store.file("m.gguf", "weights")}), {});
  const std::string digest = Digest::of("weights").to_string();
  fs::remove(model.weight_paths[0]);
  CHECK(store.registry.list().models.size() == 1);
  CHECK_THROWS_WITH(store.registry.find(name_of("a")),
                    Contains("model \"a:latest\": blob " + digest + " is missing"));
  write_file(model.weight_paths[0], "wei");
  CHECK_THROWS_WITH(store.registry.find(name_of("a")),
                    Contains("has 3 bytes, its manifest says 7"));
  CHECK(store.registry.remove(name_of("a")).has_value());
}

TEST_CASE("Registry reads a store that Ollama wrote") {
  Store store;
  const auto blob = [&store](const std::string& content) {
    write_file(store.root / "blobs" / Digest::of(content).file_name(), content);
    return "\"digest\":\"" + Digest::of(content).to_string() +
           "\",\"size\":" + std::to_string(content.size());
  };
  const std::string manifest =
      R"({"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{)" +
      blob(
          R"({"model_format":"gguf","model_family":"qwen2","model_families":["qwen2"],"model_type":"7.6B","file_type":"Q4_K_M","architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}})") +
      R"(,"mediaType":"application/vnd.docker.container.image.v1+json"},"layers":[)" +
      R"({"mediaType":"application/vnd.ollama.image.model",)" + blob("weights") +
      R"(},{"mediaType":"application/vnd.ollama.image.license",)" + blob("MIT") +
      R"(},{"mediaType":"application/vnd.ollama.image.params",)" +
      blob("{\"temperature\":0.6,\"stop\":[\"x\"]}\n") +
      R"(},{"mediaType":"application/vnd.ollama.image.messages",)" +
      blob("[{\"role\":\"user\",\"content\":\"hi\"}]\n") + "}]}";
  write_file(store.root / "manifests/registry.ollama.ai/library/deepseek-r1/7b", manifest);
  const auto model = store.registry.find(name_of("deepseek-r1:7b"));
  REQUIRE(model.has_value());
  CHECK(model->digest == Digest::of(manifest));
  CHECK(model->config.model_type == "7.6B");
  CHECK(model->parameters_json == R"({"stop":["x"],"temperature":0.6})");
  CHECK(model->messages == std::vector<StoredMessage>{{"user", "hi"}});
  CHECK_FALSE(fs::exists(store.root / ".dsctl"));  // reading writes nothing
}

TEST_CASE("Registry leaves nothing behind when the caller gives up") {
  Store store;
  Observer observer;
  observer.progress = [](std::string_view, int64_t, int64_t) { throw Error("interrupted"); };
  std::vector<fs::path> files;
  for (int i = 0; i < 6; ++i)
    files.push_back(store.file(std::to_string(i), std::string(1000, static_cast<char>('0' + i))));
  CHECK_THROWS_WITH(store.registry.create(name_of("a"), spec_of(files), observer),
                    Contains("interrupted"));
  CHECK(store.registry.list().models.empty());
  CHECK(tests::n_blobs(store.root) == 0);
  CHECK(tests::leftovers(store.root).empty());
}

TEST_CASE("Registry says which file can't be imported") {
  Store store;
  CHECK_THROWS_WITH(store.registry.create(name_of("a"), spec_of({"/nonexistent/m.gguf"}), {}),
                    Contains("/nonexistent/m.gguf"));
  CHECK_THROWS_WITH(store.registry.create(name_of("a"), spec_of({store.dir.path()}), {}),
                    Contains(store.dir.path().string()));
  const fs::path pipe = store.dir.path() / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK_THROWS_WITH(store.registry.create(name_of("a"), spec_of({pipe}), {}),
                    Contains(pipe.string()));
  CHECK(tests::leftovers(store.root).empty());
}

TEST_CASE("Registry inherits nothing from a model without weights here") {
  Store store;
  const std::string config = R"({"remote_host":"ollama.com","remote_model":"big"})";
  write_file(store.root / "blobs" / Digest::of(config).file_name(), config);
  Manifest manifest;
  manifest.config.digest = Digest::of(config);
  manifest.config.size_bytes = static_cast<int64_t>(config.size());
  write_file(store.root / "manifests/registry.ollama.ai/library/big/cloud", manifest.to_json());
  CHECK(store.registry.find(name_of("big:cloud"))->config.remote_host == "ollama.com");
  CreateSpec spec;
  spec.from = name_of("big:cloud");
  CHECK_THROWS_WITH(store.registry.create(name_of("x"), spec, {}),
                    Contains("model \"big:cloud\" has no weights of its own"));
}

TEST_CASE("Registry keeps an upload only when it is what was announced") {
  Store store;
  Staging staging(store.registry.blobs(), nullptr);
  const std::string content = "uploaded";
  {
    Staging::Writer writer(staging);
    writer.write(std::as_bytes(std::span(content)));
    CHECK_THROWS_WITH(writer.finish(Digest::of("other")), Contains("digest mismatch, expected"));
  }
  Staging::Writer writer(staging);
  writer.write(std::as_bytes(std::span(content)));
  const StagedBlob blob = writer.finish(Digest::of(content));
  CHECK_FALSE(store.registry.blobs().has(blob.digest));
  const StoreLock lock(store.root, "test", 1000, nullptr);
  store.registry.blobs().publish(blob);
  CHECK(store.registry.blobs().read(blob.digest, 100) == content);
  CHECK_THROWS_WITH(store.registry.blobs().read(blob.digest, 3), Contains("larger than"));
}

}  // namespace
}  // namespace dsctl::registry
