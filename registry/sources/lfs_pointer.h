// Git-LFS pointer files: what a repository holds in place of a large file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "registry/digest.h"

namespace dsctl::registry {

/// The large file that a pointer stands for.
struct LfsPointer {
  static constexpr size_t kMaxBytes = 1024;  // a pointer is shorter than this

  Digest oid;
  int64_t size_bytes = 0;

  /// True when `content` is short enough and begins as a pointer does.
  static bool is_pointer(std::string_view content);
  /// Reads a pointer (https://git-lfs.github.com/spec/v1): a version line, then "key value" lines
  /// in order of their keys, oid and size among them. Throws Error saying what is wrong.
  static LfsPointer parse(std::string_view content);
};

}  // namespace dsctl::registry
