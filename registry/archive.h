// Archives: models as one tar file, for machines without a network. Unpacked into an empty
// directory, an archive is a store in Ollama's layout; a tar of such a store is an archive.
//
// The manifests come first, so that a reader knows what will follow before the first gigabyte.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>
#include <vector>

#include "registry/registry.h"
#include "registry/tar.h"

namespace dsctl::registry {

struct ExportResult {
  std::vector<ModelName> models;
  size_t n_blobs = 0;
  int64_t size_bytes = 0;  // of the archive
};

/// Bytes of the archive that `export_models` would write. Throws Error when there is no such model,
/// or a blob of it is missing.
int64_t archive_size_bytes(const Registry& registry, const std::vector<ModelName>& names);

/// Writes the models as one archive; a blob that several need is in it once. What is written is
/// hashed on its way: Error names a blob that is not what its name says, and the archive is then
/// worthless. `observer.progress` counts the archive's bytes.
ExportResult export_models(const Registry& registry, const std::vector<ModelName>& names,
                           const std::function<void(std::string_view)>& write,
                           const Observer& observer);

/// The same into a file, which appears when it is whole and on disk. Throws Error when it exists
/// and `overwrite` doesn't say so, or when the disk has not the space.
enum class Overwrite { kNo, kYes };
ExportResult export_to_file(const Registry& registry, const std::vector<ModelName>& names,
                            const std::filesystem::path& path, Overwrite overwrite,
                            const Observer& observer);

/// The same to standard output, which is a pipe or a file.
ExportResult export_to_stdout(const Registry& registry, const std::vector<ModelName>& names,
                              const Observer& observer);

struct ImportResult {
  std::vector<ModelName> models;
  size_t n_new_blobs = 0;
  int64_t new_bytes = 0;  // of these blobs
  size_t n_known_blobs = 0;
};

/// Brings the models of an archive into the store: each blob is written once, hashed on its way,
/// and skipped when the store has it. Models appear when all of them are whole and on disk. Throws
/// Error when the archive holds anything but manifests and blobs (links, paths that lead
/// elsewhere), is cut short, lacks a blob, or a blob is not what its name says: then nothing stays.
ImportResult import_archive(Registry& registry, TarInput input, const Observer& observer);

/// The same from a file, and from standard input.
ImportResult import_from_file(Registry& registry, const std::filesystem::path& path,
                              const Observer& observer);
ImportResult import_from_stdin(Registry& registry, const Observer& observer);

}  // namespace dsctl::registry
