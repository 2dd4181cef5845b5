#include <cstdlib>
#include <string>

#include "registry/error.h"
#include "registry/sources/source.h"
#include "tests/support/catch.h"

namespace dsctl::registry {
namespace {

using Catch::Contains;
using Kind = RemoteRef::Kind;

/// Sets an environment variable for one test.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (value) ::setenv(name, value, 1);
    if (!value) ::unsetenv(name);
  }
  ~Variable() { ::unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

/// No mirror of the person who tests.
struct PlainEnvironment {
  Variable hf{"HF_ENDPOINT", nullptr};
  Variable modelscope{"MODELSCOPE_ENDPOINT", nullptr};
  Variable domain{"MODELSCOPE_DOMAIN", nullptr};
};

struct Case {
  const char* text;
  const char* source;
  Kind kind;
  const char* repo;
  const char* selector;
  const char* revision;
  const char* path;
  const char* endpoint;
  const char* name;  // of the model, with the label "Q8_0" where the text has no selector
};

TEST_CASE("RemoteRef reads the ways to name a model somewhere else") {
  const PlainEnvironment plain;
  const char* hf = "https://huggingface.co";
  const char* ms = "https://www.modelscope.cn";
  for (const Case& c : {
           Case{"llama3", "auto", Kind::kOllama, "registry.ollama.ai/library/llama3", "latest", "",
                "", "https://registry.ollama.ai", "llama3:latest"},
           Case{"llama3:8b", "auto", Kind::kOllama, "registry.ollama.ai/library/llama3", "8b", "",
                "", "https://registry.ollama.ai", "llama3:8b"},
           Case{"me/x:1", "ollama", Kind::kOllama, "registry.ollama.ai/me/x", "1", "", "",
                "https://registry.ollama.ai", "me/x:1"},
           Case{"https://ollama.com/library/x:1", "auto", Kind::kOllama,
                "registry.ollama.ai/library/x", "1", "", "", "https://registry.ollama.ai", "x:1"},
           Case{"localhost:5000/me/x", "auto", Kind::kOllama, "localhost:5000/me/x", "latest", "",
                "", "http://localhost:5000", "localhost:5000/me/x:latest"},
           Case{"reg.example/me/x:y", "auto", Kind::kOllama, "reg.example/me/x", "y", "", "",
                "https://reg.example", "reg.example/me/x:y"},
           Case{"hf.co/a/b:Q4_K_M", "auto", Kind::kHuggingFace, "a/b", "Q4_K_M", "", "", hf,
                "hf.co/a/b:Q4_K_M"},
           Case{"HuggingFace.co/a/b", "auto", Kind::kHuggingFace, "a/b", "", "", "", hf,
                "hf.co/a/b:Q8_0"},
           Case{"a/b:Q4_K_M", "auto", Kind::kHuggingFace, "a/b", "Q4_K_M", "", "", hf,
                "hf.co/a/b:Q4_K_M"},
           Case{"a/b", "hf", Kind::kHuggingFace, "a/b", "", "", "", hf, "hf.co/a/b:Q8_0"},
           Case{"a/b:Q2_K", "modelscope", Kind::kModelScope, "a/b", "Q2_K", "", "", ms,
                "modelscope.cn/a/b:Q2_K"},
           Case{"modelscope.cn/a/b.c-d", "auto", Kind::kModelScope, "a/b.c-d", "", "", "", ms,
                "modelscope.cn/a/b.c-d:Q8_0"},
           Case{"https://huggingface.co/a/b", "auto", Kind::kHuggingFace, "a/b", "", "", "", hf,
                "hf.co/a/b:Q8_0"},
           Case{"https://huggingface.co/a/b/tree/main/Q4%20K", "auto", Kind::kHuggingFace, "a/b",
                "", "main", "Q4 K", hf, "hf.co/a/b:Q8_0"},
           Case{"https://huggingface.co/a/b/blob/refs%2Fpr%2F3/x/y.gguf", "auto",
                Kind::kHuggingFace, "a/b", "", "refs/pr/3", "x/y.gguf", hf, "hf.co/a/b:Q8_0"},
           Case{"https://huggingface.co/a/b/resolve/v1/y.gguf?download=true", "auto",
                Kind::kHuggingFace, "a/b", "", "v1", "y.gguf", hf, "hf.co/a/b:Q8_0"},
           Case{"https://hf-mirror.com/a/b", "auto", Kind::kHuggingFace, "a/b", "", "", "",
                "https://hf-mirror.com", "hf.co/a/b:Q8_0"},
           Case{"https://www.modelscope.cn/models/a/b/files", "auto", Kind::kModelScope, "a/b", "",
                "", "", ms, "modelscope.cn/a/b:Q8_0"},
           Case{"https://www.modelscope.cn/models/a/b/file/view/master/y.gguf?status=2", "auto",
                Kind::kModelScope, "a/b", "", "master", "y.gguf", ms, "modelscope.cn/a/b:Q8_0"},
           Case{"https://www.modelscope.cn/a/b.git", "auto", Kind::kModelScope, "a/b", "", "", "",
                ms, "modelscope.cn/a/b:Q8_0"},
           Case{"https://www.modelscope.cn/a/b.git", "git", Kind::kGit,
                "https://www.modelscope.cn/a/b.git", "", "", "", ms, "www.modelscope.cn/a/b:Q8_0"},
           Case{"https://git.example:8443/a/b.git:Q4_0", "auto", Kind::kGit,
                "https://git.example:8443/a/b.git", "Q4_0", "", "", "https://git.example:8443",
                "git.example:8443/a/b:Q4_0"},
           Case{"https://u:p@git.example/a/b/", "auto", Kind::kGit, "https://u:p@git.example/a/b",
                "", "", "", "https://git.example", "git.example/a/b:Q8_0"},
           Case{"file:///srv/git/b.git", "auto", Kind::kGit, "file:///srv/git/b.git", "", "", "",
                "file://", "localhost/git/b:Q8_0"},
           Case{"http://127.0.0.1:9/a/b", "hf", Kind::kHuggingFace, "a/b", "", "", "",
                "http://127.0.0.1:9", "hf.co/a/b:Q8_0"},
       }) {
    CAPTURE(c.text, c.source);
    const RemoteRef ref = RemoteRef::parse(c.text, c.source);
    CHECK(ref.kind == c.kind);
    CHECK(ref.repo == c.repo);
    CHECK(ref.selector == c.selector);
    CHECK(ref.revision == c.revision);
    CHECK(ref.path == c.path);
    CHECK(ref.endpoint == c.endpoint);
    CHECK(ref.model_name(ref.selector.empty() ? "Q8_0" : ref.selector).short_form() == c.name);
  }
}

TEST_CASE("RemoteRef tells a bare ORG/REPO and Ollama's way of writing from others") {
  const PlainEnvironment plain;
  CHECK(RemoteRef::parse("a/b").is_bare);
  CHECK_FALSE(RemoteRef::parse("a/b", "hf").is_bare);
  CHECK_FALSE(RemoteRef::parse("llama3").is_bare);
  CHECK(RemoteRef::parse("hf.co/a/b").is_ollama_style);
  CHECK(RemoteRef::parse("modelscope.cn/a/b").is_ollama_style);
  CHECK_FALSE(RemoteRef::parse("a/b").is_ollama_style);
}

TEST_CASE("RemoteRef asks the endpoints of the environment") {
  const PlainEnvironment plain;
  const Variable hf("HF_ENDPOINT", "http://127.0.0.1:8000/hf/");
  const Variable modelscope("MODELSCOPE_DOMAIN", "mirror.example");
  CHECK(RemoteRef::parse("a/b").endpoint == "http://127.0.0.1:8000/hf");
  CHECK(RemoteRef::parse("https://huggingface.co/a/b").endpoint == "http://127.0.0.1:8000/hf");
  CHECK(RemoteRef::parse("http://127.0.0.1:8000/a/b").kind == Kind::kHuggingFace);
  CHECK(RemoteRef::parse("modelscope.cn/a/b").endpoint == "https://mirror.example");
  const Variable bad("HF_ENDPOINT", "ftp://x");
  CHECK_THROWS_WITH(RemoteRef::parse("a/b"), Contains("HF_ENDPOINT"));
}

TEST_CASE("RemoteRef refuses what can't be a model, in one line") {
  const PlainEnvironment plain;
  struct Bad {
    std::string text;
    const char* source;
    const char* why;
  };
  for (const Bad& bad : {
           Bad{"", "auto", "no model"},
           Bad{"a b", "auto", "spaces"},
           Bad{std::string("a\0b", 3), "auto", "control characters"},
           Bad{"a/b\n", "auto", "control characters"},
           Bad{"../x", "auto", "ORG/REPO"},
           Bad{"a/..", "hf", "ORG/REPO"},
           Bad{"a/b:", "hf", "after ':'"},
           Bad{"a", "hf", "expected ORG/REPO"},
           Bad{"hf.co/a", "auto", "expected ORG/REPO"},
           Bad{"a/b/c/d/e", "hf", "expected tree, blob or resolve"},
           Bad{"https://huggingface.co/datasets/a/b", "auto", "is in datasets"},
           Bad{"https://huggingface.co/a/b/tree/main/..%2F..%2Fetc", "auto", "refused"},
           Bad{"https://huggingface.co/a/b/tree/..%2f", "auto", "no revision"},
           Bad{"git@github.com:a/b.git", "auto", "give https://github.com/a/b.git"},
           Bad{"ssh://git@host/a/b.git", "auto", "give https://host/a/b.git"},
           Bad{"ftp://host/a/b", "auto", "expected https, http or file"},
           Bad{"https://host", "auto", "path of a repository"},
           Bad{"https://ho st/a/b", "auto", "spaces"},
           Bad{"a/b", "moon", "expected auto, hf, modelscope, ollama or git"},
           Bad{std::string(5000, 'a'), "auto", "4096"},
       }) {
    CAPTURE(bad.text);
    CHECK_THROWS_WITH(RemoteRef::parse(bad.text, bad.source), Contains(bad.why));
  }
}

TEST_CASE("RemoteRef never shows a password") {
  const PlainEnvironment plain;
  const RemoteRef ref = RemoteRef::parse("https://user:secret@git.example/a/b.git");
  CHECK(ref.display() == "https://git.example/a/b.git");
  CHECK(ref.model_name("").short_form() == "git.example/a/b:latest");
}

}  // namespace
}  // namespace dsctl::registry
