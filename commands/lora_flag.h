// --lora FILE[=SCALE], as llama.cpp's users know it.
#pragma once

#include <string>
#include <vector>

#include "engine/engine.h"

namespace dsctl::commands {

/// The adapters of the flags, with absolute paths. A '=' that belongs to the name of a file is
/// taken for that. Throws Error when a file is not there or a scale is no finite number.
std::vector<engine::LoraAdapter> parse_loras(const std::vector<std::string>& flags);

}  // namespace dsctl::commands
