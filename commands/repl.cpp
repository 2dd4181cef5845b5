#include "commands/repl.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <sstream>
#include <utility>

#include "commands/error.h"
#include "commands/model_info.h"
#include "commands/structured_output.h"

namespace dsctl::commands {
namespace {

constexpr const char* kHelp =
    "Available Commands:\n"
    "  /set            Set session variables\n"
    "  /show           Show model information\n"
    "  /load <model>   Load a session or model\n"
    "  /save <model>   Save your current session\n"
    "  /clear          Clear session context\n"
    "  /list           List the models on this machine\n"
    "  /bye            Exit\n"
    "  /?, /help       Help for a command\n"
    "  /? shortcuts    Help for keyboard shortcuts\n"
    "\n"
    "Use \"\"\" to begin a multi-line message.\n";

constexpr const char* kHelpSet =
    "Available Commands:\n"
    "  /set parameter ...     Set a parameter\n"
    "  /set system <string>   Set system message\n"
    "  /set history           Keep the conversation\n"
    "  /set nohistory         Ask each question on its own\n"
    "  /set wordwrap          Enable wordwrap\n"
    "  /set nowordwrap        Disable wordwrap\n"
    "  /set format json       Enable JSON mode\n"
    "  /set noformat          Disable formatting\n"
    "  /set verbose           Show timings\n"
    "  /set quiet             Hide timings\n"
    "  /set think [level]     Enable thinking\n"
    "  /set nothink           Disable thinking\n";

constexpr const char* kHelpShow =
    "Available Commands:\n"
    "  /show info         Show details for this model\n"
    "  /show license      Show model license\n"
    "  /show modelfile    Show Modelfile for this model\n"
    "  /show parameters   Show parameters for this model\n"
    "  /show system       Show system message\n"
    "  /show template     Show prompt template\n";

constexpr const char* kHelpShortcuts =
    "Available keyboard shortcuts:\n"
    "  Ctrl + a            Move to the beginning of the line (Home)\n"
    "  Ctrl + e            Move to the end of the line (End)\n"
    "   Alt + b            Move back one word\n"
    "   Alt + f            Move forward one word\n"
    "  Ctrl + k            Delete the sentence after the cursor\n"
    "  Ctrl + u            Delete the sentence before the cursor\n"
    "  Ctrl + w            Delete the word before the cursor\n"
    "  Ctrl + l            Clear the screen\n"
    "  Ctrl + c            Stop the model from responding\n"
    "  Ctrl + d            Exit (/bye)\n";

std::vector<std::string> split_words(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;)
    words.push_back(word);
  return words;
}

std::string trim(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

// What follows the first `n_words` words, spaces inside kept.
std::string rest_after(const std::string& line, int n_words) {
  size_t at = 0;
  for (int i = 0; i < n_words; ++i) {
    at = line.find_first_not_of(" \t", at);
    if (at == std::string::npos) return "";
    at = line.find_first_of(" \t", at);
    if (at == std::string::npos) return "";
  }
  return trim(line.substr(at));
}

std::string or_note(const std::string& text, const char* note) {
  if (trim(text).empty()) return std::string(note) + "\n";
  return text.back() == '\n' ? text : text + "\n";
}

}  // namespace

Repl::Repl(ChatBackend& backend, Console& console, ReplOptions options)
    : backend_(backend), console_(console), options_(std::move(options)) {}

void Repl::run() {
  for (;;) {
    console_.clear_interrupt();
    const auto line = console_.read_line(">>> ");
    if (!line && console_.interrupted()) {
      console_.print("\nUse Ctrl + d or /bye to exit.\n");
      continue;
    }
    if (!line) return;
    if (trim(*line).empty()) continue;
    try {
      if (handle(*line) == Next::kLeave) return;
    } catch (const std::exception& error) {
      // A question that failed must not end the session.
      console_.note(std::string("error: ") + error.what());
    }
  }
}

Repl::Next Repl::handle(const std::string& line) {
  const std::string text = trim(line);
  if (text.starts_with("\"\"\"")) {
    if (const auto block = finish_block(text.substr(3))) ask(*block);
    return Next::kContinue;
  }
  if (text.front() == '/') return command(text);
  ask(line);
  return Next::kContinue;
}

// The lines up to one that ends with """, of which `text` is the first; nothing after Ctrl-C.
std::optional<std::string> Repl::finish_block(std::string text) {
  while (!trim(text).ends_with("\"\"\"")) {
    const auto line = console_.read_line("... ");
    if (!line) return std::nullopt;
    text += (text.empty() ? "" : "\n") + *line;
  }
  return trim(text.substr(0, text.rfind("\"\"\"")));
}

Repl::Next Repl::command(const std::string& line) {
  const std::vector<std::string> words = split_words(line);
  const std::string& name = words.front();
  if (name == "/bye" || name == "/exit") return Next::kLeave;
  if (name == "/?" || name == "/help") {
    const std::string topic = words.size() > 1 ? words[1] : "";
    console_.print(topic == "set" || topic == "/set"             ? kHelpSet
                   : topic == "show" || topic == "/show"         ? kHelpShow
                   : topic == "shortcut" || topic == "shortcuts" ? kHelpShortcuts
                                                                 : kHelp);
  } else if (name == "/set") {
    command_set(words, line);
  } else if (name == "/show") {
    command_show(words);
  } else if (name == "/list") {
    command_list();
  } else if (name == "/clear") {
    std::erase_if(options_.session.messages,
                  [](const templates::Message& message) { return message.role != "system"; });
    console_.print("Cleared session context\n");
  } else if (name == "/load") {
    if (words.size() != 2) {
      console_.print("Usage:\n  /load <modelname>\n");
    } else {
      load(words[1]);
    }
  } else if (name == "/save") {
    if (words.size() != 2) {
      console_.print("Usage:\n  /save <modelname>\n");
    } else {
      backend_.save(words[1], options_.session);
      console_.print("Created new model '" + words[1] + "'\n");
    }
  } else {
    console_.print("Unknown command '" + name + "'. Type /? for help\n");
  }
  return Next::kContinue;
}

void Repl::command_set(const std::vector<std::string>& words, const std::string& line) {
  const std::string what = words.size() > 1 ? words[1] : "";
  if (what == "parameter") {
    set_parameter(words);
  } else if (what == "system") {
    set_system(line);
  } else if (what == "history" || what == "nohistory") {
    keep_history_ = what == "history";
  } else if (what == "wordwrap" || what == "nowordwrap") {
    options_.style.wrap = what == "wordwrap";
    console_.print(options_.style.wrap ? "Set 'wordwrap' mode.\n" : "Set 'nowordwrap' mode.\n");
  } else if (what == "verbose" || what == "quiet") {
    options_.verbose = what == "verbose";
    console_.print("Set '" + what + "' mode.\n");
  } else if (what == "think" || what == "nothink") {
    set_think(words);
  } else if (what == "format") {
    // Ollama knows "json" alone; a schema has spaces and is better given with --format.
    if (words.size() < 3 || words[2] != "json") {
      console_.print("Invalid or missing format. For 'json' mode use '/set format json'\n");
    } else {
      options_.session.grammar = parse_format("json");
      console_.print("Set format to 'json' mode.\n");
    }
  } else if (what == "noformat") {
    options_.session.grammar.reset();
    console_.print("Disabled format.\n");
  } else if (what.empty()) {
    console_.print(kHelpSet);
  } else {
    console_.print("Unknown command '/set " + what + "'. Type /? for help\n");
  }
}

void Repl::set_parameter(const std::vector<std::string>& words) {
  if (words.size() < 4) {
    std::string help = "Available Parameters:\n";
    for (const OptionInfo& info : option_table()) {
      if (info.scope == OptionScope::kIgnored) continue;
      const std::string name = "  /set parameter " + std::string(info.name);
      help += name + std::string(name.size() < 40 ? 40 - name.size() : 1, ' ') +
              std::string(info.help) + "\n";
    }
    console_.print(help);
    return;
  }
  const std::vector<std::string> values(words.begin() + 3, words.end());
  options_.session.options[words[2]] = parse_option(words[2], values);
  std::string shown;
  for (const std::string& value : values)
    shown += (shown.empty() ? "" : ", ") + value;
  console_.print("Set parameter '" + words[2] + "' to '" + shown + "'\n");
}

void Repl::set_system(const std::string& line) {
  std::string text = rest_after(line, 2);
  if (text.empty()) {
    console_.print("Usage:\n  /set system <string>\n");
    return;
  }
  if (text.starts_with("\"\"\"")) {
    const auto block = finish_block(text.substr(3));
    if (!block) return;
    text = *block;
  } else if (text.size() >= 2 && text.front() == '"' && text.back() == '"') {
    text = text.substr(1, text.size() - 2);
  }
  auto& messages = options_.session.messages;
  if (!messages.empty() && messages.back().role == "system") messages.pop_back();
  templates::Message message;
  message.role = "system";
  message.content = text;
  // The first message of a conversation, where templates look for it.
  messages.insert(messages.empty() ? messages.begin() : messages.end(), message);
  console_.print("Set system message.\n");
}

void Repl::set_think(const std::vector<std::string>& words) {
  const bool think = words[1] == "think";
  if (think && !backend_.facts().can_think) {
    console_.note("warning: model '" + backend_.facts().name + "' does not support thinking");
  }
  options_.session.think = think;
  options_.session.think_level = think && words.size() > 2 ? words[2] : "";
  console_.print(!think             ? "Set 'nothink' mode.\n"
                 : words.size() > 2 ? "Set 'think' mode to '" + words[2] + "'.\n"
                                    : "Set 'think' mode.\n");
}

void Repl::command_show(const std::vector<std::string>& words) {
  const ModelFacts& facts = backend_.facts();
  const std::string what = words.size() > 1 ? words[1] : "";
  if (what == "info") {
    show_info();
  } else if (what == "license") {
    console_.print(or_note(facts.license, "No license was specified for this model."));
  } else if (what == "modelfile") {
    console_.print(or_note(facts.modelfile, "There is no Modelfile for this model."));
  } else if (what == "parameters") {
    show_parameters();
  } else if (what == "system") {
    std::string system = facts.system;
    for (const templates::Message& message : options_.session.messages) {
      if (message.role == "system") system = message.content;
    }
    console_.print(or_note(system, "No system message was specified for this model."));
  } else if (what == "template") {
    console_.print(
        or_note(facts.template_text, "No prompt template was specified for this model."));
  } else if (what.empty()) {
    console_.print(kHelpShow);
  } else {
    console_.print("Unknown command '/show " + what + "'. Type /? for help\n");
  }
}

void Repl::show_info() {
  const ModelFacts& facts = backend_.facts();
  std::string text = "  Model\n";
  const auto line = [&text](const std::string& key, const std::string& value) {
    text += "    " + key + std::string(key.size() < 20 ? 20 - key.size() : 1, ' ') + value + "\n";
  };
  line("architecture", facts.architecture);
  line("parameters", facts.parameter_size);
  if (facts.context_length > 0) line("context length", std::to_string(facts.context_length));
  if (facts.embedding_length > 0) line("embedding length", std::to_string(facts.embedding_length));
  line("quantization", facts.quantization);
  text += "\n  Capabilities\n    completion\n";
  if (facts.can_think) text += "    thinking\n";
  console_.print(text + "\n");
}

void Repl::show_parameters() {
  const std::string& own = backend_.facts().parameters;
  if (own.empty() && options_.session.options.empty()) {
    console_.print("No parameters were specified for this model.\n");
    return;
  }
  std::string text;
  if (!own.empty()) text += "Model defined parameters:\n" + or_note(own, "") + "\n";
  if (!options_.session.options.empty()) {
    text += "User defined parameters:\n";
    for (const auto& [name, value] : options_.session.options) {
      text += name + std::string(name.size() < 30 ? 30 - name.size() : 1, ' ') +
              format_option(value) + "\n";
    }
    text += "\n";
  }
  console_.print(text);
}

void Repl::command_list() {
  char line[512];
  std::snprintf(line, sizeof(line), "%-40s %-14s %-10s %s\n", "NAME", "ID", "SIZE", "MODIFIED");
  std::string text = line;
  const auto now = std::chrono::system_clock::now();
  for (const ListedModel& model : backend_.list()) {
    const auto age = std::chrono::duration_cast<std::chrono::seconds>(now - model.modified_at);
    std::snprintf(line, sizeof(line), "%-40s %-14s %-10s %s\n", model.name.c_str(),
                  model.digest.substr(0, 12).c_str(), format_size(model.size_bytes).c_str(),
                  format_relative_time(age).c_str());
    text += line;
  }
  console_.print(text);
}

void Repl::load(const std::string& model) {
  console_.print("Loading model '" + model + "'\n");
  backend_.use(model);
  // The conversation belongs to the model before; one that was saved brings its own, which the
  // backend puts before what is asked.
  options_.session.messages.clear();
}

void Repl::ask(const std::string& text) {
  templates::Message question;
  question.role = "user";
  question.content = text;
  GenerationRequest request = options_.session;
  if (!keep_history_) {
    std::erase_if(request.messages,
                  [](const templates::Message& message) { return message.role != "system"; });
  }
  request.messages.push_back(question);
  AnswerPrinter printer(console_, options_.style);
  console_.clear_interrupt();
  const ChatSummary summary = backend_.generate(
      request, [&printer](const TextPiece& piece) { printer.print(piece); },
      [this] { return console_.interrupted(); });
  printer.finish();
  console_.clear_interrupt();
  if (summary.n_dropped_messages > 0) {
    console_.note("note: the " + std::to_string(summary.n_dropped_messages) +
                  " oldest messages no longer fit into the context and were left out");
  }
  console_.print("\n");
  if (options_.verbose) print_timings(summary, console_);
  if (!keep_history_) return;
  templates::Message answer;
  answer.role = "assistant";
  answer.content = printer.content();
  if (!printer.thinking().empty()) answer.thinking = printer.thinking();
  options_.session.messages.push_back(std::move(question));
  options_.session.messages.push_back(std::move(answer));
}

}  // namespace dsctl::commands
