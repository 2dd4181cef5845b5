// Which published vocabulary a byte-level one is, so that its pre-tokenizer gets the name that
// other programs know.
#pragma once

#include <optional>
#include <string>

#include "gguf/convert/tokenizer_tables.h"

namespace dsctl::commands {

/// The value of tokenizer.ggml.pre that llama.cpp's converter gives `tables`, or nothing when it
/// does not know them. Throws engine::Error when the tables are no vocabulary.
std::optional<std::string> name_pre_tokenizer(const gguf::convert::TokenizerTables& tables);

}  // namespace dsctl::commands
