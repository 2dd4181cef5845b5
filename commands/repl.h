// The conversation at the `>>> ` prompt: Ollama's slash commands, multi-line input, Ctrl-C stops an
// answer and not the program.
#pragma once

#include <string>
#include <vector>

#include "commands/answer_printer.h"
#include "commands/chat_backend.h"
#include "commands/console.h"

namespace dsctl::commands {

struct ReplOptions {
  GenerationRequest session;  // options, think, keep_alive; messages: the conversation so far
  AnswerStyle style;
  bool verbose = false;
};

class Repl {
 public:
  Repl(ChatBackend& backend, Console& console, ReplOptions options);

  /// Until /bye or the end of input.
  void run();

 private:
  enum class Next { kContinue, kLeave };

  Next handle(const std::string& line);
  std::optional<std::string> finish_block(std::string text);
  Next command(const std::string& line);
  void command_set(const std::vector<std::string>& words, const std::string& line);
  void set_parameter(const std::vector<std::string>& words);
  void set_system(const std::string& line);
  void set_think(const std::vector<std::string>& words);
  void command_show(const std::vector<std::string>& words);
  void command_list();
  void show_info();
  void show_parameters();
  void load(const std::string& model);
  void ask(const std::string& text);

  ChatBackend& backend_;
  Console& console_;
  ReplOptions options_;
  bool keep_history_ = true;
};

}  // namespace dsctl::commands
