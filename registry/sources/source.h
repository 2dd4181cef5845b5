// Source: a place that models come from. Each protocol is one file that turns a reference into
// files with sizes and digests, before any byte of them is fetched.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "registry/download.h"
#include "registry/http.h"
#include "registry/manifest.h"
#include "registry/model_name.h"

namespace dsctl::registry {

/// What a user asked for, taken apart.
struct RemoteRef {
  enum class Kind { kOllama, kHuggingFace, kModelScope, kGit } kind = Kind::kOllama;
  std::string repo;      // "ORG/REPO", or the URL of a git remote, or host/namespace/model
  std::string selector;  // after ':': a quant ("Q4_K_M"), a tag, a file name; may be empty
  std::string revision;  // branch, tag or commit; empty: the default
  std::string endpoint;  // scheme and host, from the URL or the environment (HF_ENDPOINT ...)

  /// Reads "llama3:8b", "hf.co/ORG/REPO[:QUANT]", "huggingface.co/...", "modelscope.cn/...",
  /// "https://host/ORG/REPO[.git]", and "ORG/REPO[:QUANT]" where `source` is hf, modelscope or
  /// auto. Throws Error saying what is wrong with it.
  static RemoteRef parse(std::string_view text, std::string_view source = "auto");
};

/// One model (or one quant of it) among a repository's files: a single GGUF, or the shards of one.
struct RemoteVariant {
  std::string label;              // "Q4_K_M", "UD-IQ1_S", "BF16"
  std::vector<size_t> file_idxs;  // into Resolved::files, shards in order
  int64_t size_bytes = 0;
};

/// A repository as it was when it was asked.
struct Resolved {
  std::string revision;  // the commit, where there is one
  std::vector<RemoteFile> files;
  std::vector<RemoteVariant> variants;  // GGUF models among the files, smallest first
  std::vector<size_t> projector_idxs;   // mmproj files
  /// The Ollama protocol knows the whole model: its manifest, whose layers are `files`.
  std::optional<Manifest> manifest;
};

class Source {
 public:
  virtual ~Source() = default;
  /// Asks for the list of files. Throws Error: not found, needs a token, gated (with the page to
  /// visit), broken answer.
  virtual Resolved resolve(const RemoteRef& ref, std::stop_token stop) = 0;
};

std::unique_ptr<Source> make_source(const RemoteRef& ref, const HttpOptions& http);

}  // namespace dsctl::registry
