// Which models a repository's GGUF files make: files grouped into quants, shards and projectors by
// their names, as hubs and llama.cpp name them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "registry/sources/source.h"

namespace dsctl::registry {

/// The models among a repository's files.
struct GroupedFiles {
  std::vector<RemoteVariant> variants;  // smallest first
  std::vector<size_t> projector_idxs;   // mmproj files, smallest first
};

/// Groups the GGUF files. Shards of one model ("X-00001-of-00003.gguf") are one variant, with a
/// problem when one is missing. Two models with the same quant are told apart by their file names.
GroupedFiles group_files(std::span<const RemoteFile> files);

/// The quant in a GGUF file's name without ".gguf" and shard number, in upper case: "Q4_K_M",
/// "UD-IQ1_S", "BF16"; empty when there is none.
std::string quant_label(std::string_view stem);

/// The variant that `selector` means, letters without case: a label, a file's name or path, a
/// label's only ending ("Q4_K_XL" for "UD-Q4_K_XL"). Nothing when none or several fit.
std::optional<size_t> find_variant(std::span<const RemoteVariant> variants,
                                   std::span<const RemoteFile> files, std::string_view selector);

/// The projector to take with a model: F16 before BF16, F32 and others. Nothing without one.
std::optional<size_t> choose_projector(std::span<const size_t> projector_idxs,
                                       std::span<const RemoteFile> files);

}  // namespace dsctl::registry
