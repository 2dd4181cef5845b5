#include "commands/run.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "commands/answer_printer.h"
#include "commands/chat_backend.h"
#include "commands/error.h"
#include "commands/lora_flag.h"
#include "commands/repl.h"
#include "commands/structured_output.h"

namespace dsctl::commands {
namespace {

constexpr int kInterrupted = 130;

void set_think(const std::string& value, GenerationRequest& request) {
  if (value == "true" || value == "false") {
    request.think = value == "true";
  } else if (value == "low" || value == "medium" || value == "high" || value == "max") {
    request.think = true;
    request.think_level = value;
  } else {
    throw Error("invalid value for --think: \"" + value +
                "\", expected true, false, low, medium, high or max");
  }
}

template <typename From>
void set_option(Options& options, const char* name, const std::optional<From>& value) {
  if (!value) return;
  if constexpr (std::is_floating_point_v<From>) {
    options[name] = check_option(name, static_cast<double>(*value));
  } else {
    options[name] = check_option(name, static_cast<int64_t>(*value));
  }
}

GenerationRequest make_session(const RunOptions& options) {
  GenerationRequest session;
  session.model = options.model;
  if (options.think) set_think(*options.think, session);
  if (!options.keep_alive.empty()) {
    session.keep_alive = parse_keep_alive(options.keep_alive, BareNumber::kSeconds);
  }
  set_option(session.options, "num_predict", options.max_tokens);
  set_option(session.options, "temperature", options.temperature);
  set_option(session.options, "top_k", options.top_k);
  set_option(session.options, "top_p", options.top_p);
  set_option(session.options, "seed", options.seed);
  set_option(session.options, "num_ctx", options.num_ctx);
  if (options.system) {
    templates::Message system;
    system.role = "system";
    system.content = *options.system;
    session.messages.push_back(std::move(system));
  }
  return session;
}

// Everything that is piped in, then the words of the command line.
std::string read_prompt(const RunOptions& options, Console& console) {
  std::string prompt;
  if (!console.stdin_is_terminal()) {
    while (const auto line = console.read_line(""))
      prompt += *line + "\n";
    while (!prompt.empty() && prompt.back() == '\n')
      prompt.pop_back();
  }
  std::string words;
  for (const std::string& word : options.prompt.value_or(std::vector<std::string>()))
    words += (words.empty() ? "" : " ") + word;
  if (!prompt.empty() && !words.empty()) prompt += "\n\n";
  return prompt + words;
}

void print_json(const AnswerPrinter& printer, const ChatSummary& summary, const std::string& model,
                Console& console) {
  nlohmann::ordered_json json = {{"model", model}, {"response", printer.content()}};
  if (!printer.thinking().empty()) json["thinking"] = printer.thinking();
  json["done_reason"] = summary.reason == engine::FinishReason::kLength      ? "length"
                        : summary.reason == engine::FinishReason::kCancelled ? "cancelled"
                                                                             : "stop";
  json["total_duration"] = summary.total_time.count();
  json["load_duration"] = summary.load_time.count();
  json["prompt_eval_count"] = summary.n_prompt_tokens;
  json["prompt_eval_duration"] = summary.prefill_time.count();
  json["eval_count"] = summary.n_generated_tokens;
  json["eval_duration"] = summary.decode_time.count();
  console.print(json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

// Hears nothing but Ctrl-C: for --json, whose output is one object at the end.
class SilentConsole final : public Console {
 public:
  explicit SilentConsole(Console& console) : console_(console) {}
  void print(std::string_view) override {}
  void note(std::string_view line) override { console_.note(line); }
  void progress(std::string_view, int64_t, int64_t) override {}
  void finish_progress() override {}
  std::optional<std::string> read_line(std::string_view prompt) override {
    return console_.read_line(prompt);
  }
  bool stdin_is_terminal() const override { return console_.stdin_is_terminal(); }
  bool stdout_is_terminal() const override { return false; }
  int width() const override { return console_.width(); }
  bool interrupted() const override { return console_.interrupted(); }
  void clear_interrupt() override { console_.clear_interrupt(); }

 private:
  Console& console_;
};

int answer_once(ChatBackend& backend, const RunOptions& options, GenerationRequest request,
                const AnswerStyle& style, Console& console) {
  templates::Message question;
  question.role = "user";
  question.content = read_prompt(options, console);
  if (question.content.empty()) {
    backend.preload(request);
    return 0;
  }
  request.messages.push_back(std::move(question));
  SilentConsole silent(console);
  AnswerPrinter printer(options.json ? static_cast<Console&>(silent) : console, style);
  const ChatSummary summary = backend.generate(
      request, [&printer](const TextPiece& piece) { printer.print(piece); },
      [&console] { return console.interrupted(); });
  printer.finish();
  if (options.json) print_json(printer, summary, options.model, console);
  if (options.verbose) print_timings(summary, console);
  return summary.reason == engine::FinishReason::kCancelled ? kInterrupted : 0;
}

}  // namespace

int run(const RunOptions& options, const Settings& settings, Console& console) {
  GenerationRequest session = make_session(options);
  if (!options.format.empty()) session.grammar = parse_format(options.format);
  std::unique_ptr<ChatBackend> backend;
  const std::vector<engine::LoraAdapter> adapters = parse_loras(options.loras);
  // A server has the adapters that it was started with.
  if (!options.local && adapters.empty()) backend = find_server_backend(options.model, settings);
  if (!backend) {
    if (console.stdout_is_terminal()) console.progress("loading " + options.model, 0, 0);
    backend = make_local_backend(options.model, settings,
                                 {.n_threads = options.n_threads,
                                  .num_ctx = options.num_ctx.value_or(0),
                                  .adapters = adapters});
  }
  if (session.think.value_or(false) && !backend->facts().can_think) {
    throw Error("\"" + options.model + "\" does not support thinking");
  }
  const AnswerStyle style{.hide_thinking = options.hide_thinking, .wrap = !options.no_word_wrap};
  if (options.prompt || !console.stdin_is_terminal()) {
    return answer_once(*backend, options, std::move(session), style, console);
  }
  Repl(*backend, console,
       {.session = std::move(session), .style = style, .verbose = options.verbose})
      .run();
  return 0;
}

}  // namespace dsctl::commands
