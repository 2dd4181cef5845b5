// Prune: gives back the space of what no model needs.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "registry/registry.h"

namespace dsctl::registry {

/// Why something can go.
enum class PruneKind {
  kBlob,       // complete, and no manifest names it
  kPartial,    // a download that nobody goes on with, of ours or of Ollama
  kStaging,    // an import whose process is gone
  kDirectory,  // below manifests/, without a manifest
  kRecord,     // of the import of a blob that is gone
};

/// "blob", "partial", "staging", "directory", "record".
std::string_view prune_kind_name(PruneKind kind);

struct PruneItem {
  PruneKind kind = PruneKind::kBlob;
  std::filesystem::path path;  // below the store
  int64_t freed_bytes = 0;     // 0 for a hard link whose other name lives on
};

struct PruneOptions {
  enum class Mode { kRemove, kDryRun } mode = Mode::kRemove;
  /// A blob may come before the manifest that names it: an upload, an import, the parts of a pull.
  std::chrono::seconds blob_age = std::chrono::hours(1);
  /// A partial download is worth something to who starts it again.
  std::chrono::seconds partial_age = std::chrono::hours(24 * 7);
};

struct PruneResult {
  std::vector<PruneItem> items;  // removed, or what would be
  int64_t freed_bytes = 0;
  std::vector<std::string> notes;  // what was kept and why
};

/// Removes what no model needs, holding the store's lock; a dry run takes none and writes nothing.
/// Blobs stay when a manifest can't be read, partial downloads when a process has them locked.
PruneResult prune(const Registry& registry, const PruneOptions& options, const Observer& observer);

}  // namespace dsctl::registry
