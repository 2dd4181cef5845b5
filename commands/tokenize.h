// `dsctl tokenize`: what a model's vocabulary makes of a text, and back. For people who count
// tokens, and who want to know why a prompt is read as it is.
#pragma once

#include <functional>
#include <istream>
#include <optional>
#include <string>

#include "commands/console.h"
#include "gguf/gguf_file.h"

namespace dsctl::commands {

struct TokenizeOptions {
  enum class Output { kIds, kJson, kCount };
  enum class Bos { kAsVocabularyAsks, kAlways, kNever };

  std::string model;
  std::optional<std::string> text;    // absent: standard input, to its end
  std::optional<std::string> decode;  // token ids to turn into text instead
  Output output = Output::kIds;
  Bos bos = Bos::kAsVocabularyAsks;  // kNever leaves out EOS too
  bool parse_special = true;         // is "<|im_end|>" in the text the control token?
};

/// Opens what a model's name or path stands for.
using OpenModel = std::function<gguf::GgufFile(const std::string& model)>;

/// Takes `model` for the path of a GGUF file.
gguf::GgufFile open_model_file(const std::string& model);

/// Prints the tokens of a text: ids on one line, or one JSON array [{"id", "piece"}] where invalid
/// UTF-8 of a piece is U+FFFD, or their number; or the text of ids. Returns the exit code; throws
/// commands::Error, engine::Error or gguf::Error.
int tokenize(const TokenizeOptions& options, const OpenModel& open_model, std::istream& input,
             Console& console);

}  // namespace dsctl::commands
