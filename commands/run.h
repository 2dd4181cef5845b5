// `dsctl run`: one answer, or a conversation.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct RunOptions {
  std::string model;  // a name of the registry, or a GGUF file
  /// The words of the prompt; absent: a conversation, unless standard input is piped.
  std::optional<std::vector<std::string>> prompt;
  std::optional<std::string> system;
  std::optional<std::string> think;  // true, false, low, medium, high, max
  bool hide_thinking = false;
  bool no_word_wrap = false;
  bool verbose = false;
  bool local = false;  // never ask a server
  bool json = false;   // one JSON object instead of text
  std::string format;
  std::string keep_alive;
  std::optional<int> max_tokens;
  std::optional<double> temperature;
  std::optional<int> top_k;
  std::optional<double> top_p;
  std::optional<int64_t> seed;
  std::optional<int> num_ctx;
  int n_threads = 0;
  std::vector<std::string> loras;  // FILE[=SCALE]; needs an engine of this process
};

/// Answers; returns the exit code: 130 when one answer was stopped by Ctrl-C.
int run(const RunOptions& options, const Settings& settings, Console& console);

}  // namespace dsctl::commands
