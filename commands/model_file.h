// A command's MODEL|FILE argument, opened: a model of the registry, or a GGUF file.
#pragma once

#include <string>

#include "commands/settings.h"
#include "gguf/gguf_file.h"

namespace dsctl::commands {

/// The weights of a model of the registry, or of a file: what ends in ".gguf" or contains a '/' and
/// exists. Throws Error when there is no such model, or that of the folder that found the fault.
gguf::GgufFile open_model_file(const Settings& settings, const std::string& model);

}  // namespace dsctl::commands
