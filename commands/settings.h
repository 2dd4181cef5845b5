// Settings: what holds for every command, gathered by cli/ from flags, environment and config.yaml.
#pragma once

#include <filesystem>
#include <string>

namespace dsctl::commands {

struct Settings {
  std::filesystem::path models_dir;  // the registry: blobs/ and manifests/
  std::string host = "127.0.0.1";    // of the server, to listen on or to talk to
  int port = 11434;
  std::string keep_alive = "5m";  // how long an idle model stays loaded
  int max_loaded_models = 1;
  int num_parallel = 0;                 // sequences at once; 0: the engine's default
  int context_length = 0;               // tokens; 0: the default
  int n_threads = 0;                    // 0: one for each physical core
  std::string kv_cache_dtype = "auto";  // how keys and values are kept: auto, f16, f32
};

}  // namespace dsctl::commands
