#include "engine/engine.h"
#include "engine/worker.h"

namespace dsctl::engine {

std::unique_ptr<Engine> Engine::load(const gguf::GgufFile& file, const EngineOptions& options) {
  return make_engine(make_worker(file, options), options);
}

}  // namespace dsctl::engine
