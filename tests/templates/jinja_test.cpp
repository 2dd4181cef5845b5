// The Jinja language: snippets with what Python's jinja2 makes of them.
#include "templates/jinja/template.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/templates_jinja.h"

namespace dsctl::templates::jinja {
namespace {

using tests::read_json;
using tests::render;
using tests::render_error;

}  // namespace

TEST_CASE("Jinja renders the snippets of the specification as jinja2 does") {
  const auto path = tests::shared_dir() / "data/chat_templates/jinja_micro_cases.json";
  if (tests::shared_dir().empty()) {
    WARN("no shared data: skipped");
    return;
  }
  const Json cases = read_json(path);
  size_t n_checked = 0;
  for (const Json& test : cases["cases"]) {
    const std::string source = test["template"];
    INFO(source);
    ++n_checked;
    if (!test.contains("error")) {
      CHECK(render(source, cases["context"]) == test["output"].get<std::string>());
      continue;
    }
    // jinja2 itself doesn't know Hugging Face's generation block.
    if (source.find("generation") != std::string::npos) {
      CHECK(render(source, cases["context"]) == "g");
      continue;
    }
    const std::string message = render_error(source, cases["context"]);
    CHECK(tests::ends_like(message, test["message"].get<std::string>()));
  }
  CHECK(n_checked == 103);
}

}  // namespace dsctl::templates::jinja
