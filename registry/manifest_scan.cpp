#include "registry/manifest_scan.h"

#include <algorithm>

#include "registry/error.h"
#include "registry/file_io.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

/// Names in `dir`, sorted; hidden ones are not looked at.
std::vector<std::string> entries_of(const fs::path& dir, ManifestScan& scan) {
  std::vector<std::string> entries;
  std::error_code error;
  fs::directory_iterator entry(dir, error);
  for (const fs::directory_iterator end; !error && entry != end; entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (!name.starts_with('.')) entries.push_back(std::move(name));
  }
  std::sort(entries.begin(), entries.end());
  if (error && error != std::errc::no_such_file_or_directory) {
    scan.problems.push_back(dir.string() + ": " + error.message());
    if (error != std::errc::not_a_directory) scan.unreadable = scan.problems.back();
  }
  return entries;
}

}  // namespace

ManifestScan scan_manifests(const fs::path& root) {
  const fs::path manifests = root / "manifests";
  ManifestScan scan;
  for (const std::string& host : entries_of(manifests, scan)) {
    for (const std::string& owner : entries_of(manifests / host, scan)) {
      for (const std::string& model : entries_of(manifests / host / owner, scan)) {
        for (const std::string& tag : entries_of(manifests / host / owner / model, scan)) {
          const fs::path path = fs::path(host) / owner / model / tag;
          const auto name = ModelName::try_parse(host + "/" + owner + "/" + model + ":" + tag);
          if (name && name->relative_path() == path) {
            scan.names.push_back(*name);
          } else {
            scan.problems.push_back((manifests / path).string() +
                                    ": is no valid model name; ignored");
          }
        }
      }
    }
  }
  return scan;
}

std::optional<std::string> read_manifest(const fs::path& root, const ModelName& name) {
  return read_small_file(root / "manifests" / name.relative_path(), Manifest::kMaxBytes);
}

std::vector<Layer> all_layers(const Manifest& manifest) {
  std::vector<Layer> layers = manifest.layers;
  layers.push_back(manifest.config);
  return layers;
}

BlobUses read_blob_uses(const fs::path& root) {
  BlobUses uses;
  ManifestScan scan = scan_manifests(root);
  uses.problems = std::move(scan.problems);
  if (!scan.unreadable.empty()) {
    uses.unknown = "not all manifests can be read: " + scan.unreadable;
  }
  for (const ModelName& name : scan.names) {
    try {
      const auto bytes = read_manifest(root, name);
      if (!bytes) continue;  // removed since the directory was read
      for (const Layer& layer : all_layers(Manifest::parse(*bytes))) {
        BlobUse& use = uses.blobs[layer.digest];
        use.size_bytes = layer.size_bytes;
        if (use.models.empty() || use.models.back() != name) use.models.push_back(name);
      }
    } catch (const Error& error) {
      uses.unknown = "the manifest of " + name.short_form() + " can't be read: " + error.what();
      uses.problems.push_back(uses.unknown);
    }
  }
  return uses;
}

}  // namespace dsctl::registry
