// Any git remote with LFS: its tree is fetched by libgit2, pointer files say what is large, and the
// LFS server beside it has that.
#pragma once

#include <memory>

#include "registry/sources/source.h"

namespace dsctl::registry {

std::unique_ptr<Source> make_git_lfs(const HttpOptions& http);

}  // namespace dsctl::registry
