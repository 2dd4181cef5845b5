// ModelScope: its REST API's answers, and the Source that asks it. (Its git side is a git-LFS
// remote like any other: git_lfs.h.)
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "registry/sources/source.h"

namespace dsctl::registry {

/// Reads the answer of /api/v1/models/{id}/repo/files: its files, without `locate`. Throws Error,
/// also when the answer's envelope says that the request failed.
std::vector<RemoteFile> parse_modelscope_files(std::string_view json, const std::string& what);

std::unique_ptr<Source> make_modelscope(const HttpOptions& http);

}  // namespace dsctl::registry
