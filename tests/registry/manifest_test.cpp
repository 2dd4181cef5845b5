#include "registry/manifest.h"

#include <nlohmann/json.hpp>

#include "registry/error.h"
#include "tests/support/catch.h"

namespace dsctl::registry {
namespace {

using Catch::Contains;

const std::string kDigestA = "sha256:" + std::string(64, 'a');
const std::string kDigestB = "sha256:" + std::string(64, 'b');

// As Ollama writes it: field order, no spaces, newline at the end.
std::string ollama_manifest() {
  return R"({"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",)"
         R"("config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":")" +
         kDigestA +
         R"(","size":7},"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":")" +
         kDigestB + R"(","size":100}]})" + "\n";
}

TEST_CASE("Manifest reads Ollama's and writes the same bytes") {
  const Manifest manifest = Manifest::parse(ollama_manifest());
  REQUIRE(manifest.layers.size() == 1);
  CHECK(manifest.config.digest.to_string() == kDigestA);
  CHECK(manifest.layers[0].media_type == media_type::kModel);
  CHECK(manifest.size_bytes() == 107);
  CHECK(manifest.to_json() == ollama_manifest());
}

TEST_CASE("Manifest keeps the order of a split model's shards and their names") {
  Manifest manifest;
  for (int i = 0; i < 9; ++i) {
    Layer layer;
    layer.media_type = media_type::kModel;
    layer.digest = Digest::of(std::to_string(i));
    layer.name = "x-0000" + std::to_string(i + 1) + "-of-00009.gguf";
    manifest.layers.push_back(layer);
  }
  const Manifest again = Manifest::parse(manifest.to_json());
  REQUIRE(again.layers_of(media_type::kModel).size() == 9);
  for (size_t i = 0; i < 9; ++i) {
    CHECK(again.layers[i].digest == manifest.layers[i].digest);
    CHECK(again.layers[i].name == manifest.layers[i].name);
  }
}

TEST_CASE("Manifest names the broken field") {
  const auto broken = [](const std::string& from, const std::string& to) {
    std::string text = ollama_manifest();
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  CHECK_THROWS_WITH(Manifest::parse(""), Contains("no valid JSON"));
  CHECK_THROWS_WITH(Manifest::parse("[]"), Contains("expected a JSON object"));
  CHECK_THROWS_WITH(Manifest::parse("{}"), Contains("config: missing"));
  CHECK_THROWS_WITH(Manifest::parse(ollama_manifest().substr(0, 200)), Contains("no valid JSON"));
  CHECK_THROWS_WITH(Manifest::parse(broken("\"schemaVersion\":2", "\"schemaVersion\":1")),
                    Contains("schemaVersion: 1, expected 2"));
  CHECK_THROWS_WITH(Manifest::parse(broken(kDigestB, "sha256:../../../etc/passwd")),
                    Contains("layers[0]: digest"));
  CHECK_THROWS_WITH(Manifest::parse(broken("100", "-1")), Contains("layers[0]: size"));
  CHECK_THROWS_WITH(Manifest::parse(broken("100", "18446744073709551615")),
                    Contains("size: expected a whole number"));
  CHECK_THROWS_WITH(Manifest::parse(broken("100", "9223372036854775807")), Contains("no size"));
  CHECK_THROWS_WITH(Manifest::parse(broken("100", "\"100\"")), Contains("expected a whole number"));
  CHECK_THROWS_WITH(Manifest::parse(broken("[{", "{\"a\":[{")), Contains("no valid JSON"));
  CHECK_THROWS_WITH(Manifest::parse(std::string(Manifest::kMaxBytes + 1, ' ')),
                    Contains("expected at most"));
}

TEST_CASE("ModelConfig has Ollama's fields") {
  ModelConfig config;
  config.model_format = "gguf";
  config.model_family = "deepseek2";
  config.model_families = {"deepseek2"};
  config.model_type = "671.0B";
  config.file_type = "Q4_K_M";
  config.requires_version = "0.14.0";
  config.context_length = 163840;
  Layer layer;
  layer.digest = *Digest::parse(kDigestA);
  const auto json = nlohmann::json::parse(config.to_json({layer}));
  CHECK(json["model_type"] == "671.0B");
  CHECK(json["architecture"] == "amd64");
  CHECK(json["os"] == "linux");
  CHECK(json["rootfs"]["type"] == "layers");
  CHECK(json["rootfs"]["diff_ids"][0] == kDigestA);
  CHECK_FALSE(json.contains("renderer"));
  const ModelConfig again = ModelConfig::parse(json.dump());
  CHECK(again.model_families == config.model_families);
  CHECK(again.requires_version == "0.14.0");
  CHECK(again.context_length == 163840);
  CHECK(ModelConfig::parse(R"({"model_families":null,"unknown":[1]})").model_families.empty());
  CHECK_THROWS_WITH(ModelConfig::parse(R"({"file_type":3})"), Contains("file_type"));
}

}  // namespace
}  // namespace dsctl::registry
