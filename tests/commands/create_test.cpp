#include "commands/create.h"

#include <nlohmann/json.hpp>

#include "commands/error.h"
#include "commands/show.h"
#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "registry/error.h"
#include "tests/support/catch.h"
#include "tests/support/commands_store.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using registry::ModelName;
using tests::ModelStore;

registry::StoredModel find(const ModelStore& store, const std::string& name) {
  auto model = store.registry().find(ModelName::parse(name));
  REQUIRE(model.has_value());
  return std::move(*model);
}

constexpr const char* kFirstUsersLines =
    "PARAMETER num_gpu 16\n"
    "PARAMETER num_ctx 8192\n"
    "PARAMETER temperature 0.6\n"
    "TEMPLATE \"<|User|>{{ .System }} {{ .Prompt }}<|Assistant|>\"\n";

TEST_CASE("create takes the first user's Modelfile as written") {
  ModelStore store;
  const fs::path file = store.write_model("DeepSeek-R1-Q4_K_M/DeepSeek-R1-Q4_K_M.gguf");
  CHECK(store.create("DeepSeek-R1-Q4_K_M", "FROM " + file.string() + "\n" + kFirstUsersLines) ==
        "created 'DeepSeek-R1-Q4_K_M:latest'\n");
  const registry::StoredModel model = find(store, "DeepSeek-R1-Q4_K_M");
  CHECK(model.template_text == "<|User|>{{ .System }} {{ .Prompt }}<|Assistant|>");
  CHECK(model.parameters_json == R"({"num_ctx":8192,"num_gpu":16,"temperature":0.6})");
  CHECK(model.config.file_type == "Q4_K_M");
  CHECK(model.config.model_family == "llama");
  CHECK(model.config.context_length == 2048);
  CHECK(model.weight_paths.size() == 1);
  CHECK_FALSE(store.console.progress_lines_said.empty());
}

TEST_CASE("create keeps an adapter beside its model, and lends both to a child") {
  ModelStore store;
  store.write_model("m.gguf");
  gguf::GgufWriter adapter;
  adapter.add("general.architecture", "llama");
  adapter.add("general.type", "adapter");
  adapter.add_tensor("x.lora_a", {4}, std::vector<float>(4));
  adapter.write(store.dir.path() / "adapter.gguf");
  store.create("tuned", "FROM m.gguf\nADAPTER adapter.gguf\n");
  const registry::StoredModel tuned = find(store, "tuned");
  REQUIRE(tuned.weight_paths.size() == 1);
  REQUIRE(tuned.adapter_paths.size() == 1);
  CHECK(fs::file_size(tuned.adapter_paths[0]) == fs::file_size(store.dir.path() / "adapter.gguf"));
  store.create("child", "FROM tuned\nSYSTEM be brief\n");
  CHECK(find(store, "child").adapter_paths == tuned.adapter_paths);
  // A model's own adapter takes the parent's place; new weights leave it behind.
  adapter.add("adapter.lora.alpha", 1.0f);
  adapter.write(store.dir.path() / "other.gguf");
  store.create("other", "FROM tuned\nADAPTER other.gguf\n");
  const registry::StoredModel other = find(store, "other");
  CHECK(other.weight_paths == tuned.weight_paths);
  REQUIRE(other.adapter_paths.size() == 1);
  CHECK(other.adapter_paths != tuned.adapter_paths);
}

TEST_CASE("create takes a split model by any of its shards, unmerged and in order") {
  ModelStore store;
  const auto shards =
      tests::small_model().write_split(store.dir.path(), "DeepSeek-R1-Q4_K_M", {.n_shards = 9});
  REQUIRE(shards.size() == 9);
  std::string digest;
  for (const size_t shown : {0, 4, 8}) {
    store.create("split", "FROM " + shards[shown].string() + "\n" + kFirstUsersLines);
    const registry::StoredModel model = find(store, "split");
    REQUIRE(model.weight_paths.size() == 9);
    for (size_t i = 0; i < 9; ++i) {
      CHECK(fs::equivalent(model.weight_paths[i],
                           store.registry().blobs().path_of(model.manifest.layers[i].digest)));
      CHECK(model.manifest.layers[i].name == shards[i].filename());
    }
    CHECK(gguf::GgufFile::open_shards(model.weight_paths).tensors().size() == 18);
    if (digest.empty()) digest = model.digest.hex();
    CHECK(model.digest.hex() == digest);
  }
  SECTION("or by all of them, or their directory") {
    std::string all;
    for (const fs::path& shard : shards)
      all += "FROM " + shard.string() + "\n";
    store.create("all", all + kFirstUsersLines);
    CHECK(find(store, "all").digest.hex() == digest);
    store.create("dir", std::string("FROM .\n") + kFirstUsersLines);
    CHECK(find(store, "dir").digest.hex() == digest);
  }
  SECTION("and again from the Modelfile that show prints") {
    const registry::StoredModel model = find(store, "split");
    store.create("again", modelfile_of(model));
    const registry::StoredModel again = find(store, "again");
    CHECK(again.weight_paths == model.weight_paths);
    CHECK(again.template_text == model.template_text);
    CHECK(again.parameters_json == model.parameters_json);
    CHECK(again.config.model_type == model.config.model_type);
  }
  SECTION("but not without one of them") {
    fs::remove(shards[3]);
    CHECK_THROWS_AS(store.create("broken", "FROM " + shards[0].string() + "\n"), gguf::Error);
    CHECK_FALSE(store.registry().find(ModelName::parse("broken")).has_value());
  }
}

TEST_CASE("create resolves paths from the Modelfile's directory, and names of models") {
  ModelStore store;
  store.write_model("sub/m.gguf");
  store.create("base", "FROM sub/m.gguf\nSYSTEM one\nPARAMETER stop a\nPARAMETER top_k 1\n");
  store.create("child", "FROM base\nSYSTEM two\nPARAMETER stop b\nLICENSE L\nMESSAGE user hi\n");
  const registry::StoredModel child = find(store, "child");
  CHECK(child.system == "two");
  CHECK(child.parameters_json == R"({"stop":["b"],"top_k":1})");
  CHECK(child.licenses == std::vector<std::string>{"L"});
  CHECK(child.messages.size() == 1);
  CHECK(child.weight_paths == find(store, "base").weight_paths);
  store.create("blob", "FROM @" + child.manifest.layers[0].digest.to_string() + "\n");
  CHECK(find(store, "blob").weight_paths == child.weight_paths);
}

TEST_CASE("create reads a Modelfile from standard input") {
  ModelStore store;
  const fs::path file = store.write_model("m.gguf");
  store.console.input = {"FROM " + file.string(), "SYSTEM \"\"\"two", "lines\"\"\""};
  CreateOptions options;
  options.name = "x";
  options.file = "-";
  options.json = true;
  CHECK(create(store.settings, options, store.console) == 0);
  const registry::StoredModel model = find(store, "x");
  CHECK(model.system == "two\nlines");
  const auto json = nlohmann::json::parse(store.console.printed);
  CHECK(json["name"] == "x:latest");
  CHECK(json["digest"] == model.digest.hex());
  CHECK(json["size"] == model.size_bytes);
}

TEST_CASE("create keeps a projector as such") {
  ModelStore store;
  store.write_model("m.gguf");
  gguf::GgufWriter projector;
  projector.add("general.architecture", "clip");
  projector.add_tensor("v.weight", {4}, std::vector<float>(4));
  projector.write(store.dir.path() / "mmproj.gguf");
  store.create("x", "FROM mmproj.gguf\nFROM m.gguf\n");
  const registry::StoredModel model = find(store, "x");
  CHECK(model.weight_paths.size() == 1);
  CHECK(model.projector_paths.size() == 1);
  CHECK(model.config.model_family == "llama");
  CHECK_THROWS_WITH(store.create("y", "FROM mmproj.gguf\n"), Contains("only a projector"));
}

TEST_CASE("create says what it can't use, where and what to do") {
  ModelStore store;
  store.write_model("m.gguf");
  store.write_model("n.gguf");
  store.write("safetensors/model.safetensors", "x");
  store.write("empty/readme", "x");
  store.write("text.gguf", "hello");
  store.write("lfs.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:" +
                              std::string(64, 'a') + "\nsize 48339779936\n");
  gguf::GgufWriter adapter;
  adapter.add("general.architecture", "llama");
  adapter.add("general.type", "adapter");
  adapter.add_tensor("x.lora_a", {4}, std::vector<float>(4));
  adapter.write(store.dir.path() / "adapter.gguf");
  struct Case {
    const char* modelfile;
    const char* error;
  };
  for (const Case& c : {
           Case{"FROM nobody\n", "Modelfile:1:1: FROM nobody: there is neither a file nor a model"},
           Case{"\n FROM ./nothing\n", "Modelfile:2:2: FROM ./nothing: no such file: /"},
           Case{"FROM gone.gguf\n", "FROM gone.gguf: no such file"},
           Case{"FROM m.gguf\nFROM n.gguf\n", "more than one model given"},
           Case{"FROM safetensors\n", "no model's: expected config.json"},
           Case{"FROM safetensors/model.safetensors\n", "give the directory with its config.json"},
           Case{"FROM empty\n", "no GGUF files in this directory"},
           Case{"FROM text.gguf\n", "text.gguf"},
           Case{"FROM lfs.gguf\n", "Git-LFS pointer"},
           Case{"FROM lfs.gguf\n", "git lfs pull"},
           Case{"FROM adapter.gguf\n", "is an adapter (LoRA)"},
           Case{"FROM m.gguf\nADAPTER gone.gguf\n",
                "Modelfile:2:1: ADAPTER gone.gguf: no such file"},
           Case{"FROM m.gguf\nADAPTER n.gguf\n", "Modelfile:2:1: ADAPTER n.gguf: not an adapter"},
           Case{"FROM m.gguf\nADAPTER text.gguf\n", "Modelfile:2:1: ADAPTER: "},
           Case{"FROM m.gguf\nDRAFT n.gguf\n", "Modelfile:2:1: DRAFT is not supported yet"},
           Case{"FROM m.gguf\nTEMPLATE {{ .Prompt }\n", "Modelfile:2:1: TEMPLATE: template:1:"},
           Case{"FROM m.gguf\nTEMPLATE {{ nofunc }}\n", "Modelfile:2:1: TEMPLATE: template:1:"},
           Case{"FROM m.gguf\nPARAMETER num_ctx many\n", "Modelfile:2:19: num_ctx: \"many\""},
           Case{"FROM @sha256:12\n", "expected @sha256: and 64"},
           Case{"FROM ~nouser-of-this-name/m.gguf\n", "there is no user"},
           Case{"FROM a b\n", "neither a file nor a model"},
       }) {
    CAPTURE(c.modelfile);
    CHECK_THROWS_WITH(store.create("x", c.modelfile), Contains(c.error));
  }
  CHECK(store.registry().list().models.empty());
  CreateOptions options;
  options.name = "bad name";
  CHECK_THROWS_WITH(create(store.settings, options, store.console), Contains("invalid model name"));
  options.name = "x";
  options.file = store.dir.path() / "missing";
  CHECK_THROWS_WITH(create(store.settings, options, store.console),
                    Contains("can't read the Modelfile"));
  options.file = store.dir.path();
  CHECK_THROWS_WITH(create(store.settings, options, store.console), Contains("is a directory"));
}

/// A model whose matrix can be quantised, split in two where asked.
fs::path write_floats(const ModelStore& store, int n_shards) {
  gguf::GgufWriter writer;
  writer.add("general.architecture", "llama");
  writer.add("general.file_type", uint32_t{0});
  writer.add("llama.block_count", uint32_t{2});
  std::vector<float> values(256 * 8);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(i % 97) / 97 - 0.5F;
  for (const char* name : {"blk.0.attn_q.weight", "blk.1.attn_q.weight"})
    writer.add_tensor(name, {256, 8}, values);
  if (n_shards > 1) return writer.write_split(store.dir.path(), "floats", {.n_shards = 2})[1];
  writer.write(store.dir.path() / "floats.gguf");
  return store.dir.path() / "floats.gguf";
}

gguf::DType weight_type(const registry::StoredModel& model) {
  return gguf::GgufFile::open_shards(model.weight_paths).find_tensor("blk.1.attn_q.weight")->dtype;
}

void create_quantized(ModelStore& store, const std::string& name, const std::string& modelfile,
                      const std::string& type, bool allow_requantize = false) {
  CreateOptions options;
  options.name = name;
  options.file = store.write("Modelfile", modelfile);
  options.quantize = type;
  options.allow_requantize = allow_requantize;
  create(store.settings, options, store.console);
}

bool has_staging(const ModelStore& store) {
  for (const auto& entry : fs::directory_iterator(store.settings.models_dir / "blobs")) {
    if (!registry::Digest::parse(entry.path().filename().string())) return true;
  }
  return false;
}

TEST_CASE("create --quantize makes a smaller model of a file, whole or split") {
  ModelStore store;
  const int n_shards = GENERATE(1, 2);
  const fs::path file = write_floats(store, n_shards);
  create_quantized(store, "small", "FROM " + file.string() + "\nSYSTEM be brief\n", "q8_0");
  const registry::StoredModel small = find(store, "small");
  REQUIRE(small.weight_paths.size() == 1);
  CHECK(weight_type(small) == gguf::DType::Q8_0);
  CHECK(small.config.file_type == "Q8_0");
  CHECK(small.system == "be brief");
  CHECK(gguf::GgufFile::open(file).tensors()[0].dtype == gguf::DType::F32);
  CHECK_FALSE(has_staging(store));
}

TEST_CASE("create --quantize of a stored model keeps all but its weights") {
  ModelStore store;
  write_floats(store, 1);
  gguf::GgufWriter adapter;
  adapter.add("general.architecture", "llama");
  adapter.add("general.type", "adapter");
  adapter.add_tensor("x.lora_a", {4}, std::vector<float>(4));
  adapter.write(store.dir.path() / "adapter.gguf");
  gguf::GgufWriter projector;
  projector.add("general.architecture", "clip");
  projector.add_tensor("v.patch_embd.weight", {4}, std::vector<float>(4));
  projector.write(store.dir.path() / "mmproj.gguf");
  store.create(
      "whole",
      "FROM floats.gguf\nFROM mmproj.gguf\nADAPTER adapter.gguf\nTEMPLATE {{ .Prompt }}\n");
  const registry::StoredModel whole = find(store, "whole");
  create_quantized(store, "small", "FROM whole\nPARAMETER temperature 0.5\n", "Q4_0");
  const registry::StoredModel small = find(store, "small");
  CHECK(weight_type(small) == gguf::DType::Q4_0);
  CHECK(small.template_text == "{{ .Prompt }}");
  CHECK(small.parameters_json == R"({"temperature":0.5})");
  CHECK(small.adapter_paths == whole.adapter_paths);
  const auto projectors = [](const registry::StoredModel& model) {
    std::vector<registry::Digest> digests;
    for (const auto& layer : model.manifest.layers_of(registry::media_type::kProjector))
      digests.push_back(layer.digest);
    return digests;
  };
  CHECK(projectors(small) == projectors(whole));
  CHECK(projectors(small).size() == 1);
  // The model itself, replaced by its smaller form.
  create_quantized(store, "whole", "FROM whole\n", "Q8_0");
  CHECK(weight_type(find(store, "whole")) == gguf::DType::Q8_0);
  CHECK(find(store, "whole").adapter_paths.size() == 1);

  CHECK_THROWS_WITH(create_quantized(store, "again", "FROM small\n", "Q8_0"),
                    Contains("is Q4_0 already") && Contains("--allow-requantize"));
  CHECK_FALSE(store.registry().find(ModelName::parse("again")).has_value());
  CHECK_NOTHROW(create_quantized(store, "again", "FROM small\n", "Q8_0", true));
  CHECK_THROWS_WITH(create_quantized(store, "x", "FROM whole\n", "Q9"),
                    Contains("'Q9' is no type") && Contains("Q4_K_M"));
  CHECK_FALSE(has_staging(store));
}

TEST_CASE("create interrupted leaves no model") {
  ModelStore store;
  store.write_model("m.gguf");
  store.console.is_interrupted = true;
  CHECK_THROWS_WITH(store.create("x", "FROM m.gguf\n"), Contains("interrupted"));
  CHECK(store.registry().list().models.empty());
}

TEST_CASE("create warns of parameters without effect") {
  ModelStore store;
  store.write_model("m.gguf");
  store.create("x", "FROM m.gguf\nPARAMETER mirostat 1\n");
  CHECK_THAT(store.console.notes, Contains("warning: ") && Contains("Modelfile:2:11: mirostat"));
}

}  // namespace
}  // namespace dsctl::commands
