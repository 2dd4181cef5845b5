#include "commands/list.h"

#include <nlohmann/json.hpp>

#include "commands/model_info.h"
#include "tests/support/catch.h"
#include "tests/support/commands_store.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;

TEST_CASE("list prints Ollama's columns, newest first") {
  tests::ModelStore store;
  store.write_model("m.gguf");
  store.create("first", "FROM m.gguf\n");
  store.create("me/Second:1", "FROM m.gguf\nSYSTEM x\n");
  const fs::path first =
      store.settings.models_dir / "manifests/registry.ollama.ai/library/first/latest";
  fs::last_write_time(first, fs::file_time_type::clock::now() - std::chrono::hours(24 * 22));
  const auto models = store.registry().list().models;
  store.console.printed.clear();
  CHECK(list(store.settings, {}, store.console) == 0);
  CHECK(store.console.printed ==
        "NAME            ID              SIZE      MODIFIED\n"
        "me/Second:1     " +
            models[0].digest.short_hex() +
            "    7.2 KB    Less than a second ago\n"
            "first:latest    " +
            models[1].digest.short_hex() + "    7.1 KB    3 weeks ago\n");

  SECTION("only what begins with a prefix, in any case") {
    store.console.printed.clear();
    list(store.settings, {.prefix = "FIR"}, store.console);
    CHECK_THAT(store.console.printed, Contains("first:latest") && !Contains("Second"));
  }
  SECTION("as Ollama's /api/tags in JSON") {
    store.console.printed.clear();
    list(store.settings, {.prefix = "", .json = true}, store.console);
    const auto json = nlohmann::json::parse(store.console.printed);
    REQUIRE(json["models"].size() == 2);
    CHECK(json["models"][0]["name"] == "me/Second:1");
    CHECK(json["models"][0]["digest"] == models[0].digest.hex());
    CHECK(json["models"][0]["details"]["quantization_level"] == "Q4_K_M");
    CHECK(json["models"][0]["details"]["families"][0] == "llama");
    CHECK(json["models"][0]["modified_at"].get<std::string>().size() == 30);
  }
}

TEST_CASE("list of an empty store is a heading, or an empty JSON list") {
  tests::ModelStore store;
  CHECK(list(store.settings, {}, store.console) == 0);
  CHECK(store.console.printed == "NAME    ID    SIZE    MODIFIED\n");
  store.console.printed.clear();
  list(store.settings, {.prefix = "", .json = true}, store.console);
  CHECK(store.console.printed == "{\"models\":[]}\n");
}

TEST_CASE("list notes a broken manifest and lists the rest") {
  tests::ModelStore store;
  store.write_model("m.gguf");
  store.create("good", "FROM m.gguf\n");
  store.write("models/manifests/registry.ollama.ai/library/bad/latest", "{");
  store.console.notes.clear();
  store.console.printed.clear();
  CHECK(list(store.settings, {}, store.console) == 0);
  CHECK_THAT(store.console.printed, Contains("good:latest") && !Contains("bad"));
  CHECK_THAT(store.console.notes, Contains("skipped: ") && Contains("library/bad/latest"));
}

TEST_CASE("Sizes, counts and times are written as Ollama writes them") {
  CHECK(format_size(0) == "0 B");
  CHECK(format_size(999) == "999 B");
  CHECK(format_size(1000) == "1 KB");
  CHECK(format_size(1'900'000'000) == "1.9 GB");
  CHECK(format_size(91'739'413) == "91 MB");
  CHECK(format_size(404'430'188'544) == "404 GB");
  CHECK(format_size(1'250'000'000'000) == "1.2 TB");
  CHECK(format_parameter_count(512) == "512");
  CHECK(format_parameter_count(32'100) == "32K");
  CHECK(format_parameter_count(134'515'008) == "134.52M");
  CHECK(format_parameter_count(7'000'000'000) == "7B");
  CHECK(format_parameter_count(671'026'419'200) == "671.0B");
  using std::chrono::seconds;
  CHECK(format_relative_time(seconds(0)) == "Less than a second ago");
  CHECK(format_relative_time(seconds(1)) == "1 second ago");
  CHECK(format_relative_time(seconds(59)) == "59 seconds ago");
  CHECK(format_relative_time(seconds(60)) == "About a minute ago");
  CHECK(format_relative_time(seconds(3599)) == "59 minutes ago");
  CHECK(format_relative_time(seconds(3600)) == "About an hour ago");
  CHECK(format_relative_time(seconds(14 * 3600)) == "14 hours ago");
  CHECK(format_relative_time(seconds(47 * 3600)) == "47 hours ago");
  CHECK(format_relative_time(seconds(48 * 3600)) == "2 days ago");
  CHECK(format_relative_time(seconds(14 * 86400)) == "2 weeks ago");
  CHECK(format_relative_time(seconds(60 * 86400)) == "2 months ago");
  CHECK(format_relative_time(seconds(730 * 86400)) == "2 years ago");
  CHECK(format_relative_time(seconds(-300)) == "5 minutes from now");
  CHECK(format_time(std::chrono::system_clock::time_point(std::chrono::nanoseconds(
            1'700'000'000'000'000'005))) == "2023-11-14T22:13:20.000000005Z");
  CHECK(file_type_name(15) == "Q4_K_M");
  CHECK(file_type_name(1024 + 7) == "Q8_0");
  CHECK(file_type_name(33).empty());
  CHECK(file_type_name(UINT64_MAX).empty());
}

}  // namespace
}  // namespace dsctl::commands
