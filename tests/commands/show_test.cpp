#include "commands/show.h"

#include <nlohmann/json.hpp>

#include "commands/error.h"
#include "registry/error.h"
#include "tests/support/catch.h"
#include "tests/support/commands_store.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using Part = ShowOptions::Part;

constexpr const char* kModelfile =
    "FROM m.gguf\n"
    "TEMPLATE \"\"\"{{ if .Tools }}t{{ end }}{{ .Prompt }}{{ .Suffix }}\n\"\"\"\n"
    "SYSTEM You are \"brief\".\n"
    "PARAMETER num_ctx 8192\n"
    "PARAMETER stop \"<|end|>\"\n"
    "PARAMETER stop b\n"
    "LICENSE \"\"\"MIT\n\nsecond\nthird\n\"\"\"\n"
    "LICENSE other\n"
    "MESSAGE user hi\n"
    "REQUIRES 0.14.0\n";

std::string shown(tests::ModelStore& store, const ShowOptions& options) {
  store.console.printed.clear();
  CHECK(show(store.settings, options, store.console) == 0);
  return store.console.printed;
}

TEST_CASE("show prints a model's sections") {
  tests::ModelStore store;
  store.write_model("m.gguf");
  store.create("x", kModelfile);
  CHECK(shown(store, {.model = "X"}) ==
        "  Model\n"
        "    architecture        llama\n"
        "    parameters          1K\n"
        "    context length      2048\n"
        "    embedding length    64\n"
        "    quantization        Q4_K_M\n"
        "    vocabulary          100\n"
        "    requires            0.14.0\n"
        "\n"
        "  Capabilities\n"
        "    completion\n"
        "    tools\n"
        "    insert\n"
        "\n"
        "  Parameters\n"
        "    num_ctx    8192\n"
        "    stop       \"<|end|>\"\n"
        "    stop       \"b\"\n"
        "\n"
        "  System\n"
        "    You are \"brief\".\n"
        "\n"
        "  License\n"
        "    MIT\n"
        "    second\n"
        "    ...\n"
        "\n");
  const std::string verbose = shown(store, {.model = "x", .metadata = true, .tensors = true});
  CHECK_THAT(verbose, Contains("  Metadata\n") && Contains("general.file_type"));
  CHECK_THAT(verbose, Contains("  Tensors\n") && Contains("blk.17.weight"));
}

TEST_CASE("show prints one part as it is stored") {
  tests::ModelStore store;
  store.write_model("m.gguf");
  store.create("x", kModelfile);
  CHECK(shown(store, {.model = "x", .part = Part::kTemplate}) ==
        "{{ if .Tools }}t{{ end }}{{ .Prompt }}{{ .Suffix }}\n");
  CHECK(shown(store, {.model = "x", .part = Part::kSystem}) == "You are \"brief\".\n");
  CHECK(shown(store, {.model = "x", .part = Part::kLicense}) == "MIT\n\nsecond\nthird\n\nother\n");
  CHECK(shown(store, {.model = "x", .part = Part::kParameters}) ==
        "num_ctx                        8192\n"
        "stop                           \"<|end|>\"\n"
        "stop                           \"b\"\n");
  store.create("plain", "FROM m.gguf\n");
  CHECK(shown(store, {.model = "plain", .part = Part::kTemplate}) == "{{ messages[0].content }}\n");
  CHECK(shown(store, {.model = "plain", .part = Part::kSystem}).empty());
}

TEST_CASE("show prints a Modelfile that makes the same model") {
  tests::ModelStore store;
  store.write_model("m.gguf");
  store.create("x", kModelfile);
  const std::string modelfile = shown(store, {.model = "x", .part = Part::kModelfile});
  CHECK_THAT(modelfile, Contains("# FROM x:latest\n"));
  CHECK_THAT(modelfile, Contains("FROM " + (store.settings.models_dir / "blobs/sha256-").string()));
  store.create("again", modelfile);
  CHECK(store.registry().find(registry::ModelName::parse("again"))->digest ==
        store.registry().find(registry::ModelName::parse("x"))->digest);
}

TEST_CASE("show in JSON is Ollama's /api/show") {
  tests::ModelStore store;
  store.write_model("m.gguf");
  store.create("x", kModelfile);
  const auto json = nlohmann::json::parse(shown(store, {.model = "x", .json = true}));
  CHECK(json["license"] == "MIT\n\nsecond\nthird\n\nother");
  CHECK(json["system"] == "You are \"brief\".");
  CHECK_THAT(json["parameters"].get<std::string>(), Contains("num_ctx"));
  CHECK_THAT(json["modelfile"].get<std::string>(), Contains("PARAMETER stop <|end|>"));
  CHECK(json["details"]["family"] == "llama");
  CHECK(json["details"]["parameter_size"] == "1K");
  CHECK(json["model_info"]["general.architecture"] == "llama");
  CHECK(json["model_info"]["general.parameter_count"] == 64 * 18);
  CHECK(json["model_info"]["tokenizer.ggml.tokens"].is_null());
  CHECK(json["capabilities"] == std::vector<std::string>{"completion", "tools", "insert"});
  CHECK(json["messages"][0]["content"] == "hi");
  CHECK(json["requires"] == "0.14.0");
  CHECK_FALSE(json.contains("tensors"));
  const auto verbose = nlohmann::json::parse(
      shown(store, {.model = "x", .json = true, .metadata = true, .tensors = true}));
  CHECK(verbose["model_info"]["tokenizer.ggml.tokens"].size() == 100);
  CHECK(verbose["tensors"].size() == 18);
  CHECK(verbose["tensors"][0]["shape"] == std::vector<int>{64});
}

TEST_CASE("show tells files from models") {
  tests::ModelStore store;
  const fs::path file = store.write_model("m.gguf");
  CHECK_THAT(shown(store, {.model = file.string()}), Contains("  Tensor types\n"));
  fs::copy_file(file, store.dir.path() / "no_ending");
  CHECK_THAT(shown(store, {.model = (store.dir.path() / "no_ending").string()}),
             Contains("  Tensor types\n"));
  CHECK_THROWS_WITH(
      show(store.settings, {.model = file.string(), .part = Part::kModelfile}, store.console),
      Contains("is a file"));
  CHECK_THROWS_WITH(show(store.settings, {.model = "nobody"}, store.console),
                    Contains("model 'nobody' not found"));
  CHECK_THROWS_WITH(show(store.settings, {.model = "no body"}, store.console),
                    Contains("invalid model name"));
}

}  // namespace
}  // namespace dsctl::commands
