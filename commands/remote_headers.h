// A model somewhere else, opened by its headers: a few megabytes of ranged reads tell all but the
// weights themselves.
#pragma once

#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf_file.h"
#include "registry/http.h"
#include "registry/sources/source.h"

namespace dsctl::commands {

/// What opening tells: "reading the header of X", 3 of 9.
using HeaderProgress = std::function<void(std::string_view what, int64_t done, int64_t total)>;

/// Reads the beginnings of a model's shards, given in order: each the whole header, or more. Throws
/// Error or gguf::Error naming the file.
std::vector<gguf::PartialFile> read_headers(std::span<const registry::RemoteFile> files,
                                            const registry::HttpOptions& http,
                                            const HeaderProgress& progress,
                                            std::stop_token stop = {});

/// The model of those beginnings.
gguf::GgufFile fetch_headers(std::span<const registry::RemoteFile> files,
                             const registry::HttpOptions& http, const HeaderProgress& progress,
                             std::stop_token stop = {});

/// Another model of the same repository.
struct OtherVariant {
  std::string label;
  int64_t size_bytes = 0;
};

struct RemoteModel {
  std::string name;  // for people
  gguf::GgufFile file;
  std::vector<OtherVariant> others;  // of the repository, smallest first
};

/// Opens "ORG/REPO:QUANT", "hf.co/...", a model of an Ollama registry, or the URL of a GGUF file
/// (any shard). Throws Error, listing what there is where a choice is needed.
RemoteModel open_remote_model(const std::string& text, const std::string& source,
                              const std::string& revision, const registry::HttpOptions& http,
                              const HeaderProgress& progress, std::stop_token stop = {});

/// True for the URL of one GGUF file that is not a page of a hub.
bool is_file_url(std::string_view text);

}  // namespace dsctl::commands
