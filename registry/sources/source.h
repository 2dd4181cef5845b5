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
  std::string path;      // the folder or file of the repository that a URL pointed at, or empty
  /// A bare ORG/REPO: where Hugging Face has no such model, or does not answer, ModelScope and then
  /// Ollama's registry are asked.
  bool is_bare = false;
  /// Written as Ollama writes a hub's models ("hf.co/ORG/REPO"): of several quants, Q4_K_M is meant
  /// when none is named.
  bool is_ollama_style = false;

  /// Reads "llama3:8b", "hf.co/ORG/REPO[:QUANT]", "huggingface.co/...", "modelscope.cn/...",
  /// "https://host/ORG/REPO[.git]", pages of the hubs (".../tree/REV/DIR", ".../blob/REV/FILE",
  /// ".../resolve/REV/FILE"), and "ORG/REPO[:QUANT]". `source` (auto, hf, modelscope, ollama, git)
  /// decides what a text without a host means; auto takes ORG/REPO for a bare one, and a name
  /// without a slash for Ollama's. Throws Error saying what is wrong with it.
  static RemoteRef parse(std::string_view text, std::string_view source = "auto");

  /// The name of the model in the registry: "hf.co/ORG/REPO:label". Characters that a name can't
  /// have become '-'. An empty label is "latest".
  ModelName model_name(std::string_view label) const;
  /// For people: "hf.co/ORG/REPO", without user info and selector.
  std::string display() const;
};

/// One model (or one quant of it) among a repository's files: a single GGUF, or the shards of one.
struct RemoteVariant {
  std::string label;              // "Q4_K_M", "UD-IQ1_S", "BF16"
  std::vector<size_t> file_idxs;  // into Resolved::files, shards in order
  int64_t size_bytes = 0;
  std::string problem;  // why it can't be taken: "shard 3 of 9 is missing"; empty: it can
};

/// A repository as it was when it was asked.
struct Resolved {
  RemoteRef ref;         // what answered: of a bare reference, the hub that has it
  std::string revision;  // the commit, where there is one
  std::vector<RemoteFile> files;
  std::vector<RemoteVariant> variants;  // GGUF models among the files, smallest first
  std::vector<size_t> projector_idxs;   // mmproj files
  /// The Ollama protocol knows the whole model: its manifest, whose layers are `files`, the config
  /// last. Kept as it was sent, because a model's ID is the digest of these bytes.
  std::optional<Manifest> manifest;
  std::string manifest_json;
};

class Source {
 public:
  virtual ~Source() = default;
  /// Asks for the list of files. Throws Error: not found, needs a token, gated (with the page to
  /// visit), broken answer.
  virtual Resolved resolve(const RemoteRef& ref, std::stop_token stop) = 0;
};

std::unique_ptr<Source> make_source(const RemoteRef& ref, const HttpOptions& http);

/// Limits on what a server may list.
inline constexpr size_t kMaxRemoteFiles = 200'000;
inline constexpr int64_t kMaxRemoteFileBytes = int64_t{1} << 46;  // 70 TB; sums can't overflow

}  // namespace dsctl::registry
