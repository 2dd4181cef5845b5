// The Ollama registry protocol: a manifest by name, blobs by digest, a bearer token where asked
// for.
#pragma once

#include <memory>

#include "registry/sources/source.h"

namespace dsctl::registry {

std::unique_ptr<Source> make_ollama(const HttpOptions& http);

}  // namespace dsctl::registry
