// Recognises a pre-tokenizer of tokenizer.json by its regexes. Internal to gguf/convert.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gguf/convert/json_file.h"

namespace dsctl::gguf::convert {

/// The steps of `pre_tokenizer` as text: regexes of Split, "Digits" (one by one), "Digits+",
/// "ByteLevel" (with its own regex); a ByteLevel without regex is left out.
std::vector<std::string> pre_tokenizer_steps(const Json& pre_tokenizer);

/// The value of tokenizer.ggml.pre for these steps, or nothing. Several values may mean the same
/// steps: this is the most common one.
std::optional<std::string> recognize_pre_tokenizer(const std::vector<std::string>& steps);

}  // namespace dsctl::gguf::convert
