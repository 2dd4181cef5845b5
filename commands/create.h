// `dsctl create`: a model of the registry from a Modelfile.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "commands/console.h"
#include "commands/settings.h"
#include "registry/modelfile.h"
#include "registry/registry.h"

namespace dsctl::commands {

struct CreateOptions {
  std::string name;
  std::filesystem::path file = "Modelfile";  // "-": standard input
  bool copy = false;                         // weights are copied where they could be hard-linked
  std::string quantize;           // a type that the model gets on the way: "Q4_K_M"; "": none
  bool allow_requantize = false;  // of a model that is quantised already
  bool json = false;
};

/// Creates the model, converting safetensors and quantising first; hashing shows progress, Ctrl-C
/// leaves nothing behind. Without a Modelfile, but with weights in the current directory, it is
/// `FROM .`. JSON:
/// {"name", "digest", "size"}. Returns the exit code; throws the Error of the part that failed.
int create(const Settings& settings, const CreateOptions& options, Console& console);

/// Converts a directory of safetensors and returns the GGUF file, which lives until it is a blob.
using CheckpointConverter =
    std::function<std::filesystem::path(const std::filesystem::path& checkpoint)>;

/// What `modelfile` asks for, checked: templates parse, weights open. Relative paths start at
/// `dir`; `label` is the Modelfile's name in errors. `convert` is asked for a FROM that is a
/// directory of safetensors. Throws Error with line and column.
registry::CreateSpec make_spec(const registry::Modelfile& modelfile,
                               const std::filesystem::path& dir, std::string_view label,
                               const registry::Registry& registry,
                               const CheckpointConverter& convert);

/// Adds weights to `spec`: opens `files`, finds the other shards of a split, tells models from
/// projectors and takes the facts for the config. Blobs of the store are used where they lie.
/// Throws Error or gguf::Error naming the file.
void add_weights(registry::CreateSpec& spec, const std::vector<std::filesystem::path>& files,
                 const registry::Registry& registry);

/// Throws templates::Error "template:line:column: ..." when `text` is no valid TEMPLATE.
void check_template(std::string_view text);

}  // namespace dsctl::commands
