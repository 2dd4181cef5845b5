// Strings of a file made safe for messages and terminals.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace dsctl::gguf {

/// `text` with everything but printable ASCII and valid UTF-8 escaped as \xNN, cut to `max_bytes`:
/// bytes of a file never reach a terminal raw.
std::string printable(std::string_view text, size_t max_bytes = 80);

}  // namespace dsctl::gguf
