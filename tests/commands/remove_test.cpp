#include "commands/remove.h"

#include <nlohmann/json.hpp>

#include "registry/error.h"
#include "tests/support/catch.h"
#include "tests/support/commands_store.h"

namespace dsctl::commands {
namespace {

using Catch::Contains;

TEST_CASE("rm removes each model that is there and fails for one that is not") {
  tests::ModelStore store;
  store.write_model("m.gguf");
  store.create("a", "FROM m.gguf\n");
  store.create("b", "FROM m.gguf\nSYSTEM b\n");
  store.create("c", "FROM m.gguf\nSYSTEM c\n");
  store.console.printed.clear();
  store.console.notes.clear();
  CHECK(remove(store.settings, {.names = {"a", "none", "B"}}, store.console) == 1);
  CHECK(store.console.printed == "deleted 'a'\ndeleted 'B'\n");
  CHECK(store.console.notes == "error: model 'none' not found\n");
  CHECK(store.registry().list().models.size() == 1);
  CHECK(store.registry().find(registry::ModelName::parse("c")).has_value());

  store.console.printed.clear();
  CHECK(remove(store.settings, {.names = {"c"}, .json = true}, store.console) == 0);
  const auto json = nlohmann::json::parse(store.console.printed);
  CHECK(json["deleted"] == std::vector<std::string>{"c"});
  CHECK(json["not_found"].empty());
  CHECK(json["freed_bytes"].get<int64_t>() > 0);
  CHECK(std::filesystem::is_empty(store.settings.models_dir / "blobs"));
  CHECK(std::filesystem::exists(store.dir.path() / "m.gguf"));
}

TEST_CASE("rm removes nothing when a name is invalid") {
  tests::ModelStore store;
  store.write_model("m.gguf");
  store.create("a", "FROM m.gguf\n");
  CHECK_THROWS_WITH(remove(store.settings, {.names = {"a", "x y"}}, store.console),
                    Contains("invalid model name"));
  CHECK(store.registry().list().models.size() == 1);
}

}  // namespace
}  // namespace dsctl::commands
