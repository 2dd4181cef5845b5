// What a pull is about to do, known before the first byte: which files, how large, what of them is
// here, whether they fit on the disk and into the machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "commands/error.h"
#include "registry/http.h"
#include "registry/model_name.h"
#include "registry/registry.h"
#include "registry/sources/source.h"

namespace dsctl::commands {

/// What is wanted, of the command line or of an API.
struct PullRequest {
  std::string model;  // RemoteRef's forms
  std::string source = "auto";
  std::string name;     // of the model in the registry; empty: from `model`
  std::string include;  // git-lfs patterns
  std::string exclude;
  std::string revision;
  std::filesystem::path local_dir;  // plain files go there; empty: the registry
  bool insecure = false;            // plain HTTP to a registry is allowed
};

/// One file of a plan.
struct PlannedFile {
  size_t file_idx = 0;                    // into resolved.files
  std::string_view media_type;            // of the layer that it becomes
  int64_t here_bytes = 0;                 // of them on this machine already
  std::filesystem::path target;           // where it goes; empty: known when its digest is
  std::filesystem::path partial;          // where it is until then
  bool is_here = false;                   // complete at its target
  std::vector<std::byte> beginning = {};  // its first bytes, where they were fetched for the fit
};

struct PullPlan {
  PullRequest request;
  registry::Resolved resolved;
  std::string label;                        // of the variant: "Q4_K_M"; may be empty
  std::optional<registry::ModelName> name;  // nothing for a local directory
  std::vector<PlannedFile> files;           // a model's shards in order, then its projector
  int64_t total_bytes = 0;
  int64_t missing_bytes = 0;   // to be fetched
  int64_t free_bytes = 0;      // on the file system they go to
  std::filesystem::path root;  // of the registry, or the local directory
  int64_t model_bytes = 0;     // of the weights; 0: no model among the files
  std::string fit;             // a line about the model and this machine; empty: not asked for

  const registry::RemoteFile& file(const PlannedFile& planned) const {
    return resolved.files[planned.file_idx];
  }
};

/// Thrown when a repository has several models and none was named.
class ChoiceNeeded : public Error {
 public:
  ChoiceNeeded(const std::string& message, registry::Resolved resolved_files)
      : Error(message), resolved(std::move(resolved_files)) {}
  registry::Resolved resolved;
};

/// Asks the source and looks at the disk; changes nothing. Throws Error, registry::Error or
/// ChoiceNeeded.
PullPlan make_pull_plan(const PullRequest& request, const std::filesystem::path& models_dir,
                        const registry::HttpOptions& http, std::stop_token stop);

/// Throws Error with the numbers when the missing bytes do not fit on the disk.
void check_space(const PullPlan& plan);

}  // namespace dsctl::commands
