#include "commands/pull_plan.h"

#include <sys/stat.h>

#include <algorithm>

#include "commands/model_info.h"
#include "registry/local_bytes.h"
#include "registry/sources/glob.h"
#include "registry/sources/remote_url.h"
#include "registry/sources/variants.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using registry::RemoteFile;
using registry::RemoteRef;
using registry::RemoteVariant;
using registry::Resolved;

// What else the disk must have room for: the manifest, journals, other programs' breathing space.
constexpr int64_t kSpareBytes = 64 << 20;

RemoteRef parse_ref(const PullRequest& request) {
  RemoteRef ref = RemoteRef::parse(request.model, request.source);
  if (!request.revision.empty()) ref.revision = request.revision;
  const bool plain = ref.endpoint.starts_with("http://");
  const auto url = registry::Url::parse(ref.endpoint);
  const bool is_loopback = url && registry::is_loopback_host(url->host);
  if (ref.kind == RemoteRef::Kind::kOllama && request.insecure && !plain && !is_loopback) {
    // As Ollama does: an insecure registry is asked in plain HTTP.
    ref.endpoint.replace(0, 5, "http");
  } else if (plain && !is_loopback && !request.insecure && ref.kind == RemoteRef::Kind::kOllama) {
    throw Error(ref.endpoint +
                ": plain HTTP to a registry can be read and changed on its way; use "
                "https, or allow it with --insecure");
  }
  return ref;
}

/// Keeps the files that are wanted, and what the URL pointed at.
void keep_wanted(Resolved& resolved, const PullRequest& request) {
  const registry::LfsFilter filter(request.include, request.exclude);
  const std::string& path = resolved.ref.path;
  if (filter.is_empty() && path.empty()) return;
  std::erase_if(resolved.files, [&](const RemoteFile& file) {
    const bool below = path.empty() || file.path == path || file.path.starts_with(path + "/");
    return !below || !filter.wants(file.path);
  });
  registry::GroupedFiles grouped = registry::group_files(resolved.files);
  resolved.variants = std::move(grouped.variants);
  resolved.projector_idxs = std::move(grouped.projector_idxs);
  if (resolved.files.empty()) {
    throw Error(resolved.ref.display() + ": no file matches " +
                (path.empty() ? "--include and --exclude" : "\"" + path + "\""));
  }
}

std::string labels_of(const std::vector<RemoteVariant>& variants) {
  std::string text;
  for (const RemoteVariant& variant : variants)
    text += (text.empty() ? "" : ", ") + variant.label;
  return text;
}

/// The one model that is meant. Nothing named: the only one, or, where the name is written as
/// Ollama writes it (hf.co/ORG/REPO), Q4_K_M as there.
const RemoteVariant& choose_variant(const Resolved& resolved) {
  const std::string where = resolved.ref.display();
  const auto& variants = resolved.variants;
  if (variants.empty()) {
    throw Error(where + ": has no GGUF model among its " + std::to_string(resolved.files.size()) +
                " files; --local-dir DIR fetches the files as they are");
  }
  std::optional<size_t> chosen;
  if (!resolved.ref.selector.empty()) {
    chosen = registry::find_variant(variants, resolved.files, resolved.ref.selector);
    if (!chosen) {
      throw ChoiceNeeded(
          where + ": has no \"" + resolved.ref.selector + "\", but " + labels_of(variants),
          resolved);
    }
  } else if (variants.size() == 1) {
    chosen = 0;
  } else if (resolved.ref.is_ollama_style) {
    chosen = registry::find_variant(variants, resolved.files, "Q4_K_M");
  }
  if (!chosen) {
    throw ChoiceNeeded(where + ": has " + std::to_string(variants.size()) +
                           " models, none was named; choose one, as in " + where + ":" +
                           variants.front().label,
                       resolved);
  }
  const RemoteVariant& variant = variants[*chosen];
  if (!variant.problem.empty()) {
    throw Error(where + ": " + variant.label + ": " + variant.problem);
  }
  return variant;
}

/// Bytes of a partial file that are on the disk: it is sparse until they arrive.
int64_t allocated_bytes(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return 0;
  return std::min<int64_t>(status.st_size, int64_t{status.st_blocks} * 512);
}

int64_t size_at(const fs::path& path) {
  std::error_code error;
  const auto size = fs::is_regular_file(path, error) ? fs::file_size(path, error) : 0;
  return error ? 0 : static_cast<int64_t>(size);
}

/// A name for a file's bytes that stays the same from run to run.
std::string key_of(const RemoteFile& file, const Resolved& resolved) {
  if (file.sha256) return file.sha256->file_name();
  if (!file.git_sha1.empty()) return "git-" + file.git_sha1;
  return "path-" + registry::Digest::of(resolved.ref.endpoint + "\n" + resolved.ref.repo + "\n" +
                                        resolved.revision + "\n" + file.path)
                       .hex();
}

int64_t here_bytes(const RemoteFile& file, const PlannedFile& planned,
                   const registry::LocalPlaces& places) {
  if (file.write_to || !registry::find_whole(file, places).empty()) return file.size_bytes;
  const int64_t partial = allocated_bytes(planned.partial);
  if (partial > 0) return partial;
  const auto beginning = registry::find_beginning(file, places);
  return beginning ? size_at(beginning->path) : 0;
}

void plan_for_registry(PullPlan& plan) {
  const registry::BlobStore blobs(plan.root);
  std::vector<std::pair<size_t, std::string_view>> wanted;
  if (plan.resolved.manifest) {
    for (size_t i = 0; i < plan.resolved.files.size(); ++i)
      wanted.emplace_back(i, "");
    for (const registry::Layer& layer :
         plan.resolved.manifest->layers_of(registry::media_type::kModel)) {
      plan.model_bytes += layer.size_bytes;
    }
    plan.label = plan.resolved.ref.selector;
  } else {
    const RemoteVariant& variant = choose_variant(plan.resolved);
    plan.label = variant.label;
    plan.model_bytes = variant.size_bytes;
    for (const size_t file_idx : variant.file_idxs)
      wanted.emplace_back(file_idx, registry::media_type::kModel);
    if (const auto projector =
            registry::choose_projector(plan.resolved.projector_idxs, plan.resolved.files)) {
      wanted.emplace_back(*projector, registry::media_type::kProjector);
    }
  }
  const registry::LocalPlaces places = registry::LocalPlaces::of(plan.resolved.ref, "");
  for (const auto& [file_idx, media_type] : wanted) {
    const RemoteFile& file = plan.resolved.files[file_idx];
    PlannedFile planned{.file_idx = file_idx, .media_type = media_type};
    if (file.sha256) planned.target = blobs.path_of(*file.sha256);
    planned.partial = blobs.blobs_dir() / (key_of(file, plan.resolved) + "-partial");
    planned.is_here =
        file.sha256 && size_at(planned.target) == file.size_bytes && blobs.has(*file.sha256);
    planned.here_bytes = planned.is_here ? file.size_bytes : here_bytes(file, planned, places);
    plan.files.push_back(std::move(planned));
  }
  // Without a quant in the name it is `latest`, as Ollama has it; with one it is that.
  const std::string label = plan.resolved.ref.selector.empty() ? "" : plan.label;
  plan.name = plan.request.name.empty() ? plan.resolved.ref.model_name(label)
                                        : registry::ModelName::parse(plan.request.name);
}

void plan_for_directory(PullPlan& plan) {
  const fs::path& dir = plan.root;
  if (plan.resolved.manifest) {
    throw Error(plan.resolved.ref.display() +
                ": is a model of an Ollama registry, whose layers have no file names; --local-dir "
                "takes repositories of a hub");
  }
  std::vector<size_t> wanted;
  if (!plan.resolved.ref.selector.empty()) {
    const RemoteVariant& variant = choose_variant(plan.resolved);
    wanted = variant.file_idxs;
    plan.label = variant.label;
    plan.model_bytes = variant.size_bytes;
  } else {
    for (size_t i = 0; i < plan.resolved.files.size(); ++i)
      wanted.push_back(i);
  }
  const registry::LocalPlaces places = registry::LocalPlaces::of(plan.resolved.ref, dir);
  for (const size_t file_idx : wanted) {
    const RemoteFile& file = plan.resolved.files[file_idx];
    PlannedFile planned{.file_idx = file_idx, .media_type = ""};
    planned.target = dir / file.path;
    planned.partial = dir / ".dsctl" / (key_of(file, plan.resolved) + "-partial");
    planned.is_here = registry::is_noted(dir, file);
    const bool is_whole = planned.is_here || size_at(planned.target) == file.size_bytes;
    planned.here_bytes = is_whole ? file.size_bytes : here_bytes(file, planned, places);
    plan.files.push_back(std::move(planned));
  }
}

int64_t free_bytes_at(fs::path dir) {
  std::error_code error;
  while (!fs::exists(dir, error) && dir.has_parent_path() && dir != dir.parent_path())
    dir = dir.parent_path();
  const fs::space_info space = fs::space(dir.empty() ? fs::path(".") : dir, error);
  return error ? INT64_MAX : static_cast<int64_t>(space.available);
}

}  // namespace

PullPlan make_pull_plan(const PullRequest& request, const fs::path& models_dir,
                        const registry::HttpOptions& http, std::stop_token stop) {
  PullPlan plan;
  plan.request = request;
  const RemoteRef ref = parse_ref(request);
  if (!request.name.empty()) registry::ModelName::parse(request.name);
  plan.resolved = registry::make_source(ref, http)->resolve(ref, stop);
  if (plan.resolved.ref.path.empty()) plan.resolved.ref.path = ref.path;
  if (!plan.resolved.manifest) keep_wanted(plan.resolved, request);
  plan.root = request.local_dir.empty() ? models_dir : fs::absolute(request.local_dir);
  if (request.local_dir.empty()) {
    plan_for_registry(plan);
  } else {
    plan_for_directory(plan);
  }
  for (const PlannedFile& planned : plan.files) {
    const int64_t size = std::max<int64_t>(plan.file(planned).size_bytes, 0);
    plan.total_bytes += size;
    plan.missing_bytes += size - std::min(size, planned.here_bytes);
  }
  plan.free_bytes = free_bytes_at(request.local_dir.empty() ? plan.root / "blobs" : plan.root);
  return plan;
}

void check_space(const PullPlan& plan) {
  if (plan.missing_bytes == 0 || plan.missing_bytes + kSpareBytes <= plan.free_bytes) return;
  throw Error(plan.root.string() + ": " + std::to_string(plan.missing_bytes) + " bytes (" +
              format_size(plan.missing_bytes) + ") are to be fetched, " +
              std::to_string(plan.free_bytes) + " (" + format_size(plan.free_bytes) +
              ") are free there; free some, or choose another place with DSCTL_MODELS or "
              "--local-dir");
}

}  // namespace dsctl::commands
