// Verify: reads blobs again and tells which are no longer what their names say.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "registry/registry.h"

namespace dsctl::registry {

/// A blob that is damaged or not there.
struct BadBlob {
  Digest digest;
  std::string problem;            // "missing", "its bytes have digest sha256:...", ...
  std::vector<ModelName> models;  // that need it; empty: none does
  uint64_t inode = 0;             // of the file that was read
};

struct VerifyResult {
  size_t n_models = 0;
  size_t n_blobs = 0;  // looked at, the bad ones included
  int64_t read_bytes = 0;
  std::vector<BadBlob> bad;           // by digest
  std::vector<std::string> problems;  // manifests that could not be read
};

/// Hashes every blob that `names` need, or all blobs of the store when it is empty, `n_threads` at
/// a time (0: as many as the machine has cores). Takes no lock and writes nothing. `progress`
/// counts all of them together, on one thread at a time; what it throws stops all and is thrown
/// here. Throws Error when there is no model of a name.
VerifyResult verify(const Registry& registry, const std::vector<ModelName>& names, int n_threads,
                    const Progress& progress);

/// Removes damaged blobs, so that a pull brings them again. Names of those removed; a blob that has
/// been replaced by a sound one meanwhile stays.
std::vector<Digest> remove_bad(const Registry& registry, const std::vector<BadBlob>& bad,
                               const Observer& observer);

}  // namespace dsctl::registry
