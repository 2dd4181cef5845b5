// Special token ids, what is added to a prompt, and the chat template: from tokenizer.json,
// tokenizer_config.json, chat_template.jinja and config.json. Internal to gguf/convert.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "gguf/convert/metadata_list.h"

namespace dsctl::gguf::convert {

struct SpecialTokenRequest {
  std::filesystem::path dir;
  int64_t vocab_size = 0;           // ids beyond it are left out; 0: all are kept
  std::vector<std::string> merges;  // written before the ids
};

/// Adds tokenizer.ggml.merges, the ids (bos, eos, unknown, ...), add_bos_token and its like,
/// tokenizer.chat_template, and the normalizer's flags, in the order of llama.cpp's converter.
/// Throws Error naming the file and field.
void add_special_tokens(const SpecialTokenRequest& request, MetadataList& metadata);

}  // namespace dsctl::gguf::convert
