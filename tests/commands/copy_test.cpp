#include "commands/copy.h"

#include "registry/error.h"
#include "tests/support/catch.h"
#include "tests/support/commands_store.h"

namespace dsctl::commands {
namespace {

using Catch::Contains;
using registry::ModelName;

TEST_CASE("cp gives a model a second name") {
  tests::ModelStore store;
  store.write_model("m.gguf");
  store.create("a", "FROM m.gguf\n");
  store.console.printed.clear();
  CHECK(copy(store.settings, {.source = "a", .destination = "me/b:2"}, store.console) == 0);
  CHECK(store.console.printed == "copied 'a' to 'me/b:2'\n");
  CHECK(store.registry().find(ModelName::parse("me/b:2"))->digest ==
        store.registry().find(ModelName::parse("a"))->digest);
}

TEST_CASE("cp of what is not there, or to what is no name, fails") {
  tests::ModelStore store;
  CHECK_THROWS_WITH(copy(store.settings, {.source = "a", .destination = "b"}, store.console),
                    Contains("model \"a:latest\" not found"));
  CHECK_THROWS_WITH(copy(store.settings, {.source = "a", .destination = "b c"}, store.console),
                    Contains("invalid model name \"b c\""));
}

}  // namespace
}  // namespace dsctl::commands
