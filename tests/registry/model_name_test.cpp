#include "registry/model_name.h"

#include "registry/error.h"
#include "tests/support/catch.h"

namespace dsctl::registry {
namespace {

using Catch::Contains;

TEST_CASE("ModelName fills in Ollama's defaults") {
  struct Case {
    const char* text;
    const char* full;
    const char* shown;
  };
  for (const Case& c : {
           Case{"llama3", "registry.ollama.ai/library/llama3:latest", "llama3:latest"},
           Case{"llama3:8b", "registry.ollama.ai/library/llama3:8b", "llama3:8b"},
           Case{"me/x", "registry.ollama.ai/me/x:latest", "me/x:latest"},
           Case{"library/x:1", "registry.ollama.ai/library/x:1", "x:1"},
           Case{"hf.co/me/x", "hf.co/me/x:latest", "hf.co/me/x:latest"},
           Case{"hf.co/library/x:Q4_K_M", "hf.co/library/x:Q4_K_M", "hf.co/library/x:Q4_K_M"},
           Case{"localhost:5000/me/x", "localhost:5000/me/x:latest", "localhost:5000/me/x:latest"},
           Case{"https://registry.ollama.ai/library/x:t", "registry.ollama.ai/library/x:t", "x:t"},
           Case{"REGISTRY.ollama.ai/Library/x", "REGISTRY.ollama.ai/Library/x:latest", "x:latest"},
           Case{"DeepSeek-R1-Q4_K_M", "registry.ollama.ai/library/DeepSeek-R1-Q4_K_M:latest",
                "DeepSeek-R1-Q4_K_M:latest"},
           Case{"x:y@sha256:0123", "registry.ollama.ai/library/x:y", "x:y"},
           Case{"_x.y-z", "registry.ollama.ai/library/_x.y-z:latest", "_x.y-z:latest"},
       }) {
    CAPTURE(c.text);
    const ModelName name = ModelName::parse(c.text);
    CHECK(name.full_form() == c.full);
    CHECK(name.short_form() == c.shown);
    CHECK(ModelName::parse(name.full_form()) == name);
    CHECK(ModelName::parse(name.short_form()).same_as(name));
  }
}

TEST_CASE("ModelName refuses what Ollama refuses") {
  for (const char* text :
       {"",   ":",    "x:",   ":y",      "/x",   "a//x",        "a/b/",     "a/b/c/d",
        ".x", "-x",   "x y",  "x:a b",   "x:-a", "a.b/x",       "../x",     "a/../x",
        "..", "x/..", "x:..", "h/a:b/x", "x\ny", "http:///a/b", "m\xC3\xA9"}) {
    CAPTURE(text);
    CHECK_FALSE(ModelName::try_parse(text).has_value());
    CHECK_THROWS_WITH(ModelName::parse(text), Contains("invalid model name"));
  }
}

TEST_CASE("ModelName limits the length of each part") {
  const std::string longest(80, 'a');
  CHECK(ModelName::try_parse(longest + "/" + longest + ":" + longest));
  CHECK_FALSE(ModelName::try_parse(longest + "a"));
  CHECK_FALSE(ModelName::try_parse("x:" + longest + "a"));
  CHECK_FALSE(ModelName::try_parse(longest + "a/x"));
  CHECK(ModelName::try_parse(std::string(350, 'h') + "/a/x"));
  CHECK_FALSE(ModelName::try_parse(std::string(351, 'h') + "/a/x"));
  CHECK_THROWS_WITH(ModelName::parse(longest + "a"), Contains("81 bytes, expected at most 80"));
}

TEST_CASE("ModelName compares names without case and orders them with case") {
  CHECK(ModelName::parse("LLAMA3").same_as(ModelName::parse("llama3:Latest")));
  CHECK_FALSE(ModelName::parse("llama3").same_as(ModelName::parse("llama33")));
  CHECK(ModelName::parse("LLAMA3") != ModelName::parse("llama3"));
}

}  // namespace
}  // namespace dsctl::registry
