#include "commands/model_options.h"

#include "commands/duration.h"
#include "commands/error.h"
#include "registry/modelfile.h"
#include "tests/support/catch.h"

namespace dsctl {
namespace {

using namespace std::chrono_literals;
using commands::BareNumber;
using commands::KeepAlive;
using commands::kForever;
using commands::OptionValue;
using commands::parse_keep_alive;
using commands::parse_option;

OptionValue parse(std::string_view name, std::vector<std::string> words) {
  return parse_option(name, words);
}

TEST_CASE("Options are typed and say what is wrong as Ollama does") {
  CHECK(parse("num_ctx", {"8192"}) == OptionValue(int64_t{8192}));
  CHECK(parse("temperature", {"0.6"}) == OptionValue(0.6));
  CHECK(parse("temperature", {"1"}) == OptionValue(1.0));
  CHECK(parse("use_mmap", {"false"}) == OptionValue(false));
  CHECK(parse("stop", {"a", "b"}) == OptionValue(std::vector<std::string>{"a", "b"}));
  CHECK_THROWS_WITH(parse("nonsense", {"1"}), "unknown parameter 'nonsense'");
  CHECK_THROWS_WITH(parse("num_ctx", {"many"}), Catch::Contains("invalid int value [many]"));
  CHECK_THROWS_WITH(parse("top_p", {"x"}), Catch::Contains("invalid float value [x]"));
  CHECK_THROWS_WITH(parse("use_mmap", {"maybe"}), Catch::Contains("invalid bool value [maybe]"));
  CHECK_THROWS_WITH(parse("num_ctx", {"1", "2"}), Catch::Contains("expected one"));
  CHECK_THROWS_WITH(parse("top_p", {"1.5"}), Catch::Contains("expected 0 to 1"));
  CHECK_THROWS_AS(parse("temperature", {"nan"}), commands::Error);
  CHECK_THROWS_WITH(commands::check_option("stop", OptionValue(true)),
                    "option \"stop\" must be of type array");
  CHECK_THROWS_WITH(commands::check_option("num_ctx", OptionValue(1.5)),
                    "option \"num_ctx\" must be of type integer");
  CHECK(commands::check_option("num_ctx", OptionValue(40.0)) == OptionValue(int64_t{40}));
}

TEST_CASE("Every parameter that a Modelfile may set is an option") {
  for (const registry::ParameterInfo& info : registry::parameter_table()) {
    INFO(info.name);
    CHECK((info.deprecated || commands::find_option(info.name) != nullptr));
  }
}

TEST_CASE("A negative seed or limit is none, zero is one") {
  const auto options = [](const char* name, int64_t value) {
    return commands::generation_options({{name, value}});
  };
  CHECK(!options("seed", -1).sampling.seed);
  CHECK(options("seed", 0).sampling.seed == 0u);
  CHECK(options("num_predict", -2).max_tokens == -1);
  CHECK(options("num_predict", 0).max_tokens == 0);
}

TEST_CASE("Durations are Go's") {
  CHECK(parse_keep_alive("5m", BareNumber::kRefused) == KeepAlive(5min));
  CHECK(parse_keep_alive("1h30m", BareNumber::kRefused) == KeepAlive(90min));
  CHECK(parse_keep_alive("1.5s", BareNumber::kRefused) == KeepAlive(1500ms));
  CHECK(parse_keep_alive("250us", BareNumber::kRefused) == KeepAlive(250us));
  CHECK(parse_keep_alive("-1m", BareNumber::kRefused) == kForever);
  CHECK(parse_keep_alive("0", BareNumber::kRefused) == KeepAlive(0));
  CHECK(parse_keep_alive("300", BareNumber::kSeconds) == KeepAlive(300s));
  CHECK(parse_keep_alive("-1", BareNumber::kSeconds) == kForever);
  CHECK(parse_keep_alive("99999999h", BareNumber::kRefused) == kForever);
  for (const char* bad : {"", "-", "5", "m", "5x", "1.2.3s", "5m3", ".", "1e3s"})
    CHECK_THROWS_AS(parse_keep_alive(bad, BareNumber::kRefused), commands::Error);
  CHECK(commands::keep_alive_from_seconds(-1) == kForever);
  CHECK(commands::keep_alive_from_seconds(0.5) == KeepAlive(500ms));
  CHECK(commands::keep_alive_from_seconds(1e300) == kForever);
}

TEST_CASE("Durations print as Go prints them") {
  CHECK(commands::format_duration(0ns) == "0s");
  CHECK(commands::format_duration(15ns) == "15ns");
  CHECK(commands::format_duration(1500ns) == "1.5µs");
  CHECK(commands::format_duration(130'079'000ns) == "130.079ms");
  CHECK(commands::format_duration(4'232'710'000ns) == "4.23271s");
  CHECK(commands::format_duration(63'500ms) == "1m3.5s");
  CHECK(commands::format_duration(3'600'000ms) == "1h0m0s");
}

}  // namespace
}  // namespace dsctl
