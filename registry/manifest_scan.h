// What the store's manifests say together: which models there are, and which blobs they need.
// Removing anything depends on having read all of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "registry/digest.h"
#include "registry/manifest.h"
#include "registry/model_name.h"

namespace dsctl::registry {

/// What lies below manifests/.
struct ManifestScan {
  std::vector<ModelName> names;
  std::vector<std::string> problems;  // what was skipped, one line each
  std::string unreadable;             // why there may be more; empty: every directory was read
};

/// Lists the manifests of the store at `root` without reading them.
ManifestScan scan_manifests(const std::filesystem::path& root);

/// A manifest's bytes, or nothing when it is gone. Throws Error.
std::optional<std::string> read_manifest(const std::filesystem::path& root, const ModelName& name);

/// Every blob that `manifest` names: its layers, then its config.
std::vector<Layer> all_layers(const Manifest& manifest);

/// One blob as the manifests know it.
struct BlobUse {
  int64_t size_bytes = 0;
  std::vector<ModelName> models;
};

/// Which models need which blobs.
struct BlobUses {
  std::map<Digest, BlobUse> blobs;
  std::vector<std::string> problems;  // manifests that could not be read, one line each
  std::string unknown;  // why a model may need a blob that is not here; empty: all are known
};

/// Reads every manifest of the store.
BlobUses read_blob_uses(const std::filesystem::path& root);

}  // namespace dsctl::registry
