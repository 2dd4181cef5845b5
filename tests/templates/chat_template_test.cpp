// Whole chat templates of real models, against what Python's jinja2 renders.
#include "templates/chat_template.h"

#include "templates/error.h"
#include "templates/jinja/template.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/templates_jinja.h"

namespace dsctl::templates {
namespace {

using tests::ends_like;
using tests::read_json;
using tests::read_text;
using tests::render;
using tests::render_error;

std::filesystem::path data_dir() {
  return tests::shared_dir() / "data/chat_templates";
}

bool no_data() {
  if (!tests::shared_dir().empty()) return false;
  WARN("no shared data: skipped");
  return true;
}

/// The variables of a golden conversation: its members only, so `tools` may be undefined.
Json golden_variables(const Json& conversation, const Json& golden) {
  Json variables = conversation;
  variables["bos_token"] = golden["bos_token"];
  variables["eos_token"] = golden["eos_token"];
  return variables;
}

}  // namespace

TEST_CASE("Jinja renders the collected chat templates as jinja2 does") {
  if (no_data()) return;
  const Json goldens = read_json(data_dir() / "golden_renders.json");
  size_t n_renders = 0;
  for (const auto& [name, golden] : goldens["templates"].items()) {
    const std::string source = read_text(data_dir() / name);
    for (const auto& [conversation, expected] : golden["renders"].items()) {
      INFO(name << " with " << conversation);
      ++n_renders;
      const Json variables = golden_variables(goldens["conversations"][conversation], golden);
      if (expected.contains("output")) {
        CHECK(render(source, variables) == expected["output"].get<std::string>());
        continue;
      }
      const std::string error = expected["error"];
      CHECK(ends_like(render_error(source, variables), error.substr(error.find(": ") + 2)));
    }
  }
  CHECK(n_renders == 24 * 11);
}

}  // namespace dsctl::templates
