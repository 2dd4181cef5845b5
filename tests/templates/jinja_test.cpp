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

TEST_CASE("Jinja renders our own snippets as jinja2 does") {
  const Json cases = read_json(tests::source_dir() / "tests/golden/templates/jinja_snippets.json");
  size_t n_checked = 0;
  for (const Json& test : cases["cases"]) {
    const std::string source = test["template"];
    INFO(source);
    ++n_checked;
    if (test.contains("output")) {
      CHECK(render(source, cases["context"]) == test["output"].get<std::string>());
      continue;
    }
    const std::string message = render_error(source, cases["context"]);
    CHECK(message != "no error");
    const std::string kind = test["error"];
    if (kind == "TypeError" || kind == "UndefinedError" || kind == "TemplateError") {
      CHECK(tests::ends_like(message, test["message"].get<std::string>()));
    }
  }
  CHECK(n_checked > 100);
}

TEST_CASE("Jinja errors carry the place of the wrong part") {
  CHECK(render_error("a\nb {{ 'x' ~ (1 + 'y') }}") ==
        "template:2:15: unsupported operand type(s) for +: 'int' and 'str'");
  CHECK(render_error("é{{ zz.a.b }}") == "template:1:7: 'zz' is undefined");
  CHECK(render_error("{% if true %}\n{% endfor %}") ==
        "template:2:4: encountered unknown tag 'endfor'; the innermost open block is 'if' of "
        "template:1:4");
  CHECK(render_error("{% for x in [1] %}") ==
        "template:1:19: unexpected end of template, expected 'endfor' or 'else' for the block "
        "'for' of template:1:4");
  CHECK(render_error("{{ 1|nofilter }}") == "template:1:6: no filter named 'nofilter'");
}

TEST_CASE("Jinja keeps bytes that are no UTF-8") {
  const std::string source = "\xff{{ '\xfe\x41'|upper }}{{ '\xfe'|length }}{{ '\xfe'[0] }}\xc3";
  CHECK(render(source) ==
        "\xff\xfe\x41"
        "1"
        "\xfe\xc3");
}

}  // namespace dsctl::templates::jinja
