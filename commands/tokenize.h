// `dsctl tokenize`: what a model's vocabulary makes of a text, and back. For people who count
// tokens, and who want to know why a prompt is read as it is.
#pragma once

#include <istream>
#include <optional>
#include <string>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct TokenizeOptions {
  enum class Output { kIds, kJson, kCount };
  enum class Bos { kAsVocabularyAsks, kAlways, kNever };

  std::string model;                  // a name of the registry, or a file's path as in `show`
  std::optional<std::string> text;    // absent: standard input, to its end
  std::optional<std::string> decode;  // token ids to turn into text instead
  Output output = Output::kIds;
  Bos bos = Bos::kAsVocabularyAsks;  // kNever leaves out EOS too
  bool parse_special = true;         // is "<|im_end|>" in the text the control token?
};

/// Prints the tokens of a text: ids on one line, or one JSON array [{"id", "piece"}] where invalid
/// UTF-8 of a piece is U+FFFD, or their number; or the text of ids. Returns the exit code; throws
/// Error, or that of the folder that found the fault.
int tokenize(const Settings& settings, const TokenizeOptions& options, std::istream& input,
             Console& console);

}  // namespace dsctl::commands
