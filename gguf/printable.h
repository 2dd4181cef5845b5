// Strings of a file made safe for messages and terminals, and sizes made readable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dsctl::gguf {

/// `text` with everything but printable ASCII and valid UTF-8 escaped as \xNN, cut to `max_bytes`:
/// bytes of a file never reach a terminal raw.
std::string printable(std::string_view text, size_t max_bytes = 80);

/// A size with its unit, decimal, to three figures: "404 GB", "48.3 GB", "512 bytes".
std::string printable_size(int64_t size_bytes);

}  // namespace dsctl::gguf
