#include "registry/sources/source.h"

#include <algorithm>

#include "registry/error.h"
#include "registry/sources/git_lfs.h"
#include "registry/sources/huggingface.h"
#include "registry/sources/modelscope.h"
#include "registry/sources/ollama.h"

namespace dsctl::registry {
namespace {

std::unique_ptr<Source> make_one(const RemoteRef& ref, const HttpOptions& http) {
  switch (ref.kind) {
    case RemoteRef::Kind::kOllama:
      return make_ollama(http);
    case RemoteRef::Kind::kHuggingFace:
      return make_hugging_face(http);
    case RemoteRef::Kind::kModelScope:
      return make_modelscope(http);
    case RemoteRef::Kind::kGit:
      return make_git_lfs(http);
  }
  return nullptr;
}

/// For a bare ORG/REPO: the first hub that has it.
class FirstOf final : public Source {
 public:
  explicit FirstOf(const HttpOptions& http) : http_(http) {
    // A hub that can't be reached (from this country, say) must not cost minutes of retries.
    http_.connect_timeout_ms = std::min(http.connect_timeout_ms, kConnectTimeoutMs);
    http_.max_asked_wait_ms = std::min(http.max_asked_wait_ms, kConnectTimeoutMs);
  }

  Resolved resolve(const RemoteRef& ref, std::stop_token stop) override {
    const std::string text = ref.repo + (ref.selector.empty() ? "" : ":" + ref.selector);
    std::string reasons;
    for (const char* source : {"hf", "modelscope", "ollama"}) {
      try {
        RemoteRef one = RemoteRef::parse(text, source);
        one.revision = ref.revision;
        return make_one(one, http_)->resolve(one, stop);
      } catch (const Error& error) {
        if (stop.stop_requested()) throw;
        reasons += std::string(reasons.empty() ? "" : "; ") + error.what();
      }
    }
    throw Error(text + ": no hub has it: " + reasons);
  }

 private:
  static constexpr int kConnectTimeoutMs = 5000;
  HttpOptions http_;
};

}  // namespace

std::unique_ptr<Source> make_source(const RemoteRef& ref, const HttpOptions& http) {
  if (ref.is_bare) return std::make_unique<FirstOf>(http);
  return make_one(ref, http);
}

}  // namespace dsctl::registry
